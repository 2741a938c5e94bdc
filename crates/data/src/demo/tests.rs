use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ecr_core::Role;
use ecr_core::seam::EMOTIONS;
use serde_json::Value;

use super::films::{GENRES, MOODS, catalogue, rows, with_titles};
use super::generator::{Kind, MIX, conversation};
use super::raw::{PERIOD, UNKNOWN_ID};
use super::*;
use crate::redial::{Corpus, import_bytes};

const SPLITS: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

#[test]
fn the_catalogue_is_sound() {
    let all = films();
    assert_eq!(all.len(), rows(), "a row does not parse");
    assert!((240..=280).contains(&all.len()), "{}", all.len());
    assert_eq!(all.iter().map(|f| f.id).collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(all.iter().map(Film::name).collect::<BTreeSet<_>>().len(), all.len());
    for f in all {
        assert!((1..=3).contains(&f.genres.len()) && (1..=2).contains(&f.moods.len()), "{}", f.title);
        assert!((1..=2).contains(&f.stars.len()) && (1..=3).contains(&f.fame), "{}", f.title);
        assert!(f.genres.iter().all(|g| GENRES.iter().any(|(k, _)| k == g)), "{}", f.title);
        assert!(f.moods.iter().all(|m| MOODS.contains(m)), "{}", f.title);
        assert!((1920..2025).contains(&f.year) && f.title.len() <= 60 && !f.title.contains('@'));
    }
    for title in ["Up", "Her", "It", "Se7en", "Am\u{e9}lie", "WALL\u{b7}E", "1917", "Airplane!"] {
        assert!(all.iter().any(|f| f.title == title), "{title}");
    }
    for title in ["It", "Dune", "True Grit", "King Kong", "West Side Story"] {
        assert_eq!(all.iter().filter(|f| f.title == title).count(), 2, "{title}");
    }
    // Some id begins with another.
    assert!(all.iter().any(|f| all.iter().any(|g| f.id / 10 == g.id)));
    for (g, _) in GENRES {
        assert!(all.iter().filter(|f| f.genres.contains(&g)).count() >= 10, "{g}");
    }
}

#[test]
fn every_film_is_found_by_its_name() {
    let cat = catalogue();
    for f in films() {
        let text = format!("I would go for {} tonight.", f.name());
        assert_eq!(cat.items(&text), [ecr_core::ItemId(f.id)], "{text}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let lines = write_split(Split::Train, 40, 42);
    assert_eq!(lines[..12], write_split(Split::Train, 12, 42)[..]);
    assert_ne!(lines[0], write_split(Split::Train, 1, 43)[0]);
    let digest = ecr_core::io::sha256(lines.join("\n").as_bytes());
    assert_eq!(digest, GOLDEN, "the demo data changed: say so in the changelog, and every figure of it too");
}
const GOLDEN: &str = "513dbc53f2b992e850d247969470f2115c0c8c4a5d87884a2f3b1dbfa03b08da";

#[test]
fn the_importer_reads_every_line() {
    let mut corpus = Corpus::default();
    for (split, n) in DEFAULT_SIZES {
        let bytes = write_split(split, n, 7).join("\n");
        import_bytes(&mut corpus, split, split.name(), String::new(), bytes.as_bytes()).unwrap();
    }
    for file in &corpus.report.files {
        assert!(file.bad_lines.is_empty(), "{}", file.bad_lines[0]);
    }
    assert_eq!(corpus.dialogues.len(), DEFAULT_SIZES.iter().map(|s| s.1).sum::<usize>());
}

#[test]
fn every_split_has_every_trap() {
    for split in SPLITS {
        let lines = write_split(split, 2 * PERIOD, 3);
        let mut seen = BTreeMap::<&str, usize>::new();
        let mut hit = |name, yes: bool| *seen.entry(name).or_default() += usize::from(yes);
        for line in &lines {
            let v: Value = serde_json::from_str(line).unwrap();
            let list = |k: &str| v[k].is_array();
            hit("no films", list("movieMentions"));
            hit("empty seeker form", list("initiatorQuestions") && !list("movieMentions"));
            hit("empty recommender form", list("respondentQuestions") && !list("movieMentions"));
            let none = serde_json::Map::new();
            let titles = v["movieMentions"].as_object().unwrap_or(&none);
            hit("null title", titles.values().any(Value::is_null));
            hit("double space", titles.values().any(|t| t.as_str().is_some_and(|t| t.contains("  ("))));
            hit("no year", titles.values().any(|t| t.as_str().is_some_and(|t| !t.contains(")"))));
            let messages = v["messages"].as_array().unwrap();
            let who: Vec<u64> = messages.iter().map(|m| m["senderWorkerId"].as_u64().unwrap()).collect();
            hit("same speaker twice", who.windows(2).any(|w| w[0] == w[1]));
            hit("recommender opens", Some(who[0]) == v["respondentWorkerId"].as_u64());
            assert_ne!(v["respondentWorkerId"], v["initiatorWorkerId"]);
            let texts: Vec<&str> = messages.iter().map(|m| m["text"].as_str().unwrap()).collect();
            hit("empty message", texts.iter().any(|t| t.is_empty()));
            hit("entity", texts.iter().any(|t| t.contains("&#39;") || t.contains("&amp;")));
            hit("newline", texts.iter().any(|t| t.contains('\n')));
            hit("non-ASCII", texts.iter().any(|t| t.contains(['\u{2019}', '\u{1F60A}'])));
            let unknown = format!("@{UNKNOWN_ID}");
            hit(
                "unknown id",
                texts.iter().any(|t| t.contains(&unknown)) && !titles.contains_key(&unknown[1..]),
            );
            assert!(texts.iter().all(|t| t.len() <= 400), "{texts:?}");
            // Apart from that trap every @id is in movieMentions, and no slot is left unfilled.
            for t in &texts {
                assert!(!t.contains(['{', '}']), "{t}");
                for part in t.split('@').skip(1) {
                    let id: String = part.chars().take_while(char::is_ascii_digit).collect();
                    assert!(titles.contains_key(&id) || id == UNKNOWN_ID.to_string(), "{t}");
                }
            }
        }
        assert!(seen.values().all(|&n| n > 0), "{} {seen:?}", split.name());
    }
}

#[test]
fn emotions_and_qualities_are_mixed() {
    let mut kinds = [0usize; 3];
    let (mut words, mut replies, mut messages) = (0, 0, 0);
    for (split, n) in DEFAULT_SIZES {
        let mut emotions = [0usize; 9];
        for i in 0..n {
            let c = conversation(split, i, 5);
            messages += c.messages.len();
            for m in &c.messages {
                if let (Role::Seeker, Some(e)) = (m.role, m.emotion) {
                    emotions[e] += 1;
                }
                if let Some(q) = m.quality {
                    assert!((0.0..=1.0).contains(&q.latent()));
                    kinds
                        [[Kind::Good, Kind::Terse, Kind::Poor].iter().position(|&k| k == q.kind).unwrap()] +=
                        1;
                    replies += 1;
                    words += with_titles(&m.text).split(' ').count();
                    let end = m.text.chars().last();
                    assert!(end.is_some_and(|c| ".?!".contains(c)), "{}", m.text);
                }
            }
        }
        assert!(emotions.iter().all(|&n| n >= 5), "{} {emotions:?}", split.name());
    }
    for (k, want) in kinds.iter().zip(MIX) {
        assert!((*k as f64 / replies as f64 - want).abs() < 0.04, "{kinds:?}");
    }
    let per_dialogue = messages as f64 / 840.0;
    assert!((6.0..=10.0).contains(&per_dialogue), "{per_dialogue}");
    let mean = words as f64 / replies as f64;
    assert!((7.0..=20.0).contains(&mean), "{mean}");
}

#[test]
fn films_of_a_conversation_belong_together() {
    let shares = |a: &Film, b: &Film| a.genres.iter().any(|g| b.genres.contains(g));
    let (mut same, mut pairs, mut liked_same, mut liked_pairs) = (0, 0, 0, 0);
    let mut named = Vec::new();
    for i in 0..400 {
        let c = conversation(Split::Train, i, 11);
        for (k, a) in c.named.iter().enumerate() {
            named.push(a.film);
            for b in &c.named[..k] {
                let yes = usize::from(shares(&films()[a.film], &films()[b.film]));
                same += yes;
                pairs += 1;
                if a.liked == 1 && b.liked == 1 {
                    liked_same += yes;
                    liked_pairs += 1;
                }
            }
        }
    }
    let n = named.len();
    let by_chance = (0..n).filter(|&i| shares(&films()[named[i]], &films()[named[(i * 7 + 13) % n]])).count();
    let (chance, together) = (by_chance as f64 / n as f64, same as f64 / pairs as f64);
    let liked = liked_same as f64 / liked_pairs as f64;
    eprintln!("share a genre: by chance {chance:.2}, in a conversation {together:.2}, both liked {liked:.2}");
    assert!(together > chance + 0.2 && liked > 0.95, "{chance} {together} {liked}");
}

#[test]
fn emotion_sets_are_apart_and_learnable_but_not_by_one_word() {
    let train = |s| emotion_set(s, Split::Train, 2000, 1);
    let test = |s| emotion_set(s, Split::Test, 600, 1);
    for s in [LabelSet::A, LabelSet::B] {
        let (tr, te) = (train(s), test(s));
        let by_words = macro_f1(&te, &bayes(&tr, &te));
        let by_one = macro_f1(&te, &best_word(&tr, &te));
        eprintln!("{s:?}: naive Bayes macro-F1 {by_words:.3}, one word a class {by_one:.3}");
        assert!(by_words > 0.75, "{by_words}");
        assert!(by_one < 0.6, "{by_one}");
        assert!(tr.iter().all(|(t, e)| !t.is_empty() && t.len() < 400 && *e < EMOTIONS.len()));
        let known: BTreeSet<&str> = tr.iter().map(|r| r.0.as_str()).collect();
        let repeated = te.iter().filter(|r| known.contains(r.0.as_str())).count();
        assert!(repeated < te.len() / 4, "{repeated} test utterances are in train");
    }
    let cross = macro_f1(&test(LabelSet::B), &bayes(&train(LabelSet::A), &test(LabelSet::B)));
    let own = macro_f1(&test(LabelSet::B), &bayes(&train(LabelSet::B), &test(LabelSet::B)));
    eprintln!("trained on a, tested on b: {cross:.3} (b on b {own:.3})");
    assert!(cross < own - 0.02, "the two sources are not different: {cross} {own}");
}

fn tokens(text: &str) -> Vec<String> {
    let clean: String =
        text.to_lowercase().chars().map(|c| if c.is_alphabetic() { c } else { ' ' }).collect();
    let words: Vec<String> = clean.split_whitespace().map(String::from).collect();
    let pairs: Vec<String> = words.windows(2).map(|w| w.join(" ")).collect();
    words.into_iter().chain(pairs).collect()
}

type Rows = [(String, usize)];

fn bayes(train: &Rows, test: &Rows) -> Vec<usize> {
    let mut n: BTreeMap<String, [f64; 9]> = BTreeMap::new();
    let mut total = [0.0; 9];
    for (text, e) in train {
        for t in tokens(text) {
            n.entry(t).or_default()[*e] += 1.0;
            total[*e] += 1.0;
        }
    }
    let vocabulary = n.len() as f64;
    let score = |text: &str, e: usize| -> f64 {
        tokens(text)
            .iter()
            .filter_map(|t| n.get(t))
            .map(|c| ((c[e] + 0.2) / (total[e] + 0.2 * vocabulary)).ln())
            .sum()
    };
    test.iter().map(|(t, _)| (0..9).max_by(|&a, &b| score(t, a).total_cmp(&score(t, b))).unwrap()).collect()
}

/// The single word that tells most for each class, in order of classes; none of them = neutral.
fn best_word(train: &Rows, test: &Rows) -> Vec<usize> {
    let mut n: BTreeMap<String, [f64; 9]> = BTreeMap::new();
    for (text, e) in train {
        for t in tokens(text).into_iter().filter(|t| !t.contains(' ')).collect::<BTreeSet<_>>() {
            n.entry(t).or_default()[*e] += 1.0;
        }
    }
    let worth = |c: &[f64; 9], e: usize| c[e] - c.iter().sum::<f64>() + c[e];
    let best: Vec<&String> =
        (0..9).map(|e| n.iter().max_by(|a, b| worth(a.1, e).total_cmp(&worth(b.1, e))).unwrap().0).collect();
    test.iter()
        .map(|(t, _)| {
            let ws = tokens(t);
            (0..9).find(|&e| ws.contains(best[e])).unwrap_or(5)
        })
        .collect()
}

fn macro_f1(rows: &Rows, guess: &[usize]) -> f64 {
    let f1 = |e: usize| {
        let count = |f: &dyn Fn(usize, usize) -> bool| {
            rows.iter().zip(guess).filter(|(r, g)| f(r.1, **g)).count() as f64
        };
        let (tp, fp, fn_) = (
            count(&|t, g| t == e && g == e),
            count(&|t, g| t != e && g == e),
            count(&|t, g| t == e && g != e),
        );
        2.0 * tp / (2.0 * tp + fp + fn_).max(1.0)
    };
    (0..9).map(f1).sum::<f64>() / 9.0
}

#[test]
fn ratings_follow_quality_with_noise() {
    let rows = ratings(Split::Train, 300, 9);
    assert!(rows.len() > 600, "{}", rows.len());
    assert!(rows.iter().all(|r| r.source == "demo-simulated" && (1.0..=5.0).contains(&r.satisfaction)));
    assert!(
        rows.iter().all(|r| !r.context.is_empty() && r.context.windows(2).all(|w| w[0].role != w[1].role))
    );
    let n = rows.len() as f64;
    let mean = |f: &dyn Fn(&Rated) -> f64| rows.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(&|r| r.latent), mean(&|r| r.satisfaction));
    let cov = mean(&|r| (r.latent - mx) * (r.satisfaction - my));
    let (vx, vy) = (mean(&|r| (r.latent - mx).powi(2)), mean(&|r| (r.satisfaction - my).powi(2)));
    let corr = cov / (vx * vy).sqrt();
    eprintln!("{} ratings, mean {my:.2}, variance {vy:.2}, correlation with latent {corr:.2}", rows.len());
    assert!((0.7..0.99).contains(&corr), "{corr}");
    assert!(vy > 0.4);
    let row = crate::critic_rows::CriticRow::from(&rows[0]);
    assert_eq!(row.scores["overall"].source, "demo-simulated");
    let written: BTreeSet<u32> = (0..300).map(|i| conversation(Split::Train, i, 9).id).collect();
    assert!(rows.iter().all(|r| !written.contains(&r.conversation_id)));
}

#[test]
fn it_is_fast() {
    let start = Instant::now();
    let n = write_split(Split::Train, 2000, 1).len();
    let rate = n as f64 / start.elapsed().as_secs_f64();
    eprintln!("{rate:.0} conversations a second");
    assert!(rate > 1000.0, "{rate}");
}

#[test]
fn a_sample_can_be_read() {
    for seed in 0..10 {
        let text = sample_dialogue(seed);
        eprintln!("{text}");
        assert!(text.contains("Seeker:") && text.contains("Recommender:") && !text.contains('@'));
    }
}
