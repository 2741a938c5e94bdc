//! The stage graph: stages run in order; one whose configuration, inputs and outputs are unchanged is skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use ecr_core::io::{self, DirLock};
use ecr_core::{Error, Result, Stream};
use ecr_kernels::{Engine, Precision, Tier};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::checkpoint::Checkpoints;
use crate::config::{Config, Layers, PATHS};
use crate::interrupt::Interrupt;
use crate::log::{JsonLog, Progress, Voice};
use crate::rundir::RunDir;
use crate::tracking::Tracking;

/// The settings that a run directory was begun with, for later commands on it.
pub const CONFIG_FILE: &str = ".state/config.json";

/// What a stage works with.
pub struct Context {
    /// Settings.
    pub config: Config,
    /// Where results go.
    pub dir: RunDir,
    /// Kernels.
    pub engine: Engine,
    /// Messages.
    pub voice: Voice,
    /// The run's random stream.
    pub stream: Stream,
    /// Numbers of this stage for run.json.
    pub summary: serde_json::Map<String, Json>,
    interrupt: Interrupt,
    tracking: Tracking,
}

impl Context {
    /// The context of commands that only look at a run directory: nothing is locked or written.
    ///
    /// # Errors
    /// Config: settings out of range, or kernels that this CPU lacks.
    pub fn open(layers: &Layers, dir: RunDir, voice: Voice) -> Result<Self> {
        let config = layers.config()?;
        Ok(Self {
            engine: engine(&config)?,
            stream: Stream::new(config.run.seed),
            config,
            dir,
            voice,
            interrupt: Interrupt::default(),
            tracking: Tracking::default(),
            summary: serde_json::Map::new(),
        })
    }
    /// Checkpoints of a stage.
    pub fn checkpoints(&self, stage: &str) -> Checkpoints {
        Checkpoints::new(self.dir.checkpoints(stage))
    }
    /// A log of this run, cut to `len`.
    pub fn log(&self, name: &str, len: u64) -> Result<JsonLog> {
        JsonLog::tracked(&self.dir.log(name), len, &self.tracking)
    }
    /// Progress of a loop that writes a checkpoint and ends with [`Context::stopped`] when [`Context::interrupted`].
    pub fn progress(&self, what: &str, total: u64, done: u64) -> Progress {
        Progress::new(self.voice, self.interrupt.steps(), what, total, done)
    }
    /// Whether the user asked the run to stop: finish this step, write a checkpoint, return [`Context::stopped`].
    pub fn interrupted(&self) -> bool {
        self.interrupt.asked()
    }
    /// What ends an interrupted loop after its checkpoint: `done` of `total` steps of `what` are in it.
    pub fn stopped(&self, what: &str, done: u64, total: u64) -> Error {
        self.interrupt
            .error(&format!("stopped in {what} after step {done} of {total}"))
            .files(format!("a checkpoint after step {done} was written"))
    }
    /// Puts a number into run.json.
    pub fn note(&mut self, name: &str, value: impl Into<Json>) {
        self.summary.insert(name.to_string(), value.into());
    }
}

/// One step of the pipeline.
pub trait Stage {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Whether it runs only when `run.also` or `--only` names it.
    fn optional(&self) -> bool {
        false
    }
    /// The part of the configuration that its results depend on.
    fn settings(&self, config: &Config) -> Json;
    /// Files and directories it reads.
    fn inputs(&self, config: &Config, dir: &RunDir) -> Vec<PathBuf>;
    /// Files and directories it writes.
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf>;
    /// Does the work, continuing from a checkpoint where there is one.
    fn run(&self, cx: &mut Context) -> Result<()>;
}

/// Which stages to run, and how.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// First stage.
    pub from: Option<String>,
    /// Last stage.
    pub to: Option<String>,
    /// These alone.
    pub only: Vec<String>,
    /// Run even what is unchanged, from the beginning.
    pub force: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Continue on other kernels than run.json names.
    pub allow_other_kernels: bool,
    /// How the user can stop the run.
    pub interrupt: Interrupt,
    /// Other run directories: a stage that one of them finished with the same settings and inputs is taken over.
    pub donors: Vec<PathBuf>,
}

/// Proof of a finished stage.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Done {
    settings: String,
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
    summary: Json,
}

/// The kernels that the configuration asks for.
///
/// # Errors
/// [`ecr_core::Kind::Config`] for a tier that this CPU lacks.
pub fn engine(config: &Config) -> Result<Engine> {
    let precision = if config.run.precision == "f32" { Precision::F32 } else { Precision::Bf16 };
    let tier = match config.run.tier.as_str() {
        "portable" => Tier::Portable,
        "avx2" => Tier::Avx2,
        "avx512" => Tier::Avx512,
        _ => return Ok(Engine::detect(precision)),
    };
    Engine::with_tier(tier, precision).ok_or_else(|| {
        Error::config("choose the kernels")
            .expected("a tier that this CPU has")
            .got(format!("run.tier = {:?}", config.run.tier))
            .hint("run.tier = \"auto\" takes the best")
    })
}

/// A line of `/proc/cpuinfo`.
fn cpuinfo(name: &str) -> String {
    let text = io::read_to_string(std::path::Path::new("/proc/cpuinfo")).unwrap_or_default();
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|n| n.trim() == name));
    line.and_then(|l| l.split_once(':')).map_or_else(|| "unknown".into(), |(_, v)| v.trim().to_string())
}

/// Kind of the CPU: bits are equal on one kind only. Vendor, family and model; no clock rate.
pub fn cpu_kind() -> String {
    format!("{} family {} model {}", cpuinfo("vendor_id"), cpuinfo("cpu family"), cpuinfo("model"))
}

/// Runs stages in a directory.
pub fn run(stages: &[Box<dyn Stage>], layers: &Layers, dir: RunDir, plan: &Plan, voice: Voice) -> Result<()> {
    let config = layers.config()?;
    let names: Vec<&str> = stages.iter().map(|s| s.name()).collect();
    let index = |name: &String| {
        names
            .iter()
            .position(|n| n == name)
            .ok_or_else(|| Error::config(format!("find the stage {name}")).expected(names.join(", ")))
    };
    let from = plan.from.as_ref().map_or(Ok(0), index)?;
    let to = plan.to.as_ref().map_or(Ok(stages.len() - 1), index)?;
    for name in &plan.only {
        index(name)?;
    }
    for name in &config.run.also {
        if !stages.iter().any(|s| s.optional() && s.name() == name) {
            let known: Vec<&str> = stages.iter().filter(|s| s.optional()).map(|s| s.name()).collect();
            return Err(Error::config("read run.also").expected(known.join(", ")).got(name.clone()));
        }
    }
    if from > to {
        return Err(Error::config("choose the stages")
            .expected(format!("--from before --to, in the order {}", names.join(", ")))
            .got(format!("--from {} --to {}", names[from], names[to])));
    }
    let also = config.run.also.clone();
    let chosen = |i: usize| {
        let wanted = !stages[i].optional() || also.iter().any(|n| n == names[i]);
        if plan.only.is_empty() {
            i >= from && i <= to && wanted
        } else {
            plan.only.iter().any(|n| n == names[i])
        }
    };
    let seeds = stage_seeds(&config, &names)?;
    let engine = engine(&config)?;
    if config.run.threads > 0 {
        // Fails only if the pool exists already (several runs in one process): results do not depend on it.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(config.run.threads).build_global();
    }
    let _lock = if plan.dry_run { None } else { Some(DirLock::acquire(dir.root())?) };
    check_kernels(&dir, engine, plan, voice)?;
    let mut cx = Context {
        stream: Stream::new(config.run.seed),
        config,
        dir,
        engine,
        voice,
        summary: serde_json::Map::new(),
        interrupt: plan.interrupt.clone(),
        tracking: Tracking::default(),
    };
    if !plan.dry_run {
        write_run_json(&cx, layers, stages, cx.config.run.seed)?;
        let values: BTreeMap<&String, &Json> =
            layers.values().iter().filter(|(k, _)| *k != "run.threads").map(|(k, (v, _))| (k, v)).collect();
        let text = serde_json::to_vec_pretty(&values)
            .map_err(|e| Error::internal(format!("write the settings: {e}")))?;
        io::atomic_write(&cx.dir.join(CONFIG_FILE), &text)?;
        cx.tracking = Tracking::begin(&cx.config.track, layers, &cx.dir, voice);
    }
    let picked: Vec<usize> = (0..stages.len()).filter(|i| chosen(*i)).collect();
    let result = each(&mut cx, &picked, &seeds, stages, layers, plan);
    cx.tracking.finish(&result);
    result
}

/// Runs the picked stages, or skips what is unchanged.
fn each(
    cx: &mut Context,
    picked: &[usize],
    seeds: &[u64],
    stages: &[Box<dyn Stage>],
    layers: &Layers,
    plan: &Plan,
) -> Result<()> {
    let whole = cx.config.clone();
    let mut stale = false;
    for (i, stage) in picked.iter().map(|&i| (i, &stages[i])) {
        let name = stage.name();
        let proof = cx.dir.join(".state").join(format!("{name}.json"));
        // A stage knows one seed: its own.
        cx.config = whole.clone();
        cx.config.run.seed = seeds[i];
        cx.stream = Stream::new(seeds[i]);
        let settings = io::blake3(stage.settings(&cx.config).to_string().as_bytes());
        let inputs = hashes(&cx.dir, &stage.inputs(&cx.config, &cx.dir))?;
        let old: Option<Done> = io::read(&proof).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let unchanged = match &old {
            Some(d) => {
                d.settings == settings
                    && d.inputs == inputs
                    && d.outputs == hashes(&cx.dir, &stage.outputs(&cx.dir))?
            }
            None => false,
        };
        if unchanged && !plan.force && !stale {
            // A process that ended between proof and clearing left them.
            if !plan.dry_run {
                cx.checkpoints(name).clear()?;
                cx.tracking.stage_skipped(name, &cx.dir, old.as_ref().map_or(&Json::Null, |d| &d.summary));
            }
            cx.voice.say(&format!("{name}: unchanged, skipped"));
            continue;
        }
        if plan.dry_run {
            // What comes after it may see other inputs.
            stale = true;
            cx.voice.say(&format!("{name}: would run"));
            continue;
        }
        if cx.interrupted() {
            return Err(plan
                .interrupt
                .error(&format!("stopped before {name}"))
                .files("every stage before it is complete"));
        }
        if !plan.force && adopt(cx, stage.as_ref(), &settings, &inputs, &plan.donors)? {
            write_run_json(cx, layers, stages, whole.run.seed)?;
            continue;
        }
        // Checkpoints belong to one configuration and one set of inputs.
        let key = io::blake3(format!("{settings}{inputs:?}").as_bytes());
        let marker = cx.dir.join(".state").join(format!("{name}.begun"));
        if plan.force || io::read_to_string(&marker).ok().as_deref() != Some(key.as_str()) {
            cx.checkpoints(name).clear()?;
            io::atomic_write(&marker, key.as_bytes())?;
        }
        cx.voice.say(&format!("{name}: begins"));
        cx.summary = serde_json::Map::new();
        let counted = ecr_rewards::cached::counts();
        let started = Instant::now();
        stage.run(cx)?;
        let seconds = started.elapsed().as_secs_f64();
        let outputs = hashes(&cx.dir, &stage.outputs(&cx.dir))?;
        let done = Done { settings, inputs, outputs, summary: Json::Object(cx.summary.clone()) };
        let text =
            serde_json::to_vec_pretty(&done).map_err(|e| Error::internal(format!("write {name}: {e}")))?;
        io::atomic_write(&proof, &text)?;
        cx.checkpoints(name).clear()?;
        write_run_json(cx, layers, stages, whole.run.seed)?;
        cx.tracking.stage_done(name, &cx.summary);
        let path = cx.dir.log("timing.jsonl");
        let len = io::read(&path).map_or(0, |b| b.len() as u64);
        let mut record = json!({"stage": name, "seconds": seconds});
        let (hits, misses) = ecr_rewards::cached::counts();
        let (hits, misses) = (hits - counted.0, misses - counted.1);
        if hits + misses > 0 {
            record["reward_cache_hits"] = json!(hits);
            record["reward_cache_misses"] = json!(misses);
            record["reward_cache_hit_rate"] = json!(hits as f64 / (hits + misses) as f64);
        }
        JsonLog::open(&path, len)?.write(&record)?;
        cx.voice.say(&format!("{name}: done in {seconds:.1} s"));
    }
    Ok(())
}

/// The seed of each stage: `run.train_seed`, if given, from `run.train_seed_from` up to the evaluation, else `run.seed`.
fn stage_seeds(config: &Config, names: &[&str]) -> Result<Vec<u64>> {
    let r = &config.run;
    let evaluation = names.iter().position(|n| *n == "eval").unwrap_or(names.len());
    let from = match names.iter().position(|n| *n == r.train_seed_from) {
        Some(i) if i > 0 && i < evaluation => i,
        _ if r.train_seed == 0 => names.len(),
        _ => {
            return Err(Error::config("read run.train_seed_from")
                .expected(format!("one of {}", names[1.min(evaluation)..evaluation].join(", ")))
                .got(format!("{:?}", r.train_seed_from)));
        }
    };
    let varies = |i: usize| r.train_seed != 0 && i >= from && i < evaluation;
    Ok((0..names.len()).map(|i| if varies(i) { r.train_seed } else { r.seed }).collect())
}

/// Takes a stage over from a run that finished it with the same settings, inputs and kernels. Its outputs are linked
/// where the disk can (they are only ever replaced, never written into), its logs copied.
fn adopt(
    cx: &Context,
    stage: &dyn Stage,
    settings: &str,
    inputs: &BTreeMap<String, String>,
    donors: &[PathBuf],
) -> Result<bool> {
    let name = stage.name();
    for donor in donors.iter().filter(|d| d.as_path() != cx.dir.root()) {
        let donor = RunDir::new(donor);
        let proof = donor.join(".state").join(format!("{name}.json"));
        let Some(done) = io::read(&proof).ok().and_then(|b| serde_json::from_slice::<Done>(&b).ok()) else {
            continue;
        };
        if done.settings != settings || done.inputs != *inputs || last_kernels(&donor) != kernels(cx.engine) {
            continue;
        }
        if done.outputs != hashes(&donor, &stage.outputs(&donor))? {
            continue;
        }
        for path in stage.outputs(&cx.dir).into_iter().filter(|p| p.is_dir()) {
            io::remove_dir_all(&path)?;
        }
        for file in done.outputs.iter().filter(|(_, hash)| *hash != "absent").map(|(file, _)| file) {
            io::link_or_copy(&donor.join(file), &cx.dir.join(file))?;
        }
        for log in io::read_dir_sorted(&donor.join("logs"))? {
            let file = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '_'])) {
                io::atomic_write(&cx.dir.log(&file), &io::read(&log)?)?;
            }
        }
        // What the donor made beside what this run would make is no longer the same result.
        if done.outputs != hashes(&cx.dir, &stage.outputs(&cx.dir))? {
            continue;
        }
        let text =
            serde_json::to_vec_pretty(&done).map_err(|e| Error::internal(format!("write {name}: {e}")))?;
        io::atomic_write(&cx.dir.join(".state").join(format!("{name}.json")), &text)?;
        cx.checkpoints(name).clear()?;
        cx.tracking.stage_skipped(name, &cx.dir, &done.summary);
        cx.voice.say(&format!("{name}: the same as in {}, taken over", donor.root().display()));
        return Ok(true);
    }
    Ok(false)
}

/// The kernels that a run was last continued on; empty if it never began.
fn last_kernels(dir: &RunDir) -> String {
    let run: Option<Json> =
        io::read(&dir.join("run.json")).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let last = run.and_then(|r| Some(r["kernels"].as_array()?.last()?.as_str()?.to_owned()));
    last.unwrap_or_default()
}

/// BLAKE3 of every file of the given paths, by path relative to the run directory.
fn hashes(dir: &RunDir, paths: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for p in paths {
        for file in io::files_below(p)? {
            out.insert(dir.relative(&file), io::blake3_file(&file)?);
        }
        if !p.exists() {
            out.insert(dir.relative(p), "absent".into());
        }
    }
    Ok(out)
}

/// Kernels and CPU, as run.json names them.
fn kernels(engine: Engine) -> String {
    format!("{} on {}", engine.name(), cpu_kind())
}

/// A run that has begun continues on the kernels and the kind of CPU that it began with.
fn check_kernels(dir: &RunDir, engine: Engine, plan: &Plan, voice: Voice) -> Result<()> {
    let path = dir.join("run.json");
    if !path.exists() || plan.force {
        return Ok(());
    }
    let old: Json = serde_json::from_slice(&io::read(&path)?).map_err(|e| {
        Error::data(format!("read {}", path.display()))
            .expected("what the run wrote")
            .got(e.to_string())
            .hint("give --force to run everything again, or another --out")
    })?;
    // The last of the kernels that the run was made with.
    let was =
        old["kernels"].as_array().and_then(|k| k.last()).and_then(Json::as_str).unwrap_or("?").to_string();
    let now = kernels(engine);
    if was == now {
        return Ok(());
    }
    if plan.allow_other_kernels {
        voice.warn(&format!("continuing with {now} what was begun with {was}: bits will differ"));
        return Ok(());
    }
    Err(Error::config(format!("continue the run in {}", dir.root().display()))
        .expected(format!("the kernels that it began with, {was}"))
        .got(now)
        .files("nothing was changed")
        .hint("give --allow-other-kernels, or begin afresh with another --out"))
}

/// run.json: what was run, on what, and each stage's numbers. No time, no path.
fn write_run_json(cx: &Context, layers: &Layers, stages: &[Box<dyn Stage>], seed: u64) -> Result<()> {
    let mut results = serde_json::Map::new();
    for s in stages {
        let proof = cx.dir.join(".state").join(format!("{}.json", s.name()));
        if let Some(done) = io::read(&proof).ok().and_then(|b| serde_json::from_slice::<Done>(&b).ok()) {
            results.insert(
                s.name().into(),
                json!({"summary": done.summary, "inputs": done.inputs, "outputs": done.outputs}),
            );
        }
    }
    let config: BTreeMap<&String, &Json> = layers
        .values()
        .iter()
        .filter(|(k, _)| {
            !PATHS.contains(&k.as_str())
                && !["run.threads", "reward.cache"].contains(&k.as_str())
                && !k.starts_with("track.")
        })
        .map(|(k, (v, _))| (k, v))
        .collect();
    // All kernels that had a part in the results, in order; one, unless the user allowed others.
    let path = cx.dir.join("run.json");
    let old: Option<Json> = io::read(&path).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let mut used: Vec<String> =
        old.and_then(|o| serde_json::from_value(o["kernels"].clone()).ok()).unwrap_or_default();
    if used.last() != Some(&kernels(cx.engine)) {
        used.push(kernels(cx.engine));
    }
    let text = serde_json::to_vec_pretty(&json!({
        "version": 1,
        "ecr": env!("CARGO_PKG_VERSION"),
        "cpu": cpuinfo("model name"),
        "kernels": used,
        "seed": seed,
        "config": config,
        "stages": results,
    }))
    .map_err(|e| Error::internal(format!("write run.json: {e}")))?;
    io::atomic_write(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_training_seed_changes_training_alone() {
        let names = ["prepare", "sft", "ppo", "rloo", "eval", "compare"];
        let mut c = Config::default();
        assert_eq!(stage_seeds(&c, &names).unwrap(), [42; 6]);
        c.run.train_seed = 7;
        assert_eq!(stage_seeds(&c, &names).unwrap(), [42, 42, 7, 7, 42, 42]);
        c.run.train_seed_from = "sft".into();
        assert_eq!(stage_seeds(&c, &names).unwrap(), [42, 7, 7, 7, 42, 42]);
        for bad in ["prepare", "eval", "pppo"] {
            c.run.train_seed_from = bad.into();
            let e = stage_seeds(&c, &names).unwrap_err().to_string();
            assert!(e.contains("sft, ppo, rloo") && e.contains(bad), "{e}");
        }
    }
}
