//! All metrics of one model.

use std::collections::BTreeMap;

use ecr_core::{Error, Result};
use ecr_rewards::components::format::repeated_trigrams;
use ecr_rewards::text::bleu::BleuCounts;
use ecr_rewards::text::distinct::Distinct;
use ecr_rewards::text::rouge::rouge_l;
use ecr_rewards::text::tokenizer_13a::tokenize_13a;
use ecr_rewards::text::tokens;
use serde_json::{Map, Value, json};

use crate::example::{Example, ModelRun};
use crate::metric::Metric;
use crate::names::info;

/// What a metric is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Replies to prompts.
    Replies,
    /// Dialogues of the likelihood set.
    Dialogues,
}

/// Metrics of one model over its replies, with all per-reply values.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Replies and likelihoods that were measured.
    pub run: ModelRun,
    /// Metrics by name.
    pub metrics: BTreeMap<String, (Units, Metric)>,
}

fn flag(b: bool) -> f64 {
    f64::from(b)
}

/// Names that stand for another metric: (short, long).
pub(crate) fn alias(name: &str) -> Option<String> {
    let (kind, k) = name.split_at_checked(5)?;
    let long = match kind {
        "bleu_" => "bleu.single_order",
        "dist_" => "dist.inter.ratio",
        _ => return None,
    };
    Some(format!("{long}.{k}"))
}

impl Evaluation {
    /// Measures a run.
    ///
    /// # Errors
    /// Data: no reply at all, or a score that is no finite number.
    pub fn new(run: ModelRun) -> Result<Self> {
        let what = || format!("evaluate {}", run.model);
        if run.examples.is_empty() {
            return Err(Error::data(what()).expected("at least one reply").got("none"));
        }
        let mut metrics: BTreeMap<String, (Units, Metric)> = BTreeMap::new();
        let mut put = |name: String, m: Metric| {
            // A metric that applies to no reply (scores not taken, no reference) is left out.
            if m.applies().contains(&true) {
                metrics.insert(name, (Units::Replies, m));
            }
        };
        plain(&run.examples, &mut put);
        text(&run.examples, &mut put);
        scores(&run.examples, &mut put);
        let nll: Vec<f64> = run.reference_nll.iter().map(|r| r.nll).collect();
        let count: Vec<f64> = run.reference_nll.iter().map(|r| r.tokens as f64).collect();
        if count.iter().any(|&c| c > 0.0) {
            let m = Metric::Ratio { num: nll.clone(), den: count.clone() };
            metrics.insert("reference_nll".into(), (Units::Dialogues, m));
            let m = Metric::Exp { num: nll, den: count };
            metrics.insert("reference_perplexity".into(), (Units::Dialogues, m));
        }
        if let Some((name, _)) = metrics.iter().find(|(_, (_, m))| !m.is_finite()) {
            return Err(Error::data(what())
                .expected(format!("finite values of {name}"))
                .got("NaN or infinity"));
        }
        Ok(Self { run, metrics })
    }
    /// Conversation of each unit, `[units]`.
    pub fn clusters(&self, units: Units) -> Vec<u64> {
        match units {
            Units::Replies => self.run.examples.iter().map(|e| e.conversation).collect(),
            Units::Dialogues => self.run.reference_nll.iter().map(|r| r.conversation).collect(),
        }
    }
    /// Value of a metric over all units.
    pub fn value(&self, name: &str) -> Option<f64> {
        let (units, m) = self.metrics.get(name).or_else(|| self.metrics.get(&alias(name)?))?;
        let n = match units {
            Units::Replies => self.run.examples.len(),
            Units::Dialogues => self.run.reference_nll.len(),
        };
        m.value(&vec![1; n]).filter(|x| x.is_finite())
    }
    /// `evaluation_results.json`: values, scorers and numbers of units by name, and under `bleu@k`, `dist@k`
    /// what the field's scripts print under those names.
    pub fn results_json(&self, replies_file: &str) -> String {
        let mut names: Vec<String> = self.metrics.keys().cloned().collect();
        for k in 1..=4 {
            names.extend([format!("bleu_{k}"), format!("dist_{k}")]);
        }
        names.sort();
        let (mut values, mut scorers) = (Map::new(), Map::new());
        for name in names {
            if let Some(v) = self.value(&name) {
                scorers.insert(name.clone(), json!(info(&name).scorer));
                values.insert(name, json!(v));
            }
        }
        let mut parity = Map::new();
        for k in 1..=4 {
            for (name, long) in [("bleu", "bleu.single_order"), ("dist", "dist.inter.per_sentence")] {
                if let Some(v) = self.value(&format!("{long}.{k}")) {
                    parity.insert(format!("{name}@{k}"), json!(v));
                }
            }
        }
        let all = json!({
            "version": 1,
            "model": self.run.model,
            "replies": self.run.examples.len(),
            "replies_file": replies_file,
            "reference_dialogues": self.run.reference_nll.len(),
            "metrics": Value::Object(values),
            "scorer": Value::Object(scorers),
            "parity": Value::Object(parity),
        });
        format!("{all:#}\n")
    }
}

type Put<'p> = dyn FnMut(String, Metric) + 'p;

/// Length, ends, and films named.
fn plain(examples: &[Example], put: &mut Put<'_>) {
    let mean = |f: &dyn Fn(&Example) -> Option<f64>| Metric::mean(examples.iter().map(f));
    put("length".into(), mean(&|e| Some(e.length as f64)));
    put("eos_rate".into(), mean(&|e| Some(flag(e.finished))));
    put("repetition".into(), mean(&|e| Some(repeated_trigrams(&e.reply))));
    put("recommendation_rate".into(), mean(&|e| Some(flag(!e.named.is_empty()))));
    put("unknown_title_rate".into(), mean(&|e| Some(flag(e.unknown > 0))));
    let hits = |e: &Example| e.named.iter().filter(|i| e.labels.contains(i)).count();
    let accuracy = mean(&|e| (!e.labels.is_empty()).then(|| flag(hits(e) > 0)));
    put("recommendation_accuracy".into(), accuracy);
    let recommending = |e: &Example, x: usize| if e.labels.is_empty() { 0.0 } else { x as f64 };
    let num = examples.iter().map(|e| recommending(e, hits(e))).collect();
    let den = examples.iter().map(|e| recommending(e, e.named.len())).collect();
    put("recommendation_precision".into(), Metric::Ratio { num, den });
}

/// BLEU, distinct, ROUGE.
fn text(examples: &[Example], put: &mut Put<'_>) {
    let replies: Vec<&str> = examples.iter().map(|e| e.reply.as_str()).collect();
    for n in 1..=4 {
        let d = Distinct::new(&replies, n);
        put(format!("dist.intra.{n}"), Metric::mean(d.intra()));
        put(format!("dist.inter.per_sentence.{n}"), Metric::DistinctPerReply(d.clone()));
        put(format!("dist.inter.ratio.{n}"), Metric::DistinctRatio(d));
    }
    if examples.iter().all(|e| e.reference.is_none()) {
        return;
    }
    let rouge = |e: &Example| Some(rouge_l(&e.reply, e.reference.as_ref()?).f1);
    put("rouge_l".into(), Metric::mean(examples.iter().map(rouge)));
    // A reply without reference adds nothing to corpus counts.
    let counts: Vec<Option<BleuCounts>> = examples
        .iter()
        .map(|e| Some(BleuCounts::new(&tokens(&e.reply), &[&tokens(e.reference.as_ref()?)])))
        .collect();
    let corpus: Vec<BleuCounts> = counts.iter().map(|c| c.unwrap_or_default()).collect();
    for k in 1..=4 {
        // ecr.md §4.2: sum over all pairs / number of non-empty replies.
        let one = |c: &Option<BleuCounts>| c.filter(|c| c.reply_len > 0).map(|c| c.single_order(k));
        put(format!("bleu.single_order.{k}"), Metric::mean(counts.iter().map(one)));
        put(format!("bleu.cumulative.{k}"), Metric::CumulativeBleu(corpus.clone(), k));
    }
    let sacre = examples.iter().map(|e| match &e.reference {
        Some(r) => BleuCounts::new(&tokenize_13a(&e.reply), &[&tokenize_13a(r)]),
        None => BleuCounts::default(),
    });
    put("bleu.sacre".into(), Metric::SacreBleu(sacre.collect()));
}

/// Rewards, scorers, KL.
fn scores(examples: &[Example], put: &mut Put<'_>) {
    let mean = |f: &dyn Fn(&Example) -> Option<f64>| Metric::mean(examples.iter().map(f));
    put("mean_reward".into(), mean(&|e| Some(e.reward.as_ref()?.total)));
    put("empathy_eval".into(), mean(&|e| e.empathy_eval));
    put("epitome_eval".into(), mean(&|e| e.epitome_eval));
    put("critic_value".into(), mean(&|e| e.critic_value));
    put("kl".into(), mean(&|e| e.kl));
    let num = examples.iter().map(|e| e.kl.unwrap_or(0.0)).collect();
    let den = examples.iter().map(|e| if e.kl.is_some() { e.length as f64 } else { 0.0 }).collect();
    put("kl_per_token".into(), Metric::Ratio { num, den });
    let mut names: Vec<&str> = Vec::new();
    for p in examples.iter().filter_map(|e| e.reward.as_ref()).flat_map(|r| &r.parts) {
        if !names.contains(&p.name.as_str()) {
            names.push(&p.name);
        }
    }
    let component = |name: &str| mean(&|e: &Example| e.reward.as_ref()?.part(name)?.raw);
    for name in &names {
        put(format!("reward/{name}"), component(name));
    }
    if names.contains(&"empathy") {
        put("empathy".into(), component("empathy"));
        if names.contains(&"recommendation") {
            let both = vec![component("empathy"), component("recommendation")];
            put("empathy_plus_recommendation".into(), Metric::Sum(both));
        }
    }
}
