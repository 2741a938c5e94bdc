//! Layers of settings and where each value came from.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Error, Result, io};
use serde_json::Value as Json;

use super::Config;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// A named preset.
    Preset(String),
    /// A line of a file.
    File(String, usize),
    /// `--set`.
    Set,
    /// A flag of the command line.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::Preset(p) => write!(f, "preset {p}"),
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Set => write!(f, "--set"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Settings by dotted key, later layers over earlier ones.
#[derive(Debug, Clone)]
pub struct Layers {
    values: BTreeMap<String, (Json, Origin)>,
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    /// The built-in defaults.
    pub fn new() -> Self {
        let mut values = BTreeMap::new();
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        flatten("", &defaults, &mut |key, value| {
            values.insert(key, (value.clone(), Origin::Default));
        });
        Self { values }
    }
    /// Every value with its origin, by key.
    pub fn values(&self) -> &BTreeMap<String, (Json, Origin)> {
        &self.values
    }
    /// A layer of TOML text; `origin` names it, given the line.
    pub fn toml(&mut self, text: &str, name: &str, origin: impl Fn(usize) -> Origin) -> Result<()> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |s| text[..s.start].matches('\n').count() + 1);
            Error::config(format!("read {name}:{line}"))
                .expected("TOML")
                .got(e.message().to_string())
                .files("nothing was changed")
        })?;
        let json = serde_json::to_value(table)
            .map_err(|e| Error::config(format!("read {name}")).got(e.to_string()))?;
        let mut entries = Vec::new();
        flatten("", &json, &mut |key, value| entries.push((key, value.clone())));
        for (key, value) in entries {
            let line = line_of(text, &key);
            self.put(&key, value, origin(line)).map_err(|mut e| {
                e.operation = format!("{} ({name}:{line})", e.operation);
                e
            })?;
        }
        Ok(())
    }
    /// A configuration file. Relative paths inside are taken from its directory.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let text = io::read_to_string(path)?;
        let name = path.display().to_string();
        self.toml(&text, &name, |line| Origin::File(name.clone(), line))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        for key in super::PATHS {
            let Some((Json::String(p), Origin::File(from, _))) = self.values.get_mut(*key) else { continue };
            let there = dir.join(&*p);
            if *from == name && !p.is_empty() && there.exists() {
                *p = there.display().to_string();
            }
        }
        Ok(())
    }
    /// Settings that a run directory was begun with (`.state/config.json`).
    pub fn saved(&mut self, path: &Path) -> Result<()> {
        let bad = |e: serde_json::Error| {
            Error::data(format!("read {}", path.display())).got(e.to_string()).hint("give --config")
        };
        let values: BTreeMap<String, Json> = serde_json::from_slice(&io::read(path)?).map_err(bad)?;
        for (key, value) in values {
            // Null is an option that is off, as it is by default.
            if !value.is_null() {
                self.put(&key, value, Origin::File(path.display().to_string(), 1))?;
            }
        }
        Ok(())
    }
    /// `key=value` of `--set`; the value is TOML, or else a string.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let (key, text) = assignment.split_once('=').ok_or_else(|| {
            Error::config(format!("read --set {assignment}")).expected("key=value").got("no =")
        })?;
        self.put(key.trim(), parse_value(text.trim()), Origin::Set)
    }
    /// A value given by a flag.
    pub fn flag(&mut self, flag: &str, key: &str, text: &str) -> Result<()> {
        self.put(key, parse_value(text), Origin::Flag(flag.to_string()))
    }
    /// Puts one value, checking key and type.
    fn put(&mut self, key: &str, value: Json, origin: Origin) -> Result<()> {
        let Some((slot, from)) = self.values.get_mut(key) else {
            let near = nearest(key, self.values.keys());
            return Err(Error::config(format!("set {key}"))
                .expected("a known key")
                .got(format!("{key:?}, from {origin}"))
                .hint(near.map_or_else(
                    || "`ecr config show` lists every key".to_string(),
                    |k| format!("did you mean {k}? (`ecr config show` lists every key)"),
                )));
        };
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        let want = key.split('.').try_fold(&defaults, |v, k| v.get(k)).unwrap_or(&Json::Null);
        let value = convert(want, value).map_err(|got| {
            Error::config(format!("set {key}")).expected(kind(want)).got(format!("{got}, from {origin}"))
        })?;
        (*slot, *from) = (value, origin);
        Ok(())
    }
    /// The finished configuration, ranges checked.
    pub fn config(&self) -> Result<Config> {
        let mut root = serde_json::Map::new();
        for (key, (value, _)) in &self.values {
            place(&mut root, key, value.clone());
        }
        let config: Config = serde_json::from_value(Json::Object(root))
            .map_err(|e| Error::config("read the configuration").got(e.to_string()))?;
        self.check(&config)?;
        Ok(config)
    }
    fn check(&self, c: &Config) -> Result<()> {
        let fail = |key: &str, expected: &str| {
            let (value, origin) = &self.values[key];
            Err(Error::config(format!("check {key}"))
                .expected(expected)
                .got(format!("{value}, from {origin}")))
        };
        let positive = [
            ("sft.learning_rate", c.sft.learning_rate),
            ("emotion.learning_rate", c.emotion.learning_rate),
            ("critic.learning_rate", c.critic.learning_rate),
            ("empathy.learning_rate", c.empathy.learning_rate),
            ("value.learning_rate", c.value.learning_rate),
            ("ppo.temperature", c.ppo.temperature),
            ("ppo.max_grad_norm", c.ppo.max_grad_norm),
            ("ppo.clip_range", c.ppo.clip_range),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
            return fail(key, "a number above 0");
        }
        let counts = [
            ("ppo.batch_size", c.ppo.batch_size),
            ("ppo.minibatch_size", c.ppo.minibatch_size),
            ("eval.prompts", c.eval.prompts),
            ("eval.max_new", c.eval.max_new),
            ("eval.batch", c.eval.batch),
            ("sft.batch_size", c.sft.batch_size),
            ("critic.batch_size", c.critic.batch_size),
            ("empathy.batch_size", c.empathy.batch_size),
            ("policy.num_layers", c.policy.num_layers),
            ("value.rollouts", c.value.rollouts),
            ("eval.resamples", c.eval.resamples),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, v)| *v == 0) {
            return fail(key, "an integer of at least 1");
        }
        if !["f32", "bf16"].contains(&c.run.precision.as_str()) {
            return fail("run.precision", "\"f32\" or \"bf16\"");
        }
        if !["auto", "portable", "avx2", "avx512"].contains(&c.run.tier.as_str()) {
            return fail("run.tier", "\"auto\", \"portable\", \"avx2\" or \"avx512\"");
        }
        if !["demo", "redial"].contains(&c.data.source.as_str()) {
            return fail("data.source", "\"demo\" or \"redial\"");
        }
        for (key, value) in [
            ("critic.rank_weight", c.critic.rank_weight),
            ("critic.form_weight", c.critic.form_weight),
            ("critic.huber", c.critic.huber),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return fail(key, "a number of at least 0");
            }
        }
        if !(0.0..=1.0).contains(&c.critic.rated_share) {
            return fail("critic.rated_share", "a number from 0 to 1");
        }
        if !["none", "returns", "critic_and_returns"].contains(&c.value.warm_start.as_str()) {
            return fail("value.warm_start", "\"none\", \"returns\" or \"critic_and_returns\"");
        }
        if !["test", "valid"].contains(&c.eval.split.as_str()) {
            return fail("eval.split", "\"test\" or \"valid\"");
        }
        if !["match", "at_least", "max"].contains(&c.reward.epitome_target.as_str()) {
            return fail("reward.epitome_target", "\"match\", \"at_least\" or \"max\"");
        }
        if !(0.0..=1.0).contains(&c.empathy.balance) {
            return fail("empathy.balance", "a number from 0 to 1");
        }
        if !["none", "inverse"].contains(&c.emotion.class_weights.as_str()) {
            return fail("emotion.class_weights", "\"none\" or \"inverse\"");
        }
        if !(c.emotion.focal_gamma >= 0.0 && c.emotion.focal_gamma.is_finite()) {
            return fail("emotion.focal_gamma", "a number of at least 0");
        }
        let split = |s: &str| ["train", "valid", "test"].contains(&s.trim());
        if !["auto", "all", "off"].contains(&c.label.splits.as_str()) && !c.label.splits.split(',').all(split)
        {
            return fail(
                "label.splits",
                "\"auto\", \"all\", \"off\", or some of train, valid, test with commas",
            );
        }
        if c.sft.candidates != "auto" && c.sft.candidates.parse::<usize>().is_err() {
            return fail("sft.candidates", "\"auto\" or a number in quotes");
        }
        if c.ppo.clip_range >= 1.0 {
            return fail("ppo.clip_range", "a number between 0 and 1");
        }
        Ok(())
    }
}

fn flatten(prefix: &str, value: &Json, f: &mut impl FnMut(String, &Json)) {
    match value {
        Json::Object(map) => {
            for (k, v) in map {
                flatten(&if prefix.is_empty() { k.clone() } else { format!("{prefix}.{k}") }, v, f);
            }
        }
        _ => f(prefix.to_string(), value),
    }
}

/// Puts a value at its place: a key is `section.name`, or `section.table.name`.
fn place(map: &mut serde_json::Map<String, Json>, key: &str, value: Json) {
    match key.split_once('.') {
        None => {
            map.insert(key.to_string(), value);
        }
        Some((section, rest)) => {
            let inner = map.entry(section).or_insert_with(|| Json::Object(Default::default()));
            if let Json::Object(inner) = inner {
                place(inner, rest, value);
            }
        }
    }
}

fn parse_value(text: &str) -> Json {
    let as_toml = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    as_toml.and_then(|v| serde_json::to_value(v).ok()).unwrap_or_else(|| Json::String(text.to_string()))
}

fn kind(v: &Json) -> &'static str {
    match v {
        Json::Bool(_) => "true or false",
        Json::Number(n) if n.is_f64() => "a number",
        Json::Number(_) => "a whole number of at least 0",
        Json::String(_) => "a text in quotes",
        Json::Array(_) => "a list",
        _ => "a number",
    }
}

/// `value` as the kind of `want`, or what it is instead.
fn convert(want: &Json, value: Json) -> std::result::Result<Json, String> {
    let ok = match (want, &value) {
        (Json::Bool(_), Json::Bool(_))
        | (Json::String(_), Json::String(_))
        | (Json::Array(_), Json::Array(_)) => true,
        (Json::Number(w), Json::Number(v)) => w.is_f64() || v.is_u64(),
        (Json::Null, Json::Number(_)) => true,
        // `--set sft.candidates=4`: numbers are texts where a text is wanted.
        (Json::String(_), Json::Number(n)) => return Ok(Json::String(n.to_string())),
        _ => false,
    };
    if !ok {
        return Err(value.to_string());
    }
    Ok(match (want, &value) {
        (Json::Number(w), Json::Number(v)) if w.is_f64() => v.as_f64().into(),
        (Json::Null, Json::Number(v)) => v.as_f64().into(),
        _ => value,
    })
}

/// Line (from 1) on which a dotted key is set.
fn line_of(text: &str, key: &str) -> usize {
    let mut section = String::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            section = format!("{}.", name.trim());
        } else if let Some((name, _)) = line.split_once('=')
            && format!("{section}{}", name.trim()) == key
        {
            return i + 1;
        }
    }
    1
}

/// The known key with the smallest edit distance, if it is near; a right name in another section counts.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let last = |k: &str| k.rsplit('.').next().unwrap_or(k).to_string();
    known
        .map(|k| (distance(key, k).min(distance(&last(key), &last(k)) + 1), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_remember_where_they_came_from() {
        let mut l = Layers::new();
        l.toml("[ppo]\nlearning_rate = 1e-4\nsteps = 3\n", "a.toml", |n| Origin::File("a.toml".into(), n))
            .unwrap();
        l.set("ppo.steps=5").unwrap();
        l.flag("--rl_learning_rate", "ppo.learning_rate", "2e-5").unwrap();
        let c = l.config().unwrap();
        assert_eq!((c.ppo.learning_rate, c.ppo.steps), (2e-5, 5));
        assert_eq!(l.values()["ppo.steps"].1, Origin::Set);
        l.set("ppo.target_kl=0.1").unwrap();
        assert_eq!(l.config().unwrap().ppo.target_kl, Some(0.1));
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_line_and_neighbour() {
        let mut l = Layers::new();
        let e = l
            .toml("\n[ppo]\nlerning_rate = 1\n", "a.toml", |n| Origin::File("a.toml".into(), n))
            .unwrap_err();
        assert!(e.to_string().contains("a.toml:3"), "{e}");
        assert!(e.to_string().contains("did you mean ppo.learning_rate?"), "{e}");
        let e = l.toml("[ppo]\nsteps = \"x\"\n", "a.toml", |n| Origin::File("a.toml".into(), n)).unwrap_err();
        assert!(e.to_string().contains("a.toml:2") && e.to_string().contains("whole number"), "{e}");
        let e = l.toml("[ppo\n", "a.toml", |n| Origin::File("a.toml".into(), n)).unwrap_err();
        assert!(e.to_string().contains("a.toml:1"), "{e}");
        l.set("run.precision=fp8").unwrap();
        assert!(l.config().unwrap_err().to_string().contains("\"f32\" or \"bf16\""));
    }
}
