//! `ecr score`: replies rated by a language model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ecr_core::{Error, Kind, Result, Stream, io};
use ecr_data::catalogue::Catalogue;
use ecr_data::records::read_jsonl;
use ecr_judge::agree::{agree, beside};
use ecr_judge::backend::address::Address;
use ecr_judge::backend::embedded::EmbeddedJudge;
use ecr_judge::backend::http::{Constraint, HttpJudge, HttpOptions};
use ecr_judge::backend::{Judge, secret::Secret};
use ecr_judge::budget::{Budget, Prices};
use ecr_judge::input::{self, Task};
use ecr_judge::journal::journal_path;
use ecr_judge::output::{Record, Summary, critic_rows, records, write_lines};
use ecr_judge::selftest::{self, SelfTest};
use ecr_judge::session::{self, Options, Prepared, Report, Stop};
use ecr_kernels::{Engine, Precision};
use ecr_models::load::resolve_model;
use ecr_run::interrupt::Interrupt;
use ecr_run::log::Voice;
use ecr_run::scorers::model_dirs;
use serde_json::{Value as Json, json};

use crate::commands::{again, print};

const AFTER: &str = "\
Exit codes: 0 done, or the budget is spent (the same command goes on); 1 the self-test failed, the judge failed its \
canaries, or more than --max-failed of the items failed; 2 usage; 3 input; 4 the server refuses or is down (what was \
scored is kept); 5 disk; 130 interrupted. The key is read from the environment variable ECR_JUDGE_KEY, or as \
--key-env or --key-file says; there is no flag for the key itself.";

/// How the server is asked to keep to JSON.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// A schema; falls back by itself where the server refuses it
    Schema,
    /// Any JSON object
    Object,
    /// The prompt alone
    None,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Score {
    /// A run directory (its evaluation replies), a replies.json, or JSONL lines of {id, context, response}
    pub(crate) input: Option<PathBuf>,
    /// With a run directory: human replies of this part of its data (train, valid, test) instead
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<String>,
    /// With critic rows: only those that this source has labelled, e.g. uss (the scores are set beside the labels)
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// File of scores [default: scores.jsonl, or scores.NAME.jsonl with --name, beside the input]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Films that count as recommendations [default: the catalogue of the run directory around the input]
    #[arg(long, value_name = "FILE")]
    pub(crate) catalogue: Option<PathBuf>,
    /// Address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Model: as the server knows it, or with --embedded a directory, GGUF file or name
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Run the model on our own engine, without any server
    #[arg(long, conflicts_with = "url")]
    pub(crate) embedded: bool,
    /// Name of the judge in scores and labels [default: the model]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Environment variable that holds the key
    #[arg(long, value_name = "VARIABLE", default_value = "ECR_JUDGE_KEY")]
    pub(crate) key_env: String,
    /// File of mode 0600 that holds the key
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// How the server is asked to keep to JSON
    #[arg(long, value_enum, default_value_t = Format::Schema)]
    pub(crate) format: Format,
    /// Calls in flight at once
    #[arg(long, default_value_t = 4)]
    pub(crate) concurrency: usize,
    /// Items that an embedded judge decodes together
    #[arg(long, default_value_t = 8)]
    pub(crate) batch: usize,
    /// Seconds of one call at most
    #[arg(long, default_value_t = 60.0)]
    pub(crate) timeout: f64,
    /// Calls for one item at most
    #[arg(long, default_value_t = 5)]
    pub(crate) max_tries: u32,
    /// Repeated calls in all, as a share of the items
    #[arg(long, default_value_t = 0.55)]
    pub(crate) retry_share: f64,
    /// Budget: calls, those of earlier runs of the same output included
    #[arg(long)]
    pub(crate) max_requests: Option<u64>,
    /// Budget: seconds of this run
    #[arg(long)]
    pub(crate) max_seconds: Option<f64>,
    /// Budget: money, by --price-in and --price-out
    #[arg(long, requires = "price_in")]
    pub(crate) max_cost: Option<f64>,
    /// Price of a million prompt tokens
    #[arg(long)]
    pub(crate) price_in: Option<f64>,
    /// Price of a million answer tokens [default: as --price-in]
    #[arg(long)]
    pub(crate) price_out: Option<f64>,
    /// Share of failed items over which the command fails
    #[arg(long, default_value_t = 0.05)]
    pub(crate) max_failed: f64,
    /// Only the first N items, of both kinds; up to 10 it is a test (0.0 without a recommendation, above 0.0 with one)
    #[arg(long, default_value_t = 0)]
    pub(crate) limit: usize,
    /// Test the judge on three built-in items
    #[arg(long, conflicts_with = "input")]
    pub(crate) selftest: bool,
    /// Ask again about items that failed
    #[arg(long)]
    pub(crate) retry_failed: bool,
    /// Send no probes with known answers
    #[arg(long)]
    pub(crate) no_canaries: bool,
    /// Go on where the judge fails its canaries (what was scored meanwhile still counts as failed)
    #[arg(long)]
    pub(crate) ignore_drift: bool,
    /// Say what it would take, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Seconds a call that --dry-run assumes
    #[arg(long, default_value_t = 2.0)]
    pub(crate) assume_seconds: f64,
    /// Also write rows for the critic, every label with source scorer:NAME
    #[arg(long, value_name = "FILE")]
    pub(crate) critic_rows: Option<PathBuf>,
    /// Compare files of scores of several judges instead (agreement; their mean goes to --out)
    #[arg(long, num_args = 2.., value_name = "FILE", conflicts_with_all = ["input", "selftest", "dry_run"])]
    pub(crate) agree: Vec<PathBuf>,
    /// Machine-readable summary on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Say only warnings and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

fn usage(expected: &str, got: &str) -> Error {
    Error::config("score").expected(expected).got(got).files("nothing was sent")
}

impl Score {
    fn key(&self) -> Result<Secret> {
        match &self.key_file {
            Some(path) => Secret::from_file(path),
            None => Secret::new(&std::env::var(&self.key_env).unwrap_or_default()),
        }
    }

    fn model(&self) -> Result<&str> {
        self.model.as_deref().ok_or_else(|| usage("--model NAME", "no model"))
    }

    /// Name of the judge in scores and labels.
    fn judge_name(&self) -> Result<String> {
        Ok(match &self.name {
            Some(n) => n.clone(),
            None => {
                Path::new(self.model()?).file_name().map_or_else(String::new, |n| n.to_string_lossy().into())
            }
        })
    }

    fn judge(&self) -> Result<Box<dyn Judge>> {
        let model = self.model()?;
        if self.embedded {
            let path = resolve_model(model, &model_dirs())?;
            let engine = Engine::detect(Precision::F32);
            return Ok(Box::new(EmbeddedJudge::load(&path, engine, self.batch)?));
        }
        let url = self.url.as_deref();
        let url = url.ok_or_else(|| usage("--url ADDRESS of a server, or --embedded", "neither"))?;
        let mut o = HttpOptions::new(Address::parse(url)?, model);
        o.key = self.key()?;
        if !(0.01..=3600.0).contains(&self.timeout) {
            return Err(usage("--timeout from 0.01 to 3600 seconds", &self.timeout.to_string()));
        }
        o.timeout = Duration::from_secs_f64(self.timeout);
        o.constraint = match self.format {
            Format::Schema => Constraint::Schema,
            Format::Object => Constraint::Object,
            Format::None => Constraint::None,
        };
        Ok(Box::new(HttpJudge::new(o)))
    }

    fn options(&self) -> Result<Options> {
        if self.concurrency == 0 || self.concurrency > 64 || self.max_tries == 0 || self.batch == 0 {
            return Err(usage(
                "--concurrency from 1 to 64, --batch and --max-tries of at least 1",
                "another number",
            ));
        }
        if !(0.0..=10.0).contains(&self.retry_share) || !(0.0..=1.0).contains(&self.max_failed) {
            return Err(usage("--retry-share from 0 to 10, --max-failed from 0 to 1", "another number"));
        }
        let input = self.price_in.unwrap_or(0.0);
        Ok(Options {
            // An embedded judge computes on all cores for one group.
            concurrency: if self.embedded { 1 } else { self.concurrency },
            max_tries: self.max_tries,
            retry_share: self.retry_share,
            budget: Budget { requests: self.max_requests, seconds: self.max_seconds, cost: self.max_cost },
            prices: Prices { input, output: self.price_out.unwrap_or(input) },
            canaries: !self.no_canaries && !self.selftest && !(1..=10).contains(&self.limit),
            stop_on_drift: !self.ignore_drift,
            retry_failed: self.retry_failed,
            ..Options::default()
        })
    }

    /// Inputs with their outputs.
    fn tasks(&self) -> Result<Vec<Task>> {
        if self.selftest {
            return Ok(vec![Task {
                items: selftest::items(),
                catalogue: None,
                out: self.out.clone(),
                labels: input::Labels::new(),
                test_data: false,
            }]);
        }
        let path = self.input.as_deref();
        let path =
            path.ok_or_else(|| usage("a run directory or file to score, --selftest or --agree", "nothing"))?;
        let name = self.name.as_ref().map_or_else(|| "scores.jsonl".into(), |n| format!("scores.{n}.jsonl"));
        let mut tasks = input::tasks(path, self.split.as_deref(), self.source.as_deref(), &name)?;
        if let Some(out) = &self.out {
            if tasks.len() > 1 {
                return Err(usage(
                    "one input file with --out",
                    &format!("{} in {}", tasks.len(), path.display()),
                ));
            }
            tasks.iter_mut().for_each(|t| t.out = Some(out.clone()));
        }
        Ok(tasks)
    }
}

/// Carries out the command.
pub(crate) fn execute(s: &Score) -> Result<()> {
    if !s.agree.is_empty() {
        return compare(s);
    }
    let options = s.options()?;
    let name = s.judge_name()?;
    let tasks = s.tasks()?;
    if s.critic_rows.is_some() && tasks.iter().any(|t| t.test_data) {
        return Err(usage("replies to training conversations for --critic-rows", "replies of an evaluation")
            .hint("training reads train: give the run directory with --split train, or a file of your own"));
    }
    let judge = s.judge()?;
    let voice = Voice { quiet: s.quiet };
    let _signals = Interrupt::on_signals(again(std::env::args()))?;
    let (mut lines, mut failure) = (Vec::new(), None);
    for task in tasks {
        let (line, failed) = one(s, task, judge.as_ref(), &name, &options, voice)?;
        lines.push(line);
        failure = failure.or(failed);
        if failure.is_some() {
            break;
        }
    }
    if s.json {
        print(&json!({ "judge": name, "files": lines }).to_string());
    } else {
        let text: Vec<String> = lines.iter().map(plain).collect();
        print(&text.join("\n\n"));
    }
    failure.map_or(Ok(()), Err)
}

/// Scores one input: its summary, and the failure to end with.
fn one(
    s: &Score,
    task: Task,
    judge: &dyn Judge,
    name: &str,
    options: &Options,
    voice: Voice,
) -> Result<(Json, Option<Error>)> {
    let catalogue = match s.catalogue.as_ref().or(task.catalogue.as_ref()) {
        Some(path) => Catalogue::read(path)?,
        None if s.selftest => ecr_data::demo::films::catalogue(),
        None => {
            return Err(usage(
                "--catalogue FILE: the films that count as recommendations",
                "a file outside a run",
            )
            .hint("data/processed/catalogue.jsonl of any run directory is one"));
        }
    };
    let items = input::few(task.items, s.limit, &catalogue);
    let items = session::prepare(items, &catalogue, &judge.identity())?;
    let scratch = std::env::temp_dir().join(format!("ecr-selftest-{}", std::process::id()));
    let out = task.out.unwrap_or_else(|| scratch.join("scores.jsonl"));
    let journal = journal_path(&out);
    if s.dry_run {
        let e = session::estimate(&items, &journal, options, s.assume_seconds)?;
        let mut line = json!(e);
        line["out"] = out.display().to_string().into();
        return Ok((line, None));
    }
    let progress = |f: &ecr_judge::journal::Folded| {
        if f.ends.len().is_multiple_of(50) {
            voice.say(&format!("score: {} of {}, {} calls", f.ends.len(), items.len(), f.requests));
        }
    };
    let report = session::score(&items, judge, &journal, options, &progress)?;
    let records = records(&items, &report.folded, name);
    write_lines(&out, &records)?;
    if let Some(path) = &s.critic_rows {
        write_lines(path, &critic_rows(&items, &records, name))?;
    }
    let test = (s.selftest || (1..=10).contains(&s.limit)).then(|| SelfTest::of(&records));
    let mut line = json!(Summary::new(&records, &report, &options.prices));
    if s.selftest && s.out.is_none() {
        io::remove_dir_all(&scratch)?;
    } else {
        line["out"] = out.display().to_string().into();
    }
    line["selftest"] = json!(test);
    let lengths = items.iter().map(|p| (p.item.id.as_str(), p.item.response.chars().count())).collect();
    let beside = beside(&records, &task.labels, &lengths, Stream::new(1).child("beside"));
    if !beside.is_empty() {
        line["beside_labels"] = json!(beside);
    }
    Ok((line, ending(s, &items, &records, &report, test.as_ref())))
}

/// The error that a run ends with, if it does.
fn ending(
    s: &Score,
    items: &[Prepared],
    records: &[Record],
    report: &Report,
    test: Option<&SelfTest>,
) -> Option<Error> {
    let check = |what: &str, got: String| {
        Error::new(Kind::Check, what).got(got).files("what was scored is kept beside its journal")
    };
    match &report.stop {
        Some(Stop::Server(e)) => return Some(e.clone()),
        Some(Stop::Drift) => {
            return Some(
                check(
                    "check the judge by canaries",
                    "a good reply that scores no better than an empty one, twice".into(),
                )
                .expected(format!("at least {} between them", ecr_judge::canary::MARGIN))
                .hint("take another judge; --ignore-drift goes on asking, but what it scores meanwhile counts as failed"),
            );
        }
        _ => {}
    }
    if let Some(t) = test.filter(|t| !t.passed()) {
        return Some(check("test the judge", json!(t).to_string()).expected(
            "recommendation 0.0 where nothing is recommended, above 0.0 where something is, and no failure",
        ));
    }
    let failed = records.iter().filter(|r| r.status == ecr_judge::journal::Status::Failed).count();
    (failed as f64 > s.max_failed * items.len() as f64).then(|| {
        check("score", format!("{failed} of {} items failed", items.len()))
            .expected(format!("at most a share of {}", s.max_failed))
            .hint("the reasons are in the scores file; --retry-failed asks again")
    })
}

/// A summary for people.
fn plain(line: &Json) -> String {
    let rows = line.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
    rows.map(|(k, v)| format!("{k} = {}", v.as_str().map_or_else(|| v.to_string(), String::from)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `--agree`.
fn compare(s: &Score) -> Result<()> {
    let files = s.agree.iter().map(|p| read_jsonl::<Record>(p)).collect::<Result<Vec<_>>>()?;
    let (rows, mean) = agree(&files, Stream::new(1).child("agree"))?;
    if let Some(out) = &s.out {
        write_lines(out, &mean)?;
    }
    if s.json {
        print(&json!({ "agreement": rows, "records": mean.len() }).to_string());
        return Ok(());
    }
    let number = |x: Option<f64>| x.map_or_else(|| "-".into(), |x| format!("{x:.3}"));
    let lines: Vec<String> = rows
        .iter()
        .map(|r| {
            let interval = r.interval.map_or_else(String::new, |(l, h)| format!(" [{l:.3}, {h:.3}]"));
            format!(
                "{} / {}  {}: n {}, Spearman {}{interval}, kappa {}, mean difference {:+.3}",
                r.a,
                r.b,
                r.head,
                r.n,
                number(r.spearman),
                number(r.kappa),
                r.mean_difference
            )
        })
        .collect();
    print(&lines.join("\n"));
    Ok(())
}
