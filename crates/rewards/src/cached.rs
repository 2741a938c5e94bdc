//! A cache before an expensive component: what was scored once is looked up.
//!
//! The key is the hash of the component's version (its configuration and the hashes of its models are part of it), of the
//! arithmetic it ran on, and of the whole reply with its context. Only for components that look at one reply at a time.
//! A cached score is the very number that was computed then: with the same arithmetic, to the bit what would be computed
//! now if the model's numbers do not depend on the batch they are computed in. Trouble with the store costs hits, never a score.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use ecr_core::Result;
use ecr_core::io::blake3;
use ecr_core::seam::{Purpose, Reply, Reward};
use serde_json::json;

/// Keeps scores by key.
pub trait ScoreStore {
    /// The score of each key, `None` where there is none; `Some(None)` = scored, and absent.
    fn get(&self, keys: &[String]) -> Vec<Option<Option<f64>>>;
    /// Keeps scores of this version.
    fn put(&self, version: &str, rows: &[(String, Option<f64>)]);
}

static HITS: AtomicU64 = AtomicU64::new(0);
static MISSES: AtomicU64 = AtomicU64::new(0);

/// Scores found and scores computed by all cached components of this process so far; for logs only.
pub fn counts() -> (u64, u64) {
    (HITS.load(Ordering::Relaxed), MISSES.load(Ordering::Relaxed))
}

/// A component behind a cache.
pub struct Cached {
    inner: Box<dyn Reward>,
    store: Rc<dyn ScoreStore>,
    /// Kernels and CPU.
    arithmetic: String,
}

impl Cached {
    /// Puts a cache before a component that looks at one reply at a time.
    pub fn new(inner: Box<dyn Reward>, store: Rc<dyn ScoreStore>, arithmetic: impl Into<String>) -> Self {
        Self { inner, store, arithmetic: arithmetic.into() }
    }
    fn versioned(&self) -> String {
        format!("{}: {} on {}", self.inner.name(), self.inner.version(), self.arithmetic)
    }
    fn key(&self, version: &str, r: &Reply<'_>) -> String {
        let all = json!([
            version,
            r.context,
            r.text,
            r.finished,
            r.length,
            r.reference,
            r.labels,
            r.mentioned,
            r.rejected
        ]);
        blake3(all.to_string().as_bytes())
    }
    fn found(&self, version: &str, batch: &[Reply<'_>]) -> (Vec<String>, Vec<Option<Option<f64>>>) {
        let keys: Vec<String> = batch.iter().map(|r| self.key(version, r)).collect();
        let (low, high) = self.inner.range();
        let mut found = self.store.get(&keys);
        found.resize(batch.len(), None);
        for f in &mut found {
            // A number that the component cannot have given is no score.
            if f.flatten().is_some_and(|x| !(low - 1e-9..=high + 1e-9).contains(&x)) {
                *f = None;
            }
        }
        (keys, found)
    }
}

impl Reward for Cached {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn range(&self) -> (f64, f64) {
        self.inner.range()
    }
    fn version(&self) -> String {
        self.inner.version()
    }
    fn purpose(&self) -> Purpose {
        self.inner.purpose()
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let version = self.versioned();
        let (keys, found) = self.found(&version, batch);
        let missing: Vec<usize> = (0..batch.len()).filter(|&i| found[i].is_none()).collect();
        let mut out: Vec<Option<f64>> = found.into_iter().map(Option::flatten).collect();
        HITS.fetch_add((batch.len() - missing.len()) as u64, Ordering::Relaxed);
        MISSES.fetch_add(missing.len() as u64, Ordering::Relaxed);
        if !missing.is_empty() {
            let fresh = self.inner.score(&missing.iter().map(|&i| batch[i]).collect::<Vec<_>>())?;
            let rows: Vec<(String, Option<f64>)> =
                missing.iter().zip(&fresh).map(|(&i, s)| (keys[i].clone(), *s)).collect();
            self.store.put(&version, &rows);
            for (i, s) in missing.into_iter().zip(fresh) {
                out[i] = s;
            }
        }
        Ok(out)
    }
    fn memory(&self) -> usize {
        self.inner.memory()
    }
    fn recall(&mut self, recent: &[String]) {
        self.inner.recall(recent);
    }
    fn explain(&mut self, reply: &Reply<'_>) -> Result<Vec<String>> {
        let version = self.versioned();
        let known = self.found(&version, std::slice::from_ref(reply)).1[0].is_some();
        let mut notes = vec![if known { "score from the cache".into() } else { "score computed".to_owned() }];
        notes.extend(self.inner.explain(reply)?);
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;
    use std::cell::RefCell;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Memory(RefCell<HashMap<String, Option<f64>>>);

    impl ScoreStore for Memory {
        fn get(&self, keys: &[String]) -> Vec<Option<Option<f64>>> {
            keys.iter().map(|k| self.0.borrow().get(k).copied()).collect()
        }
        fn put(&self, _: &str, rows: &[(String, Option<f64>)]) {
            self.0.borrow_mut().extend(rows.iter().cloned());
        }
    }

    /// Scores the length and counts what it was asked; nothing for an empty text.
    struct Counting(Rc<RefCell<usize>>, &'static str);

    impl Reward for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        fn range(&self) -> (f64, f64) {
            (0.0, 100.0)
        }
        fn version(&self) -> String {
            self.1.into()
        }
        fn purpose(&self) -> Purpose {
            Purpose::Train
        }
        fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
            *self.0.borrow_mut() += batch.len();
            Ok(batch.iter().map(|r| (!r.text.is_empty()).then_some(r.text.len() as f64 / 3.0)).collect())
        }
    }

    #[test]
    fn what_was_scored_is_looked_up_absence_too_and_another_version_is_another_score() {
        let (asked, store) = (Rc::new(RefCell::new(0)), Rc::new(Memory::default()));
        let make =
            |version, on: &str| Cached::new(Box::new(Counting(asked.clone(), version)), store.clone(), on);
        let batch = [reply("one"), reply(""), reply("three")];
        let mut c = make("1", "avx2");
        let first = c.score(&batch).unwrap();
        assert_eq!((first.clone(), *asked.borrow()), (vec![Some(1.0), None, Some(5.0 / 3.0)], 3));
        assert_eq!(c.score(&batch).unwrap(), first);
        assert_eq!(*asked.borrow(), 3);
        // A new reply between old ones; another context, version or arithmetic.
        assert_eq!(c.score(&[batch[0], reply("twofold"), batch[2]]).unwrap()[1], Some(7.0 / 3.0));
        assert_eq!(*asked.borrow(), 4);
        c.score(&[Reply { finished: false, ..batch[0] }]).unwrap();
        make("2", "avx2").score(&batch[..1]).unwrap();
        make("1", "avx512").score(&batch[..1]).unwrap();
        assert_eq!(*asked.borrow(), 7);
        assert_eq!(c.explain(&batch[0]).unwrap(), ["score from the cache"]);
        assert_eq!(c.explain(&reply("unheard")).unwrap(), ["score computed"]);
        // A damaged score is computed again.
        store.0.borrow_mut().values_mut().for_each(|v| *v = Some(f64::NAN));
        assert_eq!(c.score(&batch).unwrap(), first);
    }
}
