//! Text of `comparison_all.md`.

use std::fmt::Write as _;

use super::{Against, ComparisonAll, Estimate, MetricTable};
use crate::evaluation::alias;
use crate::markdown::{number, signed};
use crate::names::{Scorer, info};

/// Findings are called so below this corrected p-value.
const ALPHA: f64 = 0.05;

pub(super) fn render(c: &ComparisonAll) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut s, c).and_then(|()| table(&mut s, c)).and_then(|()| runs(&mut s, c));
    let _ = wins(&mut s, c).and_then(|()| breakdown(&mut s, c)).and_then(|()| how_to_read(&mut s, c));
    s
}

fn head(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    let others: Vec<&str> = c.models.iter().skip(1).map(|m| m.name.as_str()).collect();
    writeln!(s, "# Comparison: {} against {}\n", others.join(", "), c.reference)?;
    writeln!(
        s,
        "{} prompts from {} conversations, the same for every run, the same decoding.\n",
        c.prompts, c.conversations
    )?;
    writeln!(s, "| model | runs | |\n|---|---:|---|")?;
    for m in &c.models {
        writeln!(s, "| {} | {} | {} |", m.name, m.runs.len(), m.runs.join(", "))?;
    }
    if !c.notes.is_empty() {
        writeln!(s, "\n## Notes\n")?;
        for n in &c.notes {
            writeln!(s, "- {n}")?;
        }
    }
    writeln!(s)
}

/// p-value in three decimals.
fn p_value(p: f64) -> String {
    if p < 0.001 { "< .001".into() } else { format!("{p:.3}") }
}

/// What a difference amounts to; in brackets where only the uncorrected test finds it.
fn verdict(e: &Estimate, up: Option<bool>) -> String {
    let word = match up {
        _ if e.p >= ALPHA => return String::new(),
        Some(up) if up == (e.diff > 0.0) => "better",
        Some(_) => "worse",
        None => "differs",
    };
    if e.p_holm < ALPHA { word.into() } else { format!("({word})") }
}

/// Metrics in the order of [`super::METRICS`], then the others by name.
fn ordered(c: &ComparisonAll) -> impl Iterator<Item = (&String, &MetricTable)> {
    let known = super::METRICS.iter().filter_map(|n| c.metrics.get_key_value(*n));
    known.chain(c.metrics.iter().filter(|(n, _)| !super::METRICS.contains(&n.as_str())))
}

fn table(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    writeln!(s, "## Metrics\n")?;
    writeln!(
        s,
        "| metric | model | {} | model's | difference | 95 % interval | p (Holm) | | effect d | detectable | n | scorer |",
        c.reference
    )?;
    writeln!(s, "|---|---|---:|---:|---:|---|---:|---|---:|---:|---:|---|")?;
    let value = |t: &MetricTable, m: &str| t.values.get(m).map_or(String::new(), |v| number(v.value));
    for (name, t) in ordered(c) {
        let scorer = match t.scorer {
            Scorer::Train => "used in training",
            Scorer::Eval => "evaluation only",
            Scorer::None => "",
        };
        for a in &t.against_reference {
            let Against { model, estimate: e, effect, n } = a;
            writeln!(
                s,
                "| {name} | {model} | {} | {} | {} | {} to {} | {} | {} | {} | {} | {n} | {scorer} |",
                value(t, &c.reference),
                value(t, model),
                signed(e.diff),
                signed(e.ci_low),
                signed(e.ci_high),
                p_value(e.p_holm),
                verdict(e, t.higher_is_better),
                effect.d.map_or(String::new(), |d| format!("{d:+.2}")),
                number(e.detectable),
            )?;
        }
    }
    writeln!(s)
}

fn runs(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    if c.models.iter().all(|m| m.runs.len() < 2) {
        return Ok(());
    }
    writeln!(s, "## Spread over runs\n")?;
    writeln!(s, "| metric | model | mean | standard deviation | each run |\n|---|---|---:|---:|---|")?;
    for (name, t) in ordered(c) {
        for m in c.models.iter().filter(|m| m.runs.len() > 1) {
            let Some(v) = t.values.get(&m.name) else { continue };
            let each: Vec<String> = v.runs.iter().map(|x| number(*x)).collect();
            let sd = v.sd.map_or(String::new(), number);
            writeln!(s, "| {name} | {} | {} | {sd} | {} |", m.name, number(v.value), each.join(", "))?;
        }
    }
    writeln!(s)
}

fn wins(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    let Some(judge) = &c.judge else { return Ok(()) };
    writeln!(s, "## Win rates by `{judge}`\n")?;
    writeln!(s, "The scorer was never used in training. A tie counts half.\n")?;
    writeln!(s, "| model | against | wins | 95 % interval | p (Holm) |\n|---|---|---:|---|---:|")?;
    for w in &c.wins {
        let percent = |x: f64| format!("{:.1} %", 100.0 * (0.5 + x).clamp(0.0, 1.0));
        writeln!(
            s,
            "| {} | {} | {} | {} to {} | {} |",
            w.model,
            w.against,
            percent(w.estimate.diff),
            percent(w.estimate.ci_low),
            percent(w.estimate.ci_high),
            p_value(w.estimate.p_holm)
        )?;
    }
    writeln!(s)
}

fn breakdown(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    for (by, title) in [("turn", "By kind of turn"), ("emotion", "By emotion of the last seeker turn")] {
        let groups: Vec<_> = c.breakdown.iter().filter(|g| g.by == by).collect();
        if groups.is_empty() {
            continue;
        }
        writeln!(s, "## {title}\n")?;
        writeln!(s, "| prompts | metric | model | value | difference | 95 % interval | p (Holm) | |")?;
        writeln!(s, "|---|---|---|---:|---:|---|---:|---|")?;
        for g in groups {
            let of = format!("{} ({} of {})", g.name, g.prompts, c.prompts);
            if g.metrics.is_empty() {
                writeln!(s, "| {of} | too few conversations to compare: {} | | | | | | |", g.conversations)?;
            }
            for (name, part) in g.metrics.iter().flat_map(|(n, ps)| ps.iter().map(move |p| (n, p))) {
                write!(s, "| {of} | {name} | {} | {} |", part.model, number(part.value))?;
                match &part.against_reference {
                    None => writeln!(s, " | | | |")?,
                    Some(e) => writeln!(
                        s,
                        " {} | {} to {} | {} | {} |",
                        signed(e.diff),
                        signed(e.ci_low),
                        signed(e.ci_high),
                        p_value(e.p_holm),
                        verdict(e, info(name).higher_is_better)
                    )?,
                }
            }
        }
        writeln!(s)?;
    }
    Ok(())
}

fn how_to_read(s: &mut String, c: &ComparisonAll) -> std::fmt::Result {
    writeln!(s, "## How to read this\n")?;
    writeln!(
        s,
        "- The interval is difference ± t · standard error. The standard error comes from {} resamples of conversations \
         and of runs together; t has few degrees of freedom where few runs decide, so three seeds give wide \
         intervals. With one run of a model nothing is known about its other seeds.",
        c.resamples
    )?;
    writeln!(
        s,
        "- p (Holm): corrected over all metrics and models of this table; win rates and breakdown are families of their \
         own. \"better\" and \"worse\" stand where it is below .05, in brackets where only the uncorrected test is."
    )?;
    writeln!(
        s,
        "- effect d: difference over the standard deviation of single replies (.2 small, .5 medium, .8 large). \
         detectable: the smallest true difference that an uncorrected test on this much data finds four times in five; \
         a smaller one is missed more often than that."
    )?;
    writeln!(
        s,
        "- \"used in training\": reinforcement learning optimised this very scorer, so a rise shows that training \
         worked, not that people would like the replies more.\n"
    )?;
    writeln!(s, "| metric | meaning |\n|---|---|")?;
    for name in c.metrics.keys() {
        let long = alias(name).unwrap_or_else(|| name.clone());
        writeln!(s, "| {name} | {} |", info(&long).about)?;
    }
    Ok(())
}
