//! Budgets, resuming, addresses, keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ecr_judge::backend::address::Address;
use ecr_judge::backend::http::{Constraint, HttpJudge, HttpOptions};
use ecr_judge::backend::secret::Secret;
use ecr_judge::budget::{Budget, Prices};
use ecr_judge::journal::Status;
use ecr_judge::output::records;
use ecr_judge::session::{Options, Stop, estimate, prepare, score};

use crate::faults::{judge, quick};
use crate::mock::{Mock, Plan, Scratch, answer, catalogue, items, response, response_of, truth};

fn honest() -> Mock {
    Mock::start(Box::new(|body, _| Plan::Say(answer(&truth(&response_of(body))))))
}

fn plain() -> Options {
    Options { canaries: false, ..quick() }
}

#[test]
fn a_budget_of_calls_is_kept_and_the_next_run_goes_on() {
    let mock = honest();
    let dir = Scratch::new("budget");
    let items = prepare(items(100), &catalogue(), "mock").unwrap();
    let e = estimate(&items, &dir.journal(), &quick(), 2.0).unwrap();
    assert_eq!((e.items, e.calls, e.calls_most), (100, 102, 157));
    assert!((e.seconds - 102.0 * 2.0 / 8.0).abs() < 1e-9);
    let with =
        |requests| Options { budget: Budget { requests: Some(requests), ..Budget::default() }, ..plain() };
    for (most, ends) in [(30, 30), (30, 30), (75, 75), (1000, 100)] {
        let r = score(&items, &judge(&mock, 5000), &dir.journal(), &with(most), &|_| ()).unwrap();
        assert_eq!(r.folded.ends.len(), ends);
        assert_eq!(mock.count(), ends as u64);
        assert_eq!(matches!(r.stop, Some(Stop::Budget("requests"))), ends < 100);
        assert_eq!(r.left, 100 - ends);
    }
    assert_eq!(estimate(&items, &dir.journal(), &quick(), 2.0).unwrap().calls, 0);
}

#[test]
fn a_budget_of_money_and_of_time_is_kept() {
    let mock = honest();
    let items = prepare(items(100), &catalogue(), "mock").unwrap();
    // The mock counts 500 tokens in and 50 out: .0005 + .0001 a call.
    let prices = Prices { input: 1.0, output: 2.0 };
    let o = Options { prices, budget: Budget { cost: Some(0.0206), ..Budget::default() }, ..plain() };
    let dir = Scratch::new("money");
    let r = score(&items, &judge(&mock, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert!(matches!(r.stop, Some(Stop::Budget("cost"))));
    let spent = prices.of(r.folded.tokens);
    assert!(spent <= 0.0206 && spent > 0.01, "{spent}");
    let o = Options { budget: Budget { seconds: Some(0.0), ..Budget::default() }, ..plain() };
    let dir = Scratch::new("time");
    let r = score(&items, &judge(&mock, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert!(matches!(r.stop, Some(Stop::Budget("seconds"))) && r.requests == 0);
}

#[test]
fn nothing_is_paid_twice_and_what_changed_is_asked_again() {
    let mock = honest();
    let dir = Scratch::new("resume");
    let all = items(40);
    let run = |list: Vec<ecr_judge::item::Item>| {
        let items = prepare(list, &catalogue(), "mock").unwrap();
        let r = score(&items, &judge(&mock, 5000), &dir.journal(), &plain(), &|_| ()).unwrap();
        (records(&items, &r.folded, "m"), r.requests)
    };
    let (first, n) = run(all.clone());
    assert_eq!(n, 40);
    let (again, n) = run(all.clone());
    assert_eq!((n, &again), (0, &first));
    let mut changed = all.clone();
    changed[7].response.push_str(" Bye!");
    changed.extend(items(45).split_off(40));
    let (more, n) = run(changed);
    assert_eq!((n, more.len()), (6, 45));
    assert_ne!(more[7].scores, first[7].scores);
    let twice = vec![all[0].clone(), all[0].clone()];
    assert_eq!(prepare(twice, &catalogue(), "mock").unwrap_err().exit_code(), 3);
}

#[test]
fn failed_items_are_asked_again_only_when_wanted() {
    let ill = Mock::start(Box::new(|body, _| {
        let reply = response_of(body);
        Plan::Say(if reply.contains("seeker 3.") { "no".into() } else { answer(&truth(&reply)) })
    }));
    let well = honest();
    let dir = Scratch::new("retry-failed");
    let items = prepare(items(5), &catalogue(), "mock").unwrap();
    let o = Options { max_tries: 3, ..plain() };
    let r = score(&items, &judge(&ill, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert_eq!(r.requests, 7);
    let r = score(&items, &judge(&well, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert_eq!(r.requests, 0);
    let o = Options { retry_failed: true, ..o };
    let r = score(&items, &judge(&well, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert_eq!(r.requests, 1);
    assert!(records(&items, &r.folded, "m").iter().all(|r| r.status == Status::Scored));
}

#[test]
fn redirects_are_refused_and_keys_are_never_repeated() {
    let target = honest();
    let location = format!("location: {}/chat/completions\r\n", target.url());
    let mock =
        Mock::start(Box::new(move |_, _| Plan::Raw(response("307 Temporary Redirect", &location, ""))));
    let items = prepare(items(3), &catalogue(), "mock").unwrap();
    let dir = Scratch::new("redirect");
    let r = score(&items, &judge(&mock, 5000), &dir.journal(), &plain(), &|_| ()).unwrap();
    let Some(Stop::Server(e)) = r.stop else { panic!("{:?}", r.stop) };
    assert!(e.exit_code() == 4 && e.to_string().contains("redirect"), "{e}");
    assert_eq!((target.count(), r.left), (0, 3));

    let key = "sk-canary-0123456789";
    let mock = Mock::start(Box::new(move |_, _| {
        Plan::Raw(response("401 Unauthorized", "", &format!("{{\"error\": \"bad key {key}\"}}")))
    }));
    let mut o = HttpOptions::new(Address::parse(&mock.url()).unwrap(), "mock");
    o.key = Secret::new(key).unwrap();
    let dir = Scratch::new("key");
    let shown = format!("{o:?}");
    let r = score(&items, &HttpJudge::new(o), &dir.journal(), &plain(), &|_| ()).unwrap();
    let Some(Stop::Server(e)) = &r.stop else { panic!("{:?}", r.stop) };
    assert!(e.to_string().contains("401") && e.to_string().contains("bad key ***"), "{e}");
    let journal = std::fs::read_to_string(dir.journal()).unwrap();
    assert!([shown, format!("{r:?}"), journal].iter().all(|t| !t.contains(key)));
    assert!(mock.count() <= 3, "it does not insist");
}

#[test]
fn a_server_without_schemas_is_asked_without() {
    let items = prepare(items(20), &catalogue(), "mock").unwrap();
    let o = Options { concurrency: 1, ..plain() };
    // `llama_cpp.server` answers with 500.
    for status in ["400 Bad Request", "500 Internal Server Error"] {
        let mock = Mock::start(Box::new(move |body, _| match body["response_format"]["type"].as_str() {
            Some(_) => Plan::Raw(response(status, "", "{\"error\": \"response_format\"}")),
            None => Plan::Say(answer(&truth(&response_of(body)))),
        }));
        let j = judge(&mock, 5000);
        let dir = Scratch::new(&format!("downgrade-{}", &status[..3]));
        let r = score(&items, &j, &dir.journal(), &o, &|_| ()).unwrap();
        assert!(r.folded.ends.values().all(|e| e.status == Status::Scored));
        assert_eq!((j.constraint(), r.requests), (Constraint::None, 22));
    }
    // One question that is refused, by a server that has answered others, is no matter of form.
    let mock = Mock::start(Box::new(|body, _| {
        let reply = response_of(body);
        let long = || Plan::Raw(response("400 Bad Request", "", "{\"error\": \"too long\"}"));
        if reply.contains("seeker 5.") { long() } else { Plan::Say(answer(&truth(&reply))) }
    }));
    let j = judge(&mock, 5000);
    let r = score(&items, &j, &Scratch::new("refused").journal(), &o, &|_| ()).unwrap();
    let failed: Vec<_> = r.folded.ends.values().filter(|e| e.status == Status::Failed).collect();
    assert!(failed.len() == 1 && failed[0].why.as_ref().unwrap().contains("too long"), "{failed:?}");
    assert_eq!((j.constraint(), r.requests), (Constraint::Schema, 20));
}

#[test]
fn retry_after_is_waited_for_and_calls_in_flight_are_bounded() {
    let mock = Mock::start(Box::new(|body, n| match n {
        0 => Plan::Raw(response("429 Too Many Requests", "retry-after: 1\r\n", "")),
        _ => Plan::Say(answer(&truth(&response_of(body)))),
    }));
    let one = prepare(items(1), &catalogue(), "mock").unwrap();
    let start = Instant::now();
    score(&one, &judge(&mock, 5000), &Scratch::new("after").journal(), &plain(), &|_| ()).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1) && mock.count() == 2);

    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (n, m) = (now.clone(), most.clone());
    let mock = Mock::start(Box::new(move |body, _| {
        m.fetch_max(n.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        n.fetch_sub(1, SeqCst);
        Plan::Say(answer(&truth(&response_of(body))))
    }));
    let many = prepare(items(60), &catalogue(), "mock").unwrap();
    let o = Options { concurrency: 3, ..plain() };
    score(&many, &judge(&mock, 5000), &Scratch::new("flight").journal(), &o, &|_| ()).unwrap();
    assert!((2..=3).contains(&most.load(SeqCst)), "{}", most.load(SeqCst));
}

#[test]
fn a_second_process_is_kept_out_of_the_journal() {
    let dir = Scratch::new("lock");
    let _open = ecr_judge::journal::Journal::open(&dir.journal()).unwrap();
    let mock = honest();
    let items = prepare(items(1), &catalogue(), "mock").unwrap();
    let e = score(&items, &judge(&mock, 5000), &dir.journal(), &plain(), &|_| ()).unwrap_err();
    assert_eq!((e.exit_code(), mock.count()), (5, 0));
}

#[test]
fn the_rule_is_code() {
    // A judge that finds every recommendation perfect.
    let mock =
        Mock::start(Box::new(|_, _| Plan::Say(answer(&ecr_judge::scores::Scores::from_values([1.0; 5])))));
    let items = prepare(items(200), &catalogue(), "mock").unwrap();
    let r = score(&items, &judge(&mock, 5000), &Scratch::new("rule").journal(), &plain(), &|_| ()).unwrap();
    let by: BTreeMap<bool, usize> =
        records(&items, &r.folded, "m").iter().zip(&items).fold(BTreeMap::new(), |mut by, (r, p)| {
            let named = p.item.response.contains("Alien (1979)");
            let s = r.scores.unwrap();
            assert_eq!(s.recommendation_score, if named { 1.0 } else { 0.0 });
            assert_eq!(r.rule_applied, !named);
            assert_eq!(r.recommendation_by_judge, (!named).then_some(1.0));
            *by.entry(named).or_default() += 1;
            by
        });
    assert!(by[&true] > 50 && by[&false] > 50);
}
