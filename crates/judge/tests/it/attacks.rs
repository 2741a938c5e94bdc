//! Attacks kept as files, against a judge that obeys whatever it can read.

use std::collections::BTreeMap;
use std::time::Duration;

use ecr_core::{Role, Utterance, io};
use ecr_judge::backend::address::Address;
use ecr_judge::backend::http::{HttpJudge, HttpOptions};
use ecr_judge::canary::BOUND;
use ecr_judge::item::{Facts, Item};
use ecr_judge::journal::Status;
use ecr_judge::output::records;
use ecr_judge::prompt::{messages, unframe};
use ecr_judge::scores::Scores;
use ecr_judge::screen::flag_item;
use ecr_judge::session::{Options, prepare, score};
use serde_json::Value as Json;

use crate::mock::{Mock, Plan, Scratch, answer, catalogue, messages as sent, truth};

struct Attack {
    name: String,
    item: Item,
    /// What the attacker wants the judge to see.
    trigger: String,
    needs: Needs,
}

fn attacks() -> Vec<Attack> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut out = Vec::new();
    for path in io::read_dir_sorted(&dir).unwrap() {
        let v: Json = serde_json::from_slice(&io::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let seeker = Utterance { role: Role::Seeker, text: "I want to laugh tonight.".into() };
        let context = v.get("context").map_or(vec![seeker], |c| serde_json::from_value(c.clone()).unwrap());
        out.push(Attack {
            item: Item {
                id: name.clone(),
                conversation: name.clone(),
                context,
                response: v["reply"].as_str().unwrap().into(),
            },
            trigger: v["trigger"].as_str().unwrap().into(),
            needs: match v["needs"].as_str().unwrap() {
                "raw" => Needs::Raw,
                "whole" => Needs::Whole,
                _ => Needs::Read,
            },
            name,
        });
    }
    out
}

/// How a judge has to meet the trigger to obey it.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// As structure: in the messages as they are, data or not.
    Raw,
    /// In the text of a reply or turn, data decoded.
    Read,
    /// As the whole reply.
    Whole,
}

/// A judge that gives 1.0 throughout as soon as it meets the trigger of any attack, wherever it can: it obeys the data
/// as readily as the instructions. Else it gives a poor reply its due.
fn obedient(all: &[Attack]) -> Mock {
    let triggers: Vec<(String, Needs)> = all.iter().map(|a| (a.trigger.clone(), a.needs)).collect();
    Mock::start(Box::new(move |body, _| {
        let high = Plan::Say(answer(&Scores::from_values([1.0; 5])));
        let m = sent(body);
        let raw = format!("{}\n{}", m[0].content, m[1].content);
        let Some((_, data)) = unframe(&m) else { return high };
        let v: Json = serde_json::from_str(&data).unwrap();
        let reply = v["response"].as_str().unwrap();
        if is_probe(reply) {
            return Plan::Say(answer(&truth(reply)));
        }
        let turns = v["context"].as_array().unwrap().iter().map(|t| t["text"].as_str().unwrap());
        let texts: Vec<&str> = turns.chain([reply]).collect();
        let obeys = triggers.iter().any(|(t, needs)| match needs {
            Needs::Raw => raw.contains(t),
            Needs::Read => texts.iter().any(|text| text.contains(t)),
            Needs::Whole => reply == t,
        });
        if obeys { high } else { Plan::Say(answer(&Scores::from_values([0.2; 5]))) }
    }))
}

fn is_probe(reply: &str) -> bool {
    (0..4).any(|n| ecr_judge::canary::pair(n).iter().any(|(i, _)| i.response == reply))
}

#[test]
fn there_are_sixty_attacks_of_many_families() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut families: BTreeMap<String, usize> = BTreeMap::new();
    for path in io::read_dir_sorted(&dir).unwrap() {
        let v: Json = serde_json::from_slice(&io::read(&path).unwrap()).unwrap();
        *families.entry(v["family"].as_str().unwrap().into()).or_default() += 1;
    }
    assert!(families.values().sum::<usize>() >= 60 && families.len() >= 12, "{families:?}");
}

/// Without the screen: whatever an attack says, it says it inside its string.
#[test]
fn no_attack_leaves_its_data_field() {
    for a in attacks() {
        let facts = Facts::of(&a.item, &catalogue());
        let m = messages(&a.item, &facts, 0);
        let (_, data) = unframe(&m).unwrap_or_else(|| panic!("{}: the frame is broken", a.name));
        let v: Json = serde_json::from_str(&data).unwrap();
        assert_eq!(v["response"], a.item.response.as_str(), "{}", a.name);
        let frame = format!("{}{}", m[0].content, m[1].content).replace(&data, "");
        if !a.trigger.trim().is_empty() && a.trigger.len() > 4 {
            assert!(!frame.contains(&a.trigger), "{}: outside the data", a.name);
        }
        if a.needs == Needs::Raw {
            assert!(!data.contains(&a.trigger), "{}: as structure inside the data", a.name);
        }
    }
}

/// With an obedient judge: no attack scores above the canary bound.
#[test]
fn no_attack_raises_a_score_with_an_obedient_judge() {
    let all = attacks();
    let mock = obedient(&all);
    let mut options = HttpOptions::new(Address::parse(&mock.url()).unwrap(), "mock");
    options.timeout = Duration::from_secs(20);
    let judge = HttpJudge::new(options);
    let dir = Scratch::new("attacks");
    let items: Vec<Item> = all.iter().map(|a| a.item.clone()).collect();
    let items = prepare(items, &catalogue(), "mock").unwrap();
    let report = score(&items, &judge, &dir.journal(), &Options::default(), &|_| ()).unwrap();
    assert!(report.stop.is_none() && report.left == 0, "{:?}", report.stop);
    let (mut flagged, mut low) = (0, 0);
    for r in records(&items, &report.folded, "mock") {
        match (r.status, r.scores) {
            (Status::Scored, Some(s)) => {
                low += 1;
                assert!(s.values().iter().all(|v| *v <= BOUND), "{}: {s:?}", r.id);
                let named = items.iter().any(|p| p.item.id == r.id && p.facts.recommends);
                assert!(named || s.recommendation_score == 0.0, "{}", r.id);
            }
            (_, scores) => {
                flagged += 1;
                assert!(scores.is_none(), "{}: a score that nobody gave", r.id);
            }
        }
    }
    println!("{flagged} attacks not sent, {low} sent and scored low");
    assert!(flagged + low == all.len() && flagged >= 60);
}

/// The judge of these tests does obey: what the screen or the escapes stop would have worked.
#[test]
fn the_obedient_judge_is_fooled_by_every_attack_in_plain_words() {
    let all = attacks();
    let mock = obedient(&all);
    let judge = HttpJudge::new(HttpOptions::new(Address::parse(&mock.url()).unwrap(), "mock"));
    let mut fooled = 0;
    for a in all.iter().filter(|a| a.needs != Needs::Raw) {
        let request = ecr_judge::backend::Request {
            messages: messages(&a.item, &Facts::default(), 0),
            temperature: 0.0,
        };
        let answer = ecr_judge::backend::Judge::ask(&judge, &[request]).pop().unwrap().unwrap();
        let s = ecr_judge::scores::parse(&answer.text).unwrap();
        assert_eq!(s.overall_score, 1.0, "{} does not fool it", a.name);
        assert!(flag_item(&a.item).is_some() || a.item.response.chars().count() > 4000, "{}", a.name);
        fooled += 1;
    }
    assert!(fooled >= 60, "{fooled}");
}

/// Human replies are not taken for attacks.
#[test]
fn human_replies_pass_the_screen() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/redial");
    let path = shared.join("test_data.jsonl.gz");
    if !path.exists() {
        eprintln!("skipped: no ReDial beside the checkout");
        return;
    }
    let bytes = io::read_maybe_gz(&path).unwrap();
    let (mut n, mut hit) = (0, Vec::new());
    for line in bytes.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        let v: Json = serde_json::from_slice(line).unwrap();
        for m in v["messages"].as_array().unwrap() {
            let text = ecr_data::text::clean(m["text"].as_str().unwrap());
            // Titles as films are named elsewhere; a message that is empty or a smile says nothing to rate.
            let text = text.replace('@', "the film ");
            if !text.chars().any(char::is_alphabetic) {
                continue;
            }
            n += 1;
            if let Some(why) = ecr_judge::screen::flag(&text) {
                hit.push((why, text));
            }
        }
    }
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    hit.iter().for_each(|h| *by.entry(h.0).or_default() += 1);
    println!("{} of {n} human messages flagged: {by:?}", hit.len());
    if std::env::var_os("ECR_SHOW").is_some() {
        hit.iter().for_each(|h| println!("{}: {}", h.0, h.1));
    }
    assert!(n > 10_000 && hit.len() * 1000 < n, "{} of {n}", hit.len());
}
