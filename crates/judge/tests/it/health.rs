//! Canaries: a judge that begins to answer anything is noticed.

use ecr_judge::journal::Status;
use ecr_judge::output::records;
use ecr_judge::scores::Scores;
use ecr_judge::session::{Options, Stop, prepare, score};

use crate::faults::{judge, quick};
use crate::mock::{Mock, Plan, Scratch, answer, catalogue, items, response_of, truth};

/// Right for the first `good` requests, then what `wrong` makes of the truth.
fn drifting(good: u64, wrong: fn(Scores) -> Scores) -> Mock {
    Mock::start(Box::new(move |body, n| {
        let t = truth(&response_of(body));
        Plan::Say(answer(&if n < good { t } else { wrong(t) }))
    }))
}

const CONSTANT: fn(Scores) -> Scores = |_| Scores::from_values([0.7; 5]);
const INVERTED: fn(Scores) -> Scores = |s| Scores::from_values(s.values().map(|v| 1.0 - v));

#[test]
fn a_judge_that_drifts_raises_the_alarm_within_two_hundred_items() {
    for (name, wrong) in [("constant", CONSTANT), ("inverted", INVERTED)] {
        let good = 333;
        let mock = drifting(good, wrong);
        let dir = Scratch::new(&format!("drift-{name}"));
        let items = prepare(items(900), &catalogue(), "mock").unwrap();
        let report = score(&items, &judge(&mock, 5000), &dir.journal(), &quick(), &|_| ()).unwrap();
        assert!(matches!(report.stop, Some(Stop::Drift)), "{name}");
        assert_eq!(report.alarms, 1);
        assert!(mock.count() - good <= 200, "{name}: {} calls after the drift", mock.count() - good);
        // What was scored since the last pair that was told apart has no score.
        let all = records(&items, &report.folded, "mock");
        for r in all.iter().filter(|r| r.status == Status::Scored) {
            let item = items.iter().find(|p| p.item.id == r.id).unwrap();
            let mut want = truth(&item.item.response);
            if !item.facts.recommends {
                want.recommendation_score = 0.0;
            }
            assert_eq!(r.scores, Some(want), "{name}: a score of the drifted judge");
        }
        let doubtful =
            all.iter().filter(|r| r.why.as_deref() == Some("the judge failed its canaries")).count();
        assert!(doubtful > 0 && doubtful <= 250, "{doubtful}");

        // The judge recovers: the same command scores the rest, and the doubtful ones again.
        let well = drifting(u64::MAX, wrong);
        let report = score(&items, &judge(&well, 5000), &dir.journal(), &quick(), &|_| ()).unwrap();
        assert!(report.stop.is_none() && report.left == 0);
        let all = records(&items, &report.folded, "mock");
        assert!(all.len() == 900 && all.iter().all(|r| r.status == Status::Scored));
    }
}

#[test]
fn a_judge_that_is_unfit_from_the_start_costs_four_calls_a_worker() {
    let mock = drifting(0, CONSTANT);
    let dir = Scratch::new("unfit");
    let items = prepare(items(300), &catalogue(), "mock").unwrap();
    let o = Options { concurrency: 1, ..quick() };
    let report = score(&items, &judge(&mock, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert!(matches!(report.stop, Some(Stop::Drift)));
    assert_eq!(mock.count(), 4);
    // One who wants its scores all the same gets the alarm and no scores.
    let o = Options { stop_on_drift: false, ..quick() };
    let report = score(&items, &judge(&mock, 5000), &dir.journal(), &o, &|_| ()).unwrap();
    assert!(report.stop.is_none() && report.alarms == 3);
    assert!(records(&items, &report.folded, "mock").iter().all(|r| r.scores.is_none()));
    // Without canaries nobody looks.
    let o = Options { canaries: false, ..quick() };
    let report = score(&items, &judge(&mock, 5000), &Scratch::new("blind").journal(), &o, &|_| ()).unwrap();
    assert_eq!(report.folded.ends.len(), 300);
}
