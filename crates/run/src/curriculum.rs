//! Easy prompts first: updates draw from a growing share of the training prompts, ordered by difficulty.
//!
//! What a conversation asks for grows with it: more films to have in mind, more that were turned down, and human replies
//! that say more. Either measure is read off the data; none looks at validation or test. Off by default, and then draws
//! are the same to the bit as if it did not exist.

use ecr_core::{Error, Result, Stream};
use ecr_data::records::Example;

use crate::config;
use crate::sampler::choose;

/// Training prompts by difficulty, and how many of them are in play.
pub struct Curriculum {
    order: Vec<usize>,
    start: f64,
    steps: u64,
}

impl Curriculum {
    /// Over `prompts`, as configured.
    ///
    /// # Errors
    /// Config: a measure of difficulty that there is not, or a share outside (0, 1].
    pub fn new(c: &config::Curriculum, prompts: &[(Example, Vec<u32>)]) -> Result<Self> {
        if !(c.start > 0.0 && c.start <= 1.0) {
            return Err(Error::config("read curriculum.start")
                .expected("a share above 0, at most 1")
                .got(c.start.to_string()));
        }
        let difficulty: fn(&Example) -> usize = match c.by.as_str() {
            "turns" => |e| e.context.len(),
            "reply" => |e| e.reply.split_whitespace().count(),
            other => {
                return Err(Error::config("read curriculum.by")
                    .expected("\"turns\" or \"reply\"")
                    .got(format!("{other:?}")));
            }
        };
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        if c.start < 1.0 && c.steps > 0 {
            order.sort_by_key(|&i| difficulty(&prompts[i].0));
        }
        Ok(Self { order, start: c.start, steps: c.steps })
    }
    /// How many of the easiest prompts update `step` draws from.
    pub fn in_play(&self, step: u64) -> usize {
        let gone = if self.steps == 0 { 1.0 } else { (step as f64 / self.steps as f64).min(1.0) };
        let share = self.start + (1.0 - self.start) * gone;
        ((share * self.order.len() as f64).ceil() as usize).clamp(1, self.order.len().max(1))
    }
    /// `n` prompts for update `step`, each `times` times in a row.
    pub fn choose(&self, step: u64, n: usize, times: usize, stream: Stream) -> Vec<usize> {
        choose(self.in_play(step), n, stream)
            .into_iter()
            .flat_map(|i| std::iter::repeat_n(self.order[i], times))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ecr_data::redial::Split;

    use super::*;

    fn prompts() -> Vec<(Example, Vec<u32>)> {
        let example = |i: usize| Example {
            conv_id: 0,
            turn_idx: i,
            split: Split::Train,
            context: Vec::new(),
            // The later in the list, the shorter.
            reply: "word ".repeat(20 - i),
            reply_slots: String::new(),
            labels: Vec::new(),
            mentioned: Vec::new(),
            rejected: Vec::new(),
            recommending: false,
        };
        (0..20).map(|i| (example(i), vec![])).collect()
    }
    fn with(start: f64, steps: u64, by: &str) -> Result<Curriculum> {
        Curriculum::new(&config::Curriculum { start, steps, by: by.into() }, &prompts())
    }

    #[test]
    fn easy_prompts_come_first_and_all_in_the_end() {
        let c = with(0.25, 10, "reply").unwrap();
        assert_eq!([0, 4, 10, 99].map(|s| c.in_play(s)), [5, 11, 20, 20]);
        let first = c.choose(0, 200, 1, Stream::new(1));
        assert!(first.iter().all(|&i| i >= 15), "{first:?}");
        assert!(c.choose(10, 200, 1, Stream::new(1)).iter().any(|&i| i < 5));
        assert_eq!(c.choose(3, 2, 3, Stream::new(1))[..3], [c.choose(3, 1, 1, Stream::new(1))[0]; 3]);
    }

    #[test]
    fn off_it_changes_no_draw_and_nonsense_is_refused() {
        let c = with(1.0, 10, "turns").unwrap();
        assert_eq!(c.choose(0, 50, 1, Stream::new(7)), choose(20, 50, Stream::new(7)));
        for (start, by) in [(0.0, "turns"), (1.5, "turns"), (f64::NAN, "turns"), (0.5, "length")] {
            assert!(with(start, 10, by).is_err(), "{start} {by}");
        }
    }
}
