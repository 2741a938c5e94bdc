//! `epitome`: how a reply shows empathy, by EPITOME's three mechanisms (Sharma et al. 2020): emotional reactions,
//! interpretations, explorations, each none 0, weak 1, strong 2.
//!
//! A classifier's expected levels of the reply are set beside those of the human reply: matching a level is harder to game
//! than reaching for the greatest (rl.md §7.3; Ma et al., arXiv 2408.02976). Absent without a seeker turn, and without a
//! human reply where one is the target; an empty reply scores 0.

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Result, Role};

/// Names of the mechanisms, in order.
pub const MECHANISMS: [&str; 3] = ["emotional reactions", "interpretations", "explorations"];

/// What estimates levels.
pub trait Levels {
    /// Changes whenever an answer would.
    fn version(&self) -> String;
    /// Expected level, 0..2, of each mechanism for each (seeker's turn, reply), `[pairs]`.
    ///
    /// # Errors
    /// Those of the model behind it.
    fn levels(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<[f64; 3]>>;
}

/// What is rewarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The human reply's levels, neither less nor more.
    Match,
    /// The human reply's levels or more.
    AtLeast,
    /// The greatest levels; for comparison, it is easily gamed.
    Max,
}

impl Target {
    /// From its name in the configuration.
    ///
    /// # Errors
    /// Config: an unknown name.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "match" => Self::Match,
            "at_least" => Self::AtLeast,
            "max" => Self::Max,
            other => {
                return Err(Error::config("read reward.epitome_target")
                    .expected("\"match\", \"at_least\" or \"max\"")
                    .got(format!("{other:?}")));
            }
        })
    }
    /// Score of levels beside the target's, 0..1.
    fn score(self, own: [f64; 3], target: [f64; 3]) -> f64 {
        let miss = |i: usize| match self {
            Self::Match => (own[i] - target[i]).abs(),
            Self::AtLeast => (target[i] - own[i]).max(0.0),
            Self::Max => 2.0 - own[i],
        };
        1.0 - (0..3).map(miss).sum::<f64>() / 6.0
    }
}

/// The component or its evaluation-only twin `epitome_eval`.
pub struct Epitome {
    scorer: Box<dyn Levels>,
    target: Target,
    purpose: Purpose,
}

impl Epitome {
    /// The component that training may use.
    pub fn train(scorer: Box<dyn Levels>, target: Target) -> Self {
        Self { scorer, target, purpose: Purpose::Train }
    }
    /// Its evaluation-only twin: another classifier, from other data.
    pub fn evaluate(scorer: Box<dyn Levels>, target: Target) -> Self {
        Self { scorer, target, purpose: Purpose::Evaluate }
    }
    /// Levels of each pair.
    fn ask(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<[f64; 3]>> {
        let found = self.scorer.levels(pairs)?;
        if found.len() != pairs.len() {
            return Err(Error::internal("score levels of empathy")
                .expected(format!("{} answers", pairs.len()))
                .got(found.len().to_string()));
        }
        Ok(found)
    }
    /// The seeker's turn and the texts to ask about: the reply, and the human one where it is the target.
    fn texts<'a>(&self, r: &Reply<'a>) -> Option<(&'a str, Vec<&'a str>)> {
        let seeker = r.context.iter().rfind(|u| u.role == Role::Seeker)?;
        let texts = match self.target {
            Target::Max => vec![r.text],
            _ => vec![r.text, r.reference?],
        };
        Some((seeker.text.as_str(), texts))
    }
}

impl Reward for Epitome {
    fn name(&self) -> &'static str {
        match self.purpose {
            Purpose::Train => "epitome",
            Purpose::Evaluate => "epitome_eval",
        }
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("{} 1: {:?}, {}", self.name(), self.target, self.scorer.version())
    }
    fn purpose(&self) -> Purpose {
        self.purpose
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let rows: Vec<(usize, (&str, Vec<&str>))> =
            batch.iter().enumerate().filter_map(|(i, r)| Some((i, self.texts(r)?))).collect();
        let pairs: Vec<(&str, &str)> =
            rows.iter().flat_map(|(_, (s, texts))| texts.iter().map(|t| (*s, *t))).collect();
        let levels = self.ask(&pairs)?;
        let mut out = vec![None; batch.len()];
        let each = if self.target == Target::Max { 1 } else { 2 };
        for ((i, _), l) in rows.iter().zip(levels.chunks(each)) {
            let empty = batch[*i].text.trim().is_empty();
            out[*i] = Some(if empty { 0.0 } else { self.target.score(l[0], l[each - 1]) });
        }
        Ok(out)
    }
    fn explain(&mut self, reply: &Reply<'_>) -> Result<Vec<String>> {
        let Some((seeker, texts)) = self.texts(reply) else {
            return Ok(vec!["no seeker turn, or no human reply to match: absent".into()]);
        };
        let pairs: Vec<(&str, &str)> = texts.iter().map(|t| (seeker, *t)).collect();
        let levels = self.ask(&pairs)?;
        let line = |(who, l): (&str, &[f64; 3])| {
            let each: Vec<String> = MECHANISMS.iter().zip(l).map(|(m, x)| format!("{m} {x:.2}")).collect();
            format!("{who}: {}", each.join(", "))
        };
        Ok(["this reply", "the human reply"].into_iter().zip(&levels).map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reply, seeker};

    /// Question marks explore, "sorry" reacts; two of them strongly.
    struct Marks;

    impl Levels for Marks {
        fn version(&self) -> String {
            "marks".into()
        }
        fn levels(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<[f64; 3]>> {
            let count = |t: &str, what: &str| t.matches(what).count().min(2) as f64;
            Ok(pairs.iter().map(|(_, t)| [count(t, "sorry"), 0.0, count(t, "?")]).collect())
        }
    }

    #[test]
    fn each_target_rewards_what_it_says() {
        let context = [seeker("I had a bad day")];
        let of = |text: &'static str, target| {
            let r = Reply { context: &context, reference: Some("Sad, sorry. Why?"), ..reply(text) };
            Epitome::train(Box::new(Marks), target).score(&[r]).unwrap()[0].unwrap()
        };
        assert_eq!(of("So sorry, what was it?", Target::Match), 1.0);
        assert!((of("sorry sorry? ?", Target::Match) - (1.0 - 2.0 / 6.0)).abs() < 1e-12);
        assert_eq!(of("sorry sorry? ?", Target::AtLeast), 1.0);
        assert!((of("ok", Target::AtLeast) - (1.0 - 2.0 / 6.0)).abs() < 1e-12);
        assert!((of("sorry sorry? ?", Target::Max) - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!(of(" ", Target::AtLeast), 0.0);
        assert!(Target::parse("most").unwrap_err().to_string().contains("at_least"));
    }

    #[test]
    fn it_is_absent_without_a_seeker_or_a_target_and_keeps_places() {
        let context = [seeker("hello there")];
        let mut e = Epitome::evaluate(Box::new(Marks), Target::Match);
        assert_eq!((e.name(), e.purpose()), ("epitome_eval", Purpose::Evaluate));
        let whole = Reply { context: &context, reference: Some("hm?"), ..reply("why?") };
        let batch = [
            reply("sorry"),
            Reply { context: &context, ..reply("sorry") },
            whole,
            Reply { reference: None, ..whole },
        ];
        assert_eq!(e.score(&batch).unwrap(), [None, None, Some(1.0), None]);
        let mut most = Epitome::train(Box::new(Marks), Target::Max);
        let found = most.score(&batch[3..]).unwrap()[0].unwrap();
        assert!((found - 1.0 / 6.0).abs() < 1e-12);
        assert_eq!(e.explain(&whole).unwrap().len(), 2);
    }
}
