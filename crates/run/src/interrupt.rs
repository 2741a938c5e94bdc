//! Ctrl-C and SIGTERM. In a loop that writes checkpoints, the first one lets the current step end and a checkpoint
//! be written; elsewhere it ends the process at once, as does a second one anywhere. Nothing is lost either way: a
//! run continues after `kill -9` with the same bits; a checkpoint only saves the steps since the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ecr_core::{Error, Kind};

/// Exit code of an interrupted command, SIGTERM included.
#[cfg(unix)]
const EXIT: i32 = 130;

/// Whether the user asked the run to stop. The default never does.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    asked: Arc<AtomicBool>,
    /// Loops under way that look at `asked` after each step.
    loops: AtomicUsize,
    /// A loop has seen it and returned its error.
    answered: AtomicBool,
    /// The command that continues the run.
    again: String,
}

impl Interrupt {
    /// Watches SIGINT and SIGTERM from now on; `again` is the command that continues the run. Where there are no
    /// such signals the system's own way of stopping a process stays as it is.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the system refuses a handler or a thread.
    pub fn on_signals(again: String) -> ecr_core::Result<Self> {
        let me = Self(Arc::new(State { again, ..State::default() }));
        #[cfg(unix)]
        me.watch().map_err(|e| Error::internal("watch for signals").got(e.to_string()))?;
        Ok(me)
    }

    #[cfg(unix)]
    fn watch(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::{flag, iterator::Signals};
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal only sets the flag; the second finds it set.
            flag::register_conditional_shutdown(signal, EXIT, Arc::clone(&self.0.asked))?;
            flag::register(signal, Arc::clone(&self.0.asked))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let me = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if signals.forever().next().is_none() || me.0.answered.load(Ordering::SeqCst) {
                return;
            }
            if me.0.loops.load(Ordering::SeqCst) > 0 {
                eprintln!(
                    "interrupted: finishing this step, then a checkpoint (once more: stop at once, without one)"
                );
                return;
            }
            let e = me.error("stopped").files("finished stages and checkpoints are intact");
            eprintln!("{e}");
            std::process::exit(EXIT);
        })?;
        Ok(())
    }

    /// Whether a signal came.
    pub fn asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }
    /// Says that a loop is under way which looks at [`Interrupt::asked`] after each step, until dropped.
    pub fn steps(&self) -> Steps {
        self.0.loops.fetch_add(1, Ordering::SeqCst);
        Steps(self.clone())
    }
    /// The error of an interrupted command, with how to go on.
    pub fn error(&self, what: &str) -> Error {
        self.0.answered.store(true, Ordering::SeqCst);
        let e = Error::new(Kind::Interrupted, format!("interrupted: {what}"));
        if self.0.again.is_empty() { e } else { e.hint(format!("to continue: {}", self.0.again)) }
    }
}

/// A loop under way; see [`Interrupt::steps`].
#[derive(Debug)]
pub struct Steps(Interrupt);

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.0.loops.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_counts_while_it_lives_and_the_error_says_how_to_go_on() {
        let i = Interrupt(Arc::new(State { again: "ecr run demo".into(), ..State::default() }));
        assert!(!i.asked());
        let (a, b) = (i.steps(), i.steps());
        drop(a);
        assert_eq!(i.0.loops.load(Ordering::SeqCst), 1);
        drop(b);
        assert_eq!(i.0.loops.load(Ordering::SeqCst), 0);
        let e = i.error("stopped");
        assert_eq!(e.exit_code(), 130);
        assert!(e.to_string().contains("ecr run demo"));
    }
}
