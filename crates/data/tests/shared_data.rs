//! Against the real data in `shared/data` beside the checkout; skipped aloud where it is absent.

use std::path::PathBuf;

use ecr_data::catalogue::Catalogue;
use ecr_data::emotion_labels::{empathetic, goemotions, histogram, intents, missing};
use ecr_data::recommend::recall::{recall, targets};
use ecr_data::recommend::{Cooccurrence, Interactions};
use ecr_data::redial::{Corpus, Counts, ImportOptions, Split, import};
use ecr_data::satisfaction::{self, TextIndex};

/// A file of the shared data, or `None` with the reason printed.
fn shared(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = root.join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn redial(split: Split) -> Option<Corpus> {
    let path = shared(&format!("redial/{}_data.jsonl.gz", split.name()))?;
    Some(import(&[(split, path)], ImportOptions { max_bad_lines: 0 }).expect("import"))
}

#[test]
fn counts_of_train_equal_the_published_ones() {
    let Some(c) = redial(Split::Train) else { return };
    let want = Counts {
        dialogues: 3600,
        messages: 65_398,
        recommender_messages: 32_324,
        recommending_messages: 12_390,
        mentions: 23_076,
        unknown_mentions: 0,
        distinct_movies: 3_805,
        words: 428_771,
        seeker_form_lists: 34,
        recommender_form_lists: 34,
        mention_lists: 0,
        same_speaker_messages: 20_970,
        recommender_opens: 2_325,
        empty_messages: 20,
        html_messages: 165,
        non_ascii_messages: 105,
        newline_messages: 49,
        titles: 18_893,
        double_space_titles: 8_718,
        titles_without_year: 1_153,
        null_titles: 0,
    };
    assert_eq!(c.report.files[0].counts, want);
    assert_eq!(c.dialogues.len(), 3600);
    for d in &c.dialogues {
        assert!(d.turns.windows(2).all(|w| w[0].role != w[1].role), "dialogue {}: speakers alternate", d.id);
        for t in &d.turns {
            assert!(!t.text.contains("  ") && !t.text.contains('\n') && t.text.trim() == t.text);
            assert!(!t.text.contains("&quot;") && !t.text.contains("&amp;"));
            assert_eq!(t.slots.matches("<movie>").count(), t.mentions.len());
            for m in &t.mentions {
                assert_eq!(&t.text[m.start..m.end], d.titles[&m.item], "dialogue {}", d.id);
            }
        }
    }
    // Catalogue names are found again in the texts that they were filled into.
    let catalogue = Catalogue::new(c.movies(Split::Train));
    let (mut found, mut all) = (0, 0);
    for d in &c.dialogues {
        for t in d.turns.iter().filter(|t| !t.mentions.is_empty()) {
            let got = catalogue.mentions(&t.text);
            all += t.mentions.len();
            found += t
                .mentions
                .iter()
                .filter(|m| {
                    got.iter().any(|g| {
                        g.start <= m.start && g.end >= m.end && g.item == catalogue.canonical(m.item)
                    })
                })
                .count();
        }
    }
    eprintln!("mentions found again in their texts: {found} of {all}");
    assert_eq!(all, 23_076);
    assert!(found as f64 >= 0.985 * f64::from(all as u32), "{found} of {all}");
}

#[test]
fn no_split_leaks_into_another() {
    let files = [Split::Train, Split::Valid, Split::Test]
        .map(|s| shared(&format!("redial/{}_data.jsonl.gz", s.name())).map(|p| (s, p)));
    let Some(files) = files.into_iter().collect::<Option<Vec<_>>>() else { return };
    let c = import(&files, ImportOptions { max_bad_lines: 0 }).expect("no conversation is in two splits");
    assert_eq!(c.dialogues.len(), 3_600 + 501 + 895);
}

#[test]
fn counts_of_valid_and_test_equal_the_published_ones() {
    let Some(c) = redial(Split::Valid) else { return };
    let n = &c.report.files[0].counts;
    assert_eq!((n.dialogues, n.messages, n.recommending_messages), (501, 9_245, 1_699));
    assert_eq!((n.null_titles, n.unknown_mentions), (1, 1));
    let left = c.dialogues.iter().flat_map(|d| &d.turns).filter(|t| {
        t.text.match_indices('@').any(|(i, _)| t.text[i + 1..].starts_with(|c: char| c.is_ascii_digit()))
    });
    let left: Vec<_> = left.collect();
    assert!(!left.is_empty() && left.len() <= 2, "unknown ids stay in the text: {left:?}");
    let Some(c) = redial(Split::Test) else { return };
    let n = &c.report.files[0].counts;
    assert_eq!((n.dialogues, n.messages, n.recommending_messages, n.mentions), (895, 16_132, 2_811, 5_689));
    assert!(c.dialogues.iter().all(|d| d.id >= 20_001));
}

#[test]
fn recall_of_cooccurrence_is_reproduced() {
    let (Some(valid), Some(test), Some(path)) =
        (redial(Split::Valid), redial(Split::Test), shared("redial/train_interactions.jsonl.gz"))
    else {
        return;
    };
    let data = Interactions::read(&path, Split::Train).expect("interactions");
    let model = Cooccurrence::new(&data);
    let targets = targets(test.split(Split::Test));
    assert_eq!(targets.len(), 2_997);
    assert_eq!(targets.iter().filter(|t| model.count(t.item) == 0).count(), 277);
    let r = recall(&model, &targets, &[1, 10, 50]);
    let p = recall(&model.popularity(), &targets, &[1, 10, 50]);
    eprintln!("co-occurrence {:?}, popularity {:?}", r.at, p.at);
    let on_valid = ecr_data::recommend::recall::targets(valid.split(Split::Valid));
    let (plain, tuned) =
        (recall(&model, &on_valid, &[10]), recall(&Cooccurrence::tuned(&data), &on_valid, &[10]));
    assert!(tuned.get(10) > plain.get(10), "chosen on valid: {tuned:?} {plain:?}");
    for (got, want) in r.at.iter().zip([0.037, 0.139, 0.293]).chain(p.at.iter().zip([0.015, 0.062, 0.164])) {
        assert!((got.1 - want).abs() <= 0.0006, "Recall@{}: {} for {want}", got.0, got.1);
    }
}

#[test]
fn mentions_find_the_films_of_test_in_the_whole_catalogue() {
    let (Some(test), Some(path)) = (redial(Split::Test), shared("kg/movies.jsonl.gz")) else { return };
    let catalogue = Catalogue::read(&path).expect("catalogue");
    assert_eq!(catalogue.len(), 6_924);
    let (mut all, mut found, mut extra, mut unknown) = (0u32, 0u32, 0, 0);
    for t in test.dialogues.iter().flat_map(|d| &d.turns) {
        let got = catalogue.mentions(&t.text);
        let same = |m: &&ecr_data::redial::Mentioned| {
            got.iter().any(|g| g.start <= m.start && g.end >= m.end && g.item == catalogue.canonical(m.item))
        };
        all += t.mentions.len() as u32;
        found += t.mentions.iter().filter(same).count() as u32;
        extra +=
            got.iter().filter(|g| !t.mentions.iter().any(|m| g.start < m.end && m.start < g.end)).count();
        unknown += catalogue.unknown_titles(&t.text).len();
    }
    eprintln!("mentions on ReDial test: {found} of {all} found, {extra} more, {unknown} unknown titles");
    assert!(f64::from(found) >= 0.99 * f64::from(all) && extra <= 300 && unknown <= 5);
}

#[test]
fn every_label_of_the_data_has_a_place() {
    let read = |name: &str, split| shared(&format!("empathy/{name}_{}.jsonl.gz", Split::name(split)));
    for split in [Split::Train, Split::Valid, Split::Test] {
        let (Some(g), Some(e)) = (read("goemotions", split), read("empathetic_dialogues", split)) else {
            return;
        };
        let g = goemotions(&g, split).expect("goemotions");
        let e = empathetic(&e, split).expect("empathetic");
        let n = [43_410, 5_426, 5_427][split as usize];
        assert_eq!(g.len(), n);
        assert_eq!(missing(&g), ["nostalgia", "agreement"]);
        assert!(missing(&e).is_empty());
        assert!(g.iter().chain(&e).all(|t| (t.target.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        eprintln!("{} goemotions {:?}", split.name(), histogram(&g));
        eprintln!("{} empathetic {} {:?}", split.name(), e.len(), histogram(&e));
    }
    for name in ["listener_intents_manual", "listener_intents_extended"] {
        let Some(path) = shared(&format!("empathy/{name}.jsonl.gz")) else { return };
        let rows = intents(&path, Split::Train).expect("intents");
        assert!(rows.len() > 400);
    }
}

#[test]
fn satisfaction_leaves_out_held_out_dialogues() {
    let (Some(train), Some(valid), Some(test), Some(path)) = (
        redial(Split::Train),
        redial(Split::Valid),
        redial(Split::Test),
        shared("redial/satisfaction_uss.jsonl.gz"),
    ) else {
        return;
    };
    let held_out = TextIndex::new(valid.dialogues.iter().chain(&test.dialogues));
    let s = satisfaction::read(&path, &held_out, &TextIndex::new(&train.dialogues)).expect("satisfaction");
    eprintln!(
        "USS: {} dialogues, {} dropped, {} known in train, {} rated replies, {} seeker turns without a reply before",
        s.dialogues,
        s.dropped,
        s.in_train,
        s.replies.len(),
        s.without_reply
    );
    assert_eq!(s.dialogues, 996);
    assert_eq!(s.dropped, 55);
    assert!(s.replies.iter().all(|r| (0.0..=1.0).contains(&r.score) && !r.reply.is_empty()));
    let all = satisfaction::read(&path, &TextIndex::new([]), &TextIndex::new([])).expect("satisfaction");
    assert_eq!(all.dropped, 0);
    // The index finds dialogues whose texts are known to be there, and a stranger is not found.
    let d = &test.dialogues[0];
    let plain = |t: &&ecr_data::redial::Turn| t.mentions.is_empty();
    let texts: Vec<&str> = (d.turns.iter().filter(plain))
        .flat_map(|t| t.messages.iter().map(|m| &t.text[m.start..m.end]))
        .collect();
    assert_eq!(held_out.find(texts), Some(d.id));
    assert_eq!(
        held_out.find(["a sentence that nobody in the data has ever said", "nor this one, surely, not this"]),
        None
    );
}

#[test]
fn aspects_know_which_dialogue_they_are() {
    let (Some(train), Some(valid), Some(test), Some(path), Some(uss)) = (
        redial(Split::Train),
        redial(Split::Valid),
        redial(Split::Test),
        shared("redial/aspects_abredial_turns.jsonl.gz"),
        shared("redial/satisfaction_uss.jsonl.gz"),
    ) else {
        return;
    };
    let held_out = TextIndex::new(valid.dialogues.iter().chain(&test.dialogues));
    let (train, uss) = (TextIndex::new(&train.dialogues), TextIndex::of_uss(&uss).expect("USS"));
    let known = |texts: &[String]| {
        let texts = || texts.iter().map(String::as_str);
        let named = |prefix: &str, id: Option<u32>| id.map(|id| format!("{prefix}:{id}"));
        named("redial", train.find(texts())).or_else(|| named("uss", uss.find(texts())))
    };
    let a = ecr_data::aspects::read(&path, &held_out, &known).expect("aspects");
    let of = |p: &str| a.replies.iter().filter(|r| r.conv_id.starts_with(p)).count();
    eprintln!(
        "AB-ReDial: {} replies, {} lines malformed, {} dropped; replies of ReDial train {}, of USS {}, of neither {}",
        a.replies.len(),
        a.malformed,
        a.dropped,
        of("redial:"),
        of("uss:"),
        of("abredial:")
    );
    assert_eq!(a.malformed, 19);
    assert!(a.dropped > 0 && a.replies.len() > 400);
    let labels = a.replies.iter().flat_map(|r| [r.relevance, r.interestingness, r.overall]).flatten();
    assert!(labels.clone().all(|x| (0.0..=1.0).contains(&x)) && labels.count() > 1200);
    assert!(a.replies.iter().all(|r| r.context.len() % 4 == 2 && !r.reply.is_empty()));
}
