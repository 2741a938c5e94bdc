//! Components of one's own: one file each in `own/`, found when the crate is built. See docs/rewards.md.
//!
//! A file `own/NAME.rs` holds `pub struct Component` (with `Default`), which implements [`Reward`] under its file name, and
//! `PRESET`, the TOML that `--preset rewards-NAME` lays over a run. Nothing else has to be touched.

use ecr_core::seam::Reward;

/// A component found in `own/`.
#[derive(Clone, Copy)]
pub struct Own {
    /// Its file name.
    pub name: &'static str,
    /// Name of its preset, `rewards-NAME`.
    pub preset: &'static str,
    /// What the preset sets.
    pub toml: &'static str,
    /// Makes it.
    pub build: fn() -> Box<dyn Reward>,
}

include!(concat!(env!("OUT_DIR"), "/own.rs"));

/// The component of this name.
pub fn find(name: &str) -> Option<&'static Own> {
    OWN.iter().find(|o| o.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    #[test]
    fn every_component_is_named_as_its_file_and_keeps_its_range() {
        assert!(!OWN.is_empty());
        for o in OWN {
            let mut c = (o.build)();
            assert_eq!(c.name(), o.name);
            assert!(o.toml.contains("[reward]") && o.toml.contains(o.name), "{}", o.name);
            let (low, high) = c.range();
            let batch = ["", "Have you seen it?", "the the the", "\u{fffd}"].map(|t| reply(t));
            let s = c.score(&batch).unwrap();
            assert_eq!(s.len(), batch.len());
            assert!(s.iter().flatten().all(|x| (low..=high).contains(x)), "{}: {s:?}", o.name);
        }
    }

    #[test]
    fn safety_finds_words_and_not_parts_of_words() {
        let mut c = (find("safety").unwrap().build)();
        let s = c
            .score(&["You IDIOT!", "An idiotic film", "go, kill yourself", "Nice"].map(|t| reply(t)))
            .unwrap();
        assert_eq!(s, [0.0, 1.0, 0.0, 1.0].map(Some));
    }
}
