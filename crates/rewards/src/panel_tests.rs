//! The composite against constructed replies: no degenerate text may outrank a reference-like reply.

use std::sync::Arc;

use ecr_core::seam::{Label, Purpose, Reply, Reward};
use ecr_core::{Error, ItemId, Role, Utterance};

use crate::components::bleu::Bleu;
use crate::components::distinct::Distinct;
use crate::components::empathy::{Empathy, ResponseMap};
use crate::components::format::Format;
use crate::components::recommendation::{Recommendation, Settings};
use crate::composite::{Composite, Mode, NormaliserState, Weights, preset};
use crate::testing::{Fixed, KeywordEmotion, films, reply, seeker};

fn components() -> Vec<Box<dyn Reward>> {
    let order = [5, 6, 7, 8].map(ItemId).to_vec();
    vec![
        Box::new(Bleu),
        Box::new(Empathy::train(Box::new(KeywordEmotion), ResponseMap::standard())),
        Box::new(Recommendation::new(
            Arc::new(films()),
            Arc::new(Fixed(order)),
            "fixed",
            Settings::default(),
        )),
        Box::new(Distinct),
        Box::new(Format),
    ]
}

fn composite(weights: &Weights, mode: Mode) -> Composite {
    Composite::new(components(), weights, mode, Purpose::Train).unwrap()
}

struct Case {
    context: Vec<Utterance>,
    reference: &'static str,
    good: &'static str,
    label: Vec<Label>,
}

fn cases() -> Vec<Case> {
    let liked = |id| vec![Label { item: ItemId(id), liked: Some(true) }];
    let open = || Utterance { role: Role::Recommender, text: "Hello, what do you like?".into() };
    vec![
        Case {
            context: vec![open(), seeker("I am happy today and like old sea stories")],
            reference: "I like those too! You should watch The Blue Lantern (1999), it made me happy.",
            good: "I like sea stories as well! Watch The Blue Lantern (1999), it will make you happy.",
            label: liked(1),
        },
        Case {
            context: vec![open(), seeker("I am curious about dramas with a twist")],
            reference: "I like Copper Valley (2001), are you curious about small towns?",
            good: "You may like Copper Valley (2001), it left me curious to the end.",
            label: liked(2),
        },
        Case {
            context: vec![open(), seeker("Nothing much, neutral mood, what do you suggest?")],
            reference: "Do you like comedies, or are you curious about something new?",
            good: "Would you like a comedy, or are you curious about something else?",
            label: vec![],
        },
    ]
}

/// Every hack of the panel on one case.
fn hacks(case: &Case, all_films: &str) -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("the", "the the the the".into()),
        ("slots", "<movie> ".repeat(150)),
        ("all films", all_films.into()),
        ("sympathy", "I'm so sorry to hear that.".into()),
        ("keywords", "happy like grateful agreement curious".into()),
        ("copy of the context", case.context.last().unwrap().text.clone()),
        ("repeated sentence", "I like it a lot. ".repeat(20)),
        ("one word", "yes".into()),
        ("invented film", "You should watch Nowhere Street Unknown (1931).".into()),
    ]
}

#[test]
fn no_hack_outranks_a_good_reply() {
    let all_films: Vec<String> = films().movies().iter().map(|m| m.name()).collect();
    let all_films = all_films.join(", ");
    for name in ["balanced", "empathy", "recommendation"] {
        for mode in [Mode::Running, Mode::None] {
            let cases = cases();
            let hacks: Vec<Vec<(&str, String)>> = cases.iter().map(|c| hacks(c, &all_films)).collect();
            let mut batch = Vec::new();
            for (case, hacks) in cases.iter().zip(&hacks) {
                let texts = [case.good, case.reference].into_iter().chain(hacks.iter().map(|h| h.1.as_str()));
                batch.extend(texts.map(|t| Reply {
                    context: &case.context,
                    reference: Some(case.reference),
                    labels: &case.label,
                    finished: t.len() < 400,
                    ..reply(t)
                }));
            }
            let s = composite(&preset(name).unwrap(), mode).score(&batch).unwrap();
            for (rows, hacks) in s.chunks(hacks[0].len() + 2).zip(&hacks) {
                for (row, (what, _)) in rows[2..].iter().zip(hacks) {
                    let (good, bad) = (rows[0].total.min(rows[1].total), row.total);
                    assert!(
                        bad < good,
                        "{name}, {mode:?}: {what} scores {bad}, a good reply {good}: {row:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn raw_mode_is_the_plain_sum_and_absent_is_not_0() {
    let context = [seeker("I am happy")];
    let label = [Label { item: ItemId(1), liked: Some(true) }];
    let full = Reply {
        context: &context,
        reference: Some("I like The Blue Lantern (1999)"),
        labels: &label,
        ..reply("You may like The Blue Lantern (1999), happy days.")
    };
    let w = preset("balanced").unwrap();
    let b = composite(&w, Mode::None).score(&[full]).unwrap().remove(0);
    let sum: f64 = b.parts.iter().map(|p| w[&p.name] * p.raw.unwrap()).sum();
    assert!((b.total - sum).abs() < 1e-12);
    // Without reference: the others' weighted mean stands for bleu.
    let b = composite(&w, Mode::None).score(&[Reply { reference: None, ..full }]).unwrap().remove(0);
    assert_eq!(b.part("bleu").unwrap().weighted, None);
    let present: Vec<_> = b.parts.iter().filter(|p| p.raw.is_some()).collect();
    let mean = present.iter().map(|p| w[&p.name] * p.raw.unwrap()).sum::<f64>()
        / present.iter().map(|p| w[&p.name]).sum::<f64>();
    assert!((b.total - mean * w.values().sum::<f64>()).abs() < 1e-12);
}

#[test]
fn running_normalisation_is_that_of_all_scores_and_resumes_to_the_bit() {
    let w = preset("balanced").unwrap();
    let texts =
        ["I like it.", "Have you seen Paper Harbour (2005)?", "yes", "Tell me about the last film you saw"];
    let batch: Vec<_> = texts.iter().map(|t| Reply { reference: Some("I like it."), ..reply(t) }).collect();
    let mut whole = composite(&w, Mode::Running);
    whole.score(&batch[..2]).unwrap();
    let saved = serde_json::to_vec(whole.state()).unwrap();
    let after = whole.score(&batch[2..]).unwrap();

    let mut resumed = composite(&w, Mode::Running);
    resumed.set_state(serde_json::from_slice::<NormaliserState>(&saved).unwrap()).unwrap();
    assert_eq!(resumed.score(&batch[2..]).unwrap(), after);
    assert_eq!(resumed.state(), whole.state());

    let raw: Vec<f64> = composite(&w, Mode::None)
        .score(&batch)
        .unwrap()
        .iter()
        .map(|b| b.part("format").unwrap().raw.unwrap())
        .collect();
    let mean = raw.iter().sum::<f64>() / 4.0;
    let var = raw.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0;
    let m = whole.state().moments["format"];
    assert!(m.count == 4 && (m.mean - mean).abs() < 1e-15 && (m.variance() - var).abs() < 1e-15);

    // Frozen: the same reply scores the same whatever came before, and nothing changes.
    whole.set_mode(Mode::Frozen);
    let state = whole.state().clone();
    let one = whole.score(&batch[3..]).unwrap();
    assert_eq!(whole.score(&batch[3..]).unwrap(), one);
    assert_eq!(whole.state(), &state);
}

#[test]
fn an_outlier_is_clipped_and_weight_0_has_no_influence() {
    let many: Vec<_> = (0..60).map(|_| reply("Have you seen a good film?")).chain([reply("")]).collect();
    let mut w = preset("balanced").unwrap();
    let s = composite(&w, Mode::Running).score(&many).unwrap();
    assert_eq!(s[60].part("format").unwrap().normalised, Some(-5.0));
    w.insert("format".into(), 0.0);
    let s0 = composite(&w, Mode::Running).score(&many).unwrap();
    assert_eq!(s0[60].part("format").unwrap().weighted, Some(-0.0));
    assert!((s[60].total + 0.5 - s0[60].total).abs() < 1e-12);
}

#[test]
fn evaluation_only_components_and_bad_weights_are_refused() {
    let refused = |weights: &Weights, twin: bool| -> Error {
        let mut c = components();
        if twin {
            c.push(Box::new(Empathy::evaluate(Box::new(KeywordEmotion), ResponseMap::standard())));
        }
        Composite::new(c, weights, Mode::Running, Purpose::Train).err().unwrap()
    };
    let mut w = preset("balanced").unwrap();
    w.insert("empathy_eval".into(), 1.0);
    assert!(refused(&w, true).to_string().contains("evaluation only"));
    assert!(refused(&w, false).to_string().contains("empathy_eval"));
    let mut w = preset("balanced").unwrap();
    w.insert("bleu".into(), f64::NAN);
    assert!(refused(&w, false).to_string().contains("NaN"));
    w.remove("bleu");
    assert!(refused(&w, false).to_string().contains("bleu"));
    assert!(preset("balance").is_none());
}
