//! `external`: a score from a command of the user's, which reads JSON lines and answers in JSON lines.
//!
//! The command is started once, without a shell. For each reply it gets one line
//! `{"id": 0, "context": [{"role": "seeker", "text": "…"}], "response": "…", "reference": "…" or null}` and answers, in
//! any order, `{"id": 0, "score": 0.7}`; `null` = does not apply. A batch is sent whole before answers are awaited. An
//! answer that is no such line, a score outside the range, one id twice, silence beyond the time limit and an early end are
//! errors: nothing is imputed. The command must be deterministic for a run to be repeatable; `version` names it. What it
//! writes to stderr is shown.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::json;

/// Longest line of an answer, bytes.
const LONGEST: usize = 1 << 16;

/// How to reach the command.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Least and greatest score.
    pub range: (f64, f64),
    /// Longest wait for the answers to one batch.
    pub timeout: Duration,
    /// What the user calls this version of it.
    pub version: String,
}

/// The `external` component.
pub struct External {
    settings: Settings,
    running: Option<Running>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    id: usize,
    score: Option<f64>,
}

impl Drop for External {
    fn drop(&mut self) {
        if let Some(mut r) = self.running.take() {
            let _ = r.child.kill();
            let _ = r.child.wait();
        }
    }
}

impl External {
    /// The component; the command is started at the first batch.
    ///
    /// # Errors
    /// Config: no command, or a range that is none.
    pub fn new(settings: Settings) -> Result<Self> {
        let (low, high) = settings.range;
        if settings.command.is_empty() || !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::config("set up the external reward")
                .expected("a command and a range, e.g. reward.external = [\"python3\", \"score.py\"]")
                .got(format!("{:?}, {low} to {high}", settings.command)));
        }
        Ok(Self { settings, running: None })
    }
    fn failed(&self, got: impl Into<String>) -> Error {
        Error::new(Kind::Network, format!("score with the external command {:?}", self.settings.command))
            .expected("one line {\"id\": …, \"score\": …} for each reply")
            .got(got)
            .files("no score was taken from this batch")
    }
    fn start(&self) -> Result<Running> {
        let [program, args @ ..] = self.settings.command.as_slice() else {
            return Err(self.failed("no command"));
        };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.failed(format!("it does not start: {e}")))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed("it has no pipes"));
        };
        let (send, lines) = channel();
        // Ends with the pipe, that is, with the command.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                let mut limited = std::io::Read::take(&mut reader, LONGEST as u64);
                match limited.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Running { child, stdin, lines })
    }
    fn ask(&self, running: &mut Running, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let mut text = Vec::new();
        for (id, r) in batch.iter().enumerate() {
            let line = json!({"id": id, "context": r.context, "response": r.text, "reference": r.reference});
            text.extend(line.to_string().into_bytes());
            text.push(b'\n');
        }
        let mut out: Vec<Option<Option<f64>>> = vec![None; batch.len()];
        let until = Instant::now() + self.settings.timeout;
        // Written from another thread: a command that answers line by line must not block on a full pipe.
        std::thread::scope(|scope| {
            let stdin = &mut running.stdin;
            let writer = scope.spawn(move || stdin.write_all(&text).and_then(|()| stdin.flush()));
            let mut answers = || -> Result<()> {
                for _ in 0..batch.len() {
                    let left = until.saturating_duration_since(Instant::now());
                    let line = running.lines.recv_timeout(left).map_err(|e| {
                        self.failed(match e {
                            RecvTimeoutError::Timeout => {
                                format!("nothing within {:?}", self.settings.timeout)
                            }
                            RecvTimeoutError::Disconnected => "the end of its output".into(),
                        })
                    })?;
                    let a: Answer = serde_json::from_str(&line).map_err(|e| {
                        self.failed(format!("{:?} ({e})", line.chars().take(200).collect::<String>()))
                    })?;
                    let (low, high) = self.settings.range;
                    if a.score.is_some_and(|s| !(low..=high).contains(&s)) {
                        return Err(self.failed(format!("a score outside {low} to {high}: {:?}", a.score)));
                    }
                    match out.get_mut(a.id) {
                        Some(slot @ None) => *slot = Some(a.score),
                        Some(Some(_)) => return Err(self.failed(format!("id {} twice", a.id))),
                        None => return Err(self.failed(format!("id {} of {}", a.id, batch.len()))),
                    }
                }
                Ok(())
            };
            let result = answers();
            if result.is_err() {
                // Unblocks the writer.
                let _ = running.child.kill();
            }
            match (writer.join(), result) {
                (_, Err(e)) => Err(e),
                (Ok(Ok(())), Ok(())) => Ok(()),
                (Ok(Err(e)), Ok(())) => Err(self.failed(format!("it stopped reading: {e}"))),
                (Err(_), Ok(())) => Err(self.failed("the writing thread panicked")),
            }
        })?;
        Ok(out.into_iter().map(Option::flatten).collect())
    }
}

impl Reward for External {
    fn name(&self) -> &'static str {
        "external"
    }
    fn range(&self) -> (f64, f64) {
        self.settings.range
    }
    fn version(&self) -> String {
        format!("external 1: {:?}, {}", self.settings.command, self.settings.version)
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut running = match self.running.take() {
            Some(r) => r,
            None => self.start()?,
        };
        let result = self.ask(&mut running, batch);
        if result.is_ok() {
            self.running = Some(running);
        } else {
            // What it may still say belongs to this batch: never read it for the next.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        result
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reply, seeker};

    fn external(program: &str, script: &str, timeout_ms: u64) -> External {
        let command = [program, "-c", script].map(str::to_owned).to_vec();
        let timeout = Duration::from_millis(timeout_ms);
        External::new(Settings { command, range: (0.0, 1.0), timeout, version: "test".into() }).unwrap()
    }

    #[test]
    fn a_command_scores_batches_as_long_as_it_lives() {
        // Long replies score 1; the id is whatever stands after "id":
        let script = r#"while read -r l; do
            id=${l#*'"id":'}; id=${id%%,*}; s=0.25
            case $l in *skip*) s=null;; *word*) s=1;; esac
            echo "{\"id\": $id, \"score\": $s}"
        done"#;
        let mut e = external("sh", script, 60_000);
        let context = [seeker("Hello \"there\"\nyou")];
        let long = "word ".repeat(40);
        let batch = [reply(&long), reply("short"), reply("skip")].map(|r| Reply { context: &context, ..r });
        for _ in 0..2 {
            assert_eq!(e.score(&batch).unwrap(), [Some(1.0), Some(0.25), None]);
        }
        // More than a pipe holds, both ways.
        let many: Vec<_> = (0..3000).map(|_| batch[0]).collect();
        assert_eq!(e.score(&many).unwrap(), vec![Some(1.0); 3000]);
    }

    #[test]
    fn whatever_is_no_answer_is_an_error_and_imputes_nothing() {
        let batch = [reply("one"), reply("two")];
        for (script, want) in [
            ("read a; echo '{\"id\": 0, \"score\": 0.5}'; sleep 20", "nothing within"),
            ("read a; echo 'score: 3'; sleep 20", "score: 3"),
            ("read a; echo '{\"id\": 0, \"score\": 7}'; sleep 20", "outside 0 to 1"),
            ("read a; echo '{\"id\": 9, \"score\": 0.5}'; sleep 20", "id 9 of 2"),
            ("read a; for i in 1 2; do echo '{\"id\": 0, \"score\": 0.5}'; done; sleep 20", "id 0 twice"),
            ("read a; echo '{\"id\": 0, \"score\": 0.5, \"x\": 1}'; sleep 20", "unknown field"),
            ("exit 3", ""),
        ] {
            let e = external("sh", script, 1500).score(&batch).unwrap_err();
            assert_eq!(e.kind, Kind::Network);
            assert!(e.to_string().contains(want), "{script}: {e}");
        }
        let e = external("there-is-no-such-program", "", 500).score(&batch).unwrap_err();
        assert!(e.to_string().contains("does not start"), "{e}");
        assert!(
            External::new(Settings {
                command: vec![],
                range: (0.0, 1.0),
                timeout: Duration::ZERO,
                version: String::new()
            })
            .is_err()
        );
    }
}
