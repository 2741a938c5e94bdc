//! Text of `experiment.md`.

use std::fmt::Write as _;

use super::study::{MEAN_REWARD, Outcome};
use super::training::Curve;

pub(super) fn render(o: &Outcome, runs: usize) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut s, o, runs)
        .and_then(|()| expectations(&mut s, o))
        .and_then(|()| curves(&mut s, &o.training));
    // The comparison's own title becomes a section, its sections one level lower.
    s.push_str(&o.table.replace("\n## ", "\n### ").replacen("# Comparison", "## Comparison", 1));
    s
}

fn head(s: &mut String, o: &Outcome, runs: usize) -> std::fmt::Result {
    let spec = &o.spec;
    writeln!(s, "# Experiment: {}\n", o.name)?;
    if !spec.about.is_empty() {
        writeln!(s, "{}\n", spec.about.trim())?;
    }
    let seeds: Vec<String> = spec.seeds.iter().map(u64::to_string).collect();
    writeln!(
        s,
        "{runs} runs: base `{}`, seeds {} from stage `{}` on; data, test prompts and sampling of the evaluation are the \
         same in all.\n",
        spec.base,
        seeds.join(", "),
        spec.seeds_from
    )?;
    for set in spec.set.iter().chain(&o.over) {
        writeln!(s, "- all: `{set}`")?;
    }
    for v in &spec.variants {
        let set: Vec<String> = v.set.iter().map(|x| format!("`{x}`")).collect();
        let set = if set.is_empty() { "as the base".into() } else { set.join(", ") };
        writeln!(s, "- {}: {set}; compared: {}", v.name, spec.stages_of(v).join(", "))?;
    }
    if spec.metrics.is_empty() && !o.comparison.metrics.contains_key(MEAN_REWARD) {
        writeln!(
            s,
            "\n`{MEAN_REWARD}` is left out: the variants' rewards differ, so it is not one quantity."
        )?;
    }
    writeln!(s)
}

fn expectations(s: &mut String, o: &Outcome) -> std::fmt::Result {
    if o.expectations.is_empty() {
        return Ok(());
    }
    writeln!(s, "## Expected\n\n| | expected | found |\n|---|---|---|")?;
    for e in &o.expectations {
        writeln!(
            s,
            "| {} | {} | {} |",
            if e.held { "holds" } else { "**does not hold**" },
            e.expect,
            e.found
        )?;
    }
    writeln!(
        s,
        "\nA \"not\" or an \"unchanged\" that holds says that the data show no such thing, not that there is none: a difference \
         below the detectable one would go unseen.\n"
    )
}

fn curves(s: &mut String, curves: &[Curve]) -> std::fmt::Result {
    if curves.is_empty() {
        return Ok(());
    }
    let number = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.4}"));
    writeln!(s, "## Training\n")?;
    writeln!(
        s,
        "| number | model | runs | first quarter | last quarter | sd over runs | sd around trend | sd from step to step |"
    )?;
    writeln!(s, "|---|---|---:|---:|---:|---:|---:|---:|")?;
    let mut names: Vec<&str> = Vec::new();
    for c in curves {
        if !names.contains(&c.name.as_str()) {
            names.push(&c.name);
        }
    }
    for c in names.iter().flat_map(|n| curves.iter().filter(move |c| c.name == *n)) {
        writeln!(
            s,
            "| {} | {} | {} | {:.4} | {:.4} | {} | {} | {:.4} |",
            c.name,
            c.model,
            c.runs,
            c.start,
            c.end,
            number(c.sd_runs),
            number(c.sd_trend),
            c.sd_steps
        )?;
    }
    writeln!(s)
}
