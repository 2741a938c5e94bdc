//! The traps of raw ReDial, one by one, on dialogues written for it.

use ecr_core::{ItemId, Kind, Role, Stream};
use ecr_data::catalogue::{Catalogue, Movie};
use ecr_data::degradations::{Degradation, degrade};
use ecr_data::prepare::prepare;
use ecr_data::recommend::recall::{recall, targets};
use ecr_data::recommend::{Cooccurrence, Interactions};
use ecr_data::records::{
    Manifest, RecordOptions, SLOT, examples, fill_slots, mask_slots, read_jsonl, records, to_jsonl,
    utterances,
};
use ecr_data::redial::{Corpus, Dialogue, ImportOptions, Split, check_limit, import, import_bytes};

fn read(lines: &str) -> Corpus {
    let mut c = Corpus::default();
    import_bytes(&mut c, Split::Train, "own.jsonl", String::new(), lines.as_bytes()).expect("import");
    c
}

fn line(id: &str, mentions: &str, seeker: &str, recommender: &str, messages: &[(u32, &str)]) -> String {
    let messages: Vec<_> = messages
        .iter()
        .enumerate()
        .map(|(i, (who, text))| {
            serde_json::json!({"messageId": i, "timeOffset": i, "senderWorkerId": who, "text": text})
        })
        .collect();
    format!(
        "{{\"conversationId\":{id},\"initiatorWorkerId\":1,\"respondentWorkerId\":2,\"movieMentions\":{mentions},\
         \"initiatorQuestions\":{seeker},\"respondentQuestions\":{recommender},\"messages\":{}}}\n",
        serde_json::Value::from(messages)
    )
}

fn trapped() -> Dialogue {
    let mentions = r#"{"12":"Heat  (1995)","123":"Up (2009) ","7":null,"9":"Star Wars"}"#;
    let seeker = r#"{"12":{"suggested":1,"seen":0,"liked":0},"123":{"suggested":1,"seen":2,"liked":2}}"#;
    let recommender = r#"{"12":{"suggested":1,"seen":1,"liked":1},"9":{"suggested":0,"seen":1,"liked":1}}"#;
    let messages = [
        (2, "Hi &amp; welcome\n\nyou  two"),
        (2, ""),
        (2, "I say @12 , or @123!"),
        (1, "no @12; @9x and @555 &lt;3 caf\u{e9}"),
        (2, "ok @7? then @9, @12 or mail me@home"),
    ];
    read(&line("\"41\"", mentions, seeker, recommender, &messages)).dialogues.remove(0)
}

#[test]
fn texts_titles_and_likes_come_out_right() {
    let d = trapped();
    assert_eq!(d.id, 41);
    let texts: Vec<_> = d.turns.iter().map(|t| (t.role, t.text.as_str())).collect();
    assert_eq!(
        texts,
        [
            (Role::Recommender, "Hi & welcome you two I say Heat (1995) , or Up (2009)!"),
            (Role::Seeker, "no Heat (1995); Star Wars x and @555 <3 caf\u{e9}"),
            (Role::Recommender, "ok @7? then Star Wars, Heat (1995) or mail me@home"),
        ]
    );
    assert_eq!(d.turns[0].slots, "Hi & welcome you two I say <movie> , or <movie>!");
    assert_eq!(d.turns[0].messages.len(), 2, "the empty message is left out");
    let m: Vec<_> = d.turns[2].mentions.iter().map(|m| (m.item.0, m.first_time)).collect();
    assert_eq!(m, [(7, true), (9, false), (12, false)]);
    let heat = d.like(ItemId(12));
    assert_eq!((heat.liked_by_seeker, heat.liked_by_recommender), (Some(false), Some(true)));
    assert_eq!((heat.seen, heat.suggested), (Some(false), Some(true)));
    assert_eq!(d.like(ItemId(123)).liked_by_seeker, None);
    assert_eq!(d.like(ItemId(9)).liked_by_recommender, Some(true));
}

#[test]
fn forms_and_mentions_may_be_lists_and_ids_numbers() {
    let c = read(&line("7", "[]", "[]", "[]", &[(1, "hello"), (2, "hello you")]));
    let n = &c.report.files[0].counts;
    assert_eq!((n.mention_lists, n.seeker_form_lists, n.recommender_form_lists), (1, 1, 1));
    assert_eq!(c.dialogues[0].id, 7);
}

#[test]
fn bad_lines_are_kept_with_their_place_and_limited() {
    let good = line("\"1\"", "{}", "{}", "{}", &[(1, "hi"), (2, "hello")]);
    let bad = [
        ("{oops", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{\"conversationId\":\"x\"}", "conversationId"),
        (&line("2", "{\"a\":\"T\"}", "[]", "[]", &[(1, "x")]), "is not a movie id"),
        (&line("3", "{}", "{\"4\":{\"liked\":7}}", "[]", &[(1, "x")]), "not 0, 1 or 2"),
        (&line("4", "{}", "[1]", "[]", &[(1, "x")]), "neither a map nor an empty list"),
        (&line("5", "{}", "[]", "[]", &[(3, "x")]), "neither speaker"),
        (&line("6", "{}", "[]", "[]", &[(1, " ")]), "no message with text"),
        (&line("1", "{}", "[]", "[]", &[(1, "again")]), "was read before"),
    ];
    let mut text = good.clone();
    for (l, _) in &bad {
        text.push_str(l.trim_end());
        text.push('\n');
    }
    let c = read(&text);
    assert_eq!(c.dialogues.len(), 1);
    let seen: Vec<_> = c.report.bad_lines().collect();
    assert_eq!(seen.len(), bad.len());
    for (i, (b, (_, why))) in seen.iter().zip(&bad).enumerate() {
        assert_eq!((b.file.as_str(), b.line), ("own.jsonl", i + 2));
        assert!(b.reason.contains(why), "{b} for {why}");
    }
    assert!(check_limit(&c.report, ImportOptions { max_bad_lines: 9 }).is_ok());
    let e = check_limit(&c.report, ImportOptions { max_bad_lines: 8 }).expect_err("over the limit");
    assert_eq!((e.kind, e.exit_code()), (Kind::Data, 3));
    assert!(e.to_string().contains("own.jsonl:2: not JSON"), "{e}");
    let mut none = Corpus::default();
    for nothing in ["", "\n\n", "garbage\n"] {
        let r = import_bytes(&mut none, Split::Train, "own.jsonl", String::new(), nothing.as_bytes());
        assert_eq!(r.expect_err("no usable dialogue").kind, Kind::Data);
    }
    let e = import(&[(Split::Train, "no/such/file.jsonl".into())], ImportOptions::default());
    assert_eq!(e.expect_err("missing file").kind, Kind::Io);
}

#[test]
fn a_line_cut_or_changed_anywhere_never_panics() {
    let good =
        line("\"41\"", r#"{"12":"Heat  (1995)","7":null}"#, "[]", "{}", &[(1, "@12 &amp; caf\u{e9} <b>@7")]);
    for i in 0..good.len() {
        for change in [None, Some(b'"'), Some(b'9'), Some(b'{'), Some(0xff)] {
            let mut bytes = good.clone().into_bytes();
            match change {
                None => bytes.truncate(i),
                Some(b) => bytes[i] = b,
            }
            let mut c = Corpus::default();
            let _ = import_bytes(&mut c, Split::Train, "own.jsonl", String::new(), &bytes);
        }
    }
}

#[test]
fn examples_carry_labels_history_and_rejections() {
    let e = examples(&trapped());
    assert_eq!(e.len(), 2);
    assert!(e[0].context.is_empty() && e[0].recommending && e[0].mentioned.is_empty());
    let labels: Vec<_> = e[0].labels.iter().map(|l| (l.item.0, l.liked)).collect();
    assert_eq!(labels, [(12, Some(false)), (123, None)]);
    assert_eq!(e[1].mentioned, [ItemId(12), ItemId(123), ItemId(9)]);
    assert_eq!(e[1].rejected, [ItemId(12)]);
    assert_eq!(e[1].labels.iter().map(|l| l.item.0).collect::<Vec<_>>(), [7]);
    assert_eq!(utterances(&trapped()).len(), 3);
    let bytes = to_jsonl(&e).expect("write");
    assert_eq!(bytes.iter().filter(|&&b| b == b'\n').count(), 2);
    let dir = std::env::temp_dir().join(format!("ecr-data-{}", std::process::id()));
    let path = dir.join("examples.jsonl");
    ecr_core::io::atomic_write(&path, &bytes).expect("write");
    assert_eq!(read_jsonl::<ecr_data::records::Example>(&path).expect("read"), e);
    #[allow(clippy::disallowed_methods)]
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn records_have_ecr_fields_and_aligned_lists() {
    let d = trapped();
    let catalogue =
        Catalogue::new(vec![Movie { entity_id: Some(5), ..Movie::from_name(ItemId(12), "Heat (1995)") }]);
    let mut p = [[0.0f32; 9]; 3];
    p[1] = [0.05, 0.3, 0.0, 0.0, 0.6, 0.05, 0.0, 0.0, 0.0];
    let r = records(&d, &catalogue, Some(&p), RecordOptions { slots: true });
    assert_eq!(r.len(), 2);
    assert_eq!(r[0].context, [""], "an even index is the seeker");
    assert_eq!(r[0].resp, "Hi & welcome you two I say <movie> , or <movie>!");
    assert_eq!(r[0].rec, [ItemId(12), ItemId(123)]);
    assert_eq!((&r[0].rec_entity[..], &r[0].sentiment_loss[..]), (&[Some(5), None][..], &[-1, 0][..]));
    assert_eq!(
        (&r[0].rec_weight[..], &r[0].rec_weight_w[..]),
        (&["negative".to_string(), "curious".into()][..], &[0.6, 0.3][..])
    );
    assert!(r[0].emotion_lastest.is_empty() && r[0].entity.is_empty());
    assert_eq!(r[1].context.len(), 3);
    assert_eq!(r[1].mentioned_before, [false, true, true]);
    assert_eq!(r[1].entity.len(), 4);
    assert_eq!(r[1].emotion_entity.len(), 4);
    assert_eq!(
        r[1].emotion_entity[0],
        ["negative", "curious"],
        "a recommender turn has the next seeker's emotions"
    );
    assert_eq!(r[1].emotion_lastest, ["negative", "curious"]);
    assert_eq!((&r[1].rec_weight[..], &r[1].rec_weight_w[..]), (&["neutral".to_string()][..], &[1.0][..]));
    let json = serde_json::to_value(&r[1]).expect("json");
    for field in [
        "context",
        "resp",
        "rec",
        "entity",
        "role",
        "sentiment_loss",
        "conv_id",
        "turn_idx",
        "mentioned_before",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["role"], "recommender");
}

#[test]
fn preparation_is_deterministic_and_hashed() {
    let c =
        read(&line("5", r#"{"12":"Heat (1995)"}"#, "{}", "{}", &[(1, "a thriller please"), (2, "see @12")]));
    let catalogue = Catalogue::new(c.movies(Split::Train));
    let files = prepare(&c, &catalogue, RecordOptions::default(), &|_| None).expect("prepare");
    assert_eq!(files, prepare(&c, &catalogue, RecordOptions::default(), &|_| None).expect("prepare"));
    let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "train_data_processed.jsonl",
            "train_examples.jsonl",
            "train_dialogues.jsonl",
            "catalogue.jsonl",
            "import_report.json",
            "manifest.json"
        ]
    );
    let m: Manifest = serde_json::from_slice(&files[5].bytes).expect("manifest");
    assert_eq!(m.records["train"], 1);
    assert_eq!(m.outputs["train_examples.jsonl"], ecr_core::io::sha256(&files[1].bytes));
    assert_eq!(m.inputs, c.report);
}

#[test]
fn slots_are_filled_and_masked() {
    assert_eq!(fill_slots("see <movie> or <movie>.", &["A (1990)"]), format!("see A (1990) or {SLOT}."));
    let c = Catalogue::new(vec![Movie::from_name(ItemId(3), "Heat (1995)")]);
    assert_eq!(mask_slots("see Heat (1995) now", &c), ("see <movie> now".to_string(), vec![ItemId(3)]));
}

#[test]
fn recommenders_never_repeat_and_back_off_to_popularity() {
    use ecr_core::seam::{Query, Recommender};
    let d = |items: &[u32]| items.iter().map(|&i| (ItemId(i), None)).collect();
    let data =
        Interactions { dialogues: vec![d(&[1, 2]), d(&[1, 2]), d(&[1, 3]), d(&[4]), d(&[4]), d(&[5, 4])] };
    let m = Cooccurrence::new(&data);
    let ids = |q: &[u32], k| {
        let mentioned: Vec<ItemId> = q.iter().map(|&i| ItemId(i)).collect();
        let r = m.rank(Query { mentioned: &mentioned, ..Query::default() }, k);
        assert!(r.windows(2).all(|w| w[0].1 >= w[1].1), "best first: {r:?}");
        r.iter().map(|x| x.0.0).collect::<Vec<_>>()
    };
    // c(1,2)/sqrt(n2) = 2/sqrt 2 > c(1,3)/sqrt(n3) = 1; then by popularity.
    assert_eq!(ids(&[1], 9), [2, 3, 4, 5]);
    assert_eq!(ids(&[], 3), [1, 4, 2]);
    assert_eq!(ids(&[99], 1), [1]);
    let t = targets(&[trapped()]);
    let named: Vec<_> = t.iter().map(|t| (t.item.0, t.mentioned.len())).collect();
    assert_eq!(named, [(12, 0), (123, 0), (7, 3)]);
    assert_eq!(recall(&m, &t, &[1]).get(1), Some(0.0));
    assert_eq!(recall(&m, &[], &[1]).targets, 0);
}

#[test]
fn degradations_keep_the_example() {
    let e = examples(&trapped());
    let d = degrade(&e, &Degradation::ALL, &|_| None, Stream::new(3));
    assert!(d.iter().filter(|d| d.level == 0).all(|d| e.iter().any(|e| d.reply.ends_with(&e.reply))));
}
