//! Text of `comparison.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ecr_core::Role;

use crate::compare::{Comparison, Wins};
use crate::evaluation::{Evaluation, alias};
use crate::names::{Scorer, info};

/// First in the table; the others follow by name.
const HEAD: [&str; 12] = [
    "mean_reward",
    "empathy",
    "empathy_eval",
    "empathy_plus_recommendation",
    "recommendation_accuracy",
    "recommendation_precision",
    "bleu_1",
    "bleu_2",
    "dist_1",
    "dist_2",
    "eos_rate",
    "reference_nll",
];

/// Four significant decimals, fewer for large numbers.
pub(crate) fn number(x: f64) -> String {
    let decimals = match x.abs() {
        a if a >= 1000.0 => 0,
        a if a >= 100.0 => 1,
        a if a >= 10.0 => 2,
        a if a >= 1.0 => 3,
        _ => 4,
    };
    format!("{x:.decimals$}")
}

/// As [`number`], with a sign.
pub(crate) fn signed(x: f64) -> String {
    let text = number(x);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

pub(crate) fn render(
    c: &Comparison,
    wins: &BTreeMap<String, Wins>,
    warnings: &[String],
    baseline: &Evaluation,
    rl: &Evaluation,
    resamples: usize,
    samples: usize,
) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut s, c, wins, warnings, baseline, rl, resamples);
    let _ = write_samples(&mut s, baseline, rl, samples);
    s
}

fn write_table(
    s: &mut String,
    c: &Comparison,
    wins: &BTreeMap<String, Wins>,
    warnings: &[String],
    baseline: &Evaluation,
    rl: &Evaluation,
    resamples: usize,
) -> std::fmt::Result {
    let (a, b) = (&baseline.run.model, &rl.run.model);
    writeln!(s, "# Comparison: {a} and {b}\n")?;
    writeln!(
        s,
        "{} prompts, the same for both models, the same decoding. Likelihood on {} dialogues.\n",
        baseline.run.examples.len(),
        baseline.run.reference_nll.len()
    )?;
    if !warnings.is_empty() {
        writeln!(s, "## Warnings\n")?;
        for w in warnings {
            writeln!(s, "- {w}")?;
        }
        writeln!(s)?;
    }
    writeln!(s, "## Metrics\n")?;
    writeln!(s, "| metric | {a} | {b} | difference | 95 % interval | | wins | n | scorer |")?;
    writeln!(s, "|---|---:|---:|---:|---|---|---:|---:|---|")?;
    let others = c.metrics.keys().map(String::as_str).filter(|n| !HEAD.contains(n));
    for name in HEAD.into_iter().chain(others) {
        let Some(r) = c.metrics.get(name) else { continue };
        let verdict = match info(name).higher_is_better {
            _ if r.ci_low <= 0.0 && r.ci_high >= 0.0 => "",
            Some(up) if up == (r.diff > 0.0) => "better",
            Some(_) => "worse",
            None => "differs",
        };
        let long = alias(name).unwrap_or_else(|| name.to_owned());
        let rate = wins.get(&long).map_or(String::new(), |w| format!("{:.0} %", 100.0 * w.rate()));
        let scorer = match r.scorer {
            Scorer::Train => "used in training",
            Scorer::Eval => "evaluation only",
            Scorer::None => "",
        };
        writeln!(
            s,
            "| {name} | {} | {} | {} | {} to {} | {verdict} | {rate} | {} | {scorer} |",
            number(r.baseline),
            number(r.rl_enhanced),
            signed(r.diff),
            signed(r.ci_low),
            signed(r.ci_high),
            r.n
        )?;
    }
    writeln!(s, "\n## How to read this\n")?;
    writeln!(
        s,
        "- The interval is a paired bootstrap of the difference ({resamples} resamples, conversations drawn \
         whole). \"better\" and \"worse\" stand only where it excludes 0; with this many metrics, about one in \
         twenty would do so by chance."
    )?;
    writeln!(
        s,
        "- \"used in training\": reinforcement learning optimised this very scorer, so a rise shows that training \
         worked, not that people would like the replies more. \"evaluation only\" scorers were never seen."
    )?;
    writeln!(
        s,
        "- Wins: share of prompts where {b} scores better, a tie counting half. n: units to which the metric \
         applies in either model."
    )?;
    writeln!(
        s,
        "- Dist ratios fall and `per_sentence` rises as replies grow longer: read them beside `length`.\n"
    )?;
    writeln!(s, "| metric | meaning |\n|---|---|")?;
    for name in c.metrics.keys() {
        writeln!(s, "| {name} | {} |", info(name).about)?;
    }
    Ok(())
}

/// One line of text that no table or list can break.
fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn write_samples(s: &mut String, a: &Evaluation, b: &Evaluation, samples: usize) -> std::fmt::Result {
    let n = a.run.examples.len();
    let shown = samples.min(n);
    if shown == 0 {
        return Ok(());
    }
    writeln!(s, "\n## Samples\n\nEvenly spaced over the prompts, not chosen.")?;
    for i in (0..shown).map(|k| k * n / shown) {
        let (x, y) = (&a.run.examples[i], &b.run.examples[i]);
        writeln!(s, "\n### Prompt {}\n", i + 1)?;
        for u in x.context.iter().rev().take(4).rev() {
            let who = if u.role == Role::Seeker { "seeker" } else { "recommender" };
            writeln!(s, "> **{who}**: {}  ", line(&u.text))?;
        }
        let reward = |e: &crate::Example| e.reward.as_ref().map_or(String::new(), |r| signed(r.total));
        writeln!(s, "\n| | reply | reward |\n|---|---|---:|")?;
        writeln!(s, "| {} | {} | {} |", a.run.model, line(&x.reply), reward(x))?;
        writeln!(s, "| {} | {} | {} |", b.run.model, line(&y.reply), reward(y))?;
        writeln!(s, "| human | {} | |", line(x.reference.as_deref().unwrap_or("")))?;
    }
    Ok(())
}
