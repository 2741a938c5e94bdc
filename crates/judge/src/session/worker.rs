//! One worker: takes work, asks, reads, writes down.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ecr_core::{Error, Result};

use super::{Shared, Stop, Work};
use crate::backend::{Answer, Fault, Request};
use crate::budget::{ANSWER_TOKENS, prompt_tokens};
use crate::canary;
use crate::item::{Facts, Item};
use crate::journal::{Event, Outcome, Status};
use crate::prompt::messages;
use crate::scores::{Scores, parse};

/// An item being asked about.
struct Open {
    index: usize,
    /// Calls so far.
    tries: u32,
    /// Of them answers that could not be read.
    unreadable: u32,
}

/// What a call came to.
enum Came {
    Scores(Scores),
    /// Whether the judge answered unreadably; what was wrong; what to wait.
    Nothing(bool, String, Option<Duration>),
    Refused(String),
    Fatal(Error),
}

/// Works until the list is empty or the run stops.
pub(super) fn work(s: &Shared<'_>) {
    while !s.stopped.load(SeqCst) {
        let mut group = Vec::new();
        let mut probe = None;
        while group.len() < s.judge.batch().max(1) {
            match s.list.get(s.next.load(SeqCst)) {
                // Pairs are asked by themselves.
                Some(Work::Probe(_)) if !group.is_empty() => break,
                None => break,
                _ => {}
            }
            match s.list.get(s.next.fetch_add(1, SeqCst)) {
                Some(Work::Item(i)) => group.push(open(s, *i)),
                // By itself, or, where another worker was faster, after the group.
                Some(Work::Probe(n)) => {
                    probe = Some(*n);
                    break;
                }
                None => break,
            }
        }
        if group.is_empty() && probe.is_none() {
            return;
        }
        let done = items(s, group).and_then(|()| probe.map_or(Ok(()), |n| canaries(s, n)));
        if let Err(e) = done {
            fail(s, e);
        }
    }
}

/// Asks the pair that the list begins with.
pub(super) fn first(s: &Shared<'_>) {
    s.next.store(1, SeqCst);
    if let Err(e) = canaries(s, 0) {
        fail(s, e);
    }
}

/// Ends the run by an error of our own.
fn fail(s: &Shared<'_>, e: Error) {
    if let Ok(mut broken) = s.broken.lock() {
        broken.get_or_insert(e);
    }
    s.stopped.store(true, SeqCst);
}

/// Where an item stands by the journal.
fn open(s: &Shared<'_>, index: usize) -> Open {
    let p = &s.items[index];
    let known = s.journal.lock().ok().and_then(|j| j.folded.tries.get(&p.item.id).cloned());
    let (tries, unreadable) = known.filter(|k| k.0 == p.key).map_or((0, 0), |k| (k.1, k.2));
    Open { index, tries, unreadable }
}

fn stop(s: &Shared<'_>, why: Stop) {
    if let Ok(mut stop) = s.stop.lock() {
        stop.get_or_insert(why);
    }
    s.stopped.store(true, SeqCst);
}

fn write(s: &Shared<'_>, event: &Event) -> Result<()> {
    let mut journal = s.journal.lock().map_err(|_| Error::internal("score: a worker panicked"))?;
    journal.write(event)?;
    if matches!(event, Event::Item(_)) {
        (s.progress)(&journal.folded);
    }
    Ok(())
}

/// Takes one call out of the budget; what it may cost, in millionths, or nothing if the budget is spent.
fn take(s: &Shared<'_>, tokens: u64) -> Option<u64> {
    let b = &s.o.budget;
    if b.seconds.is_some_and(|most| s.started.elapsed().as_secs_f64() >= most) {
        stop(s, Stop::Budget("seconds"));
        return None;
    }
    let cost = s.o.prices.of([tokens, 2 * ANSWER_TOKENS]);
    let cost = (cost * 1e6).ceil() as u64;
    if let Some(most) = b.cost {
        // Under one lock, so that two workers do not both take the last cent.
        let journal = s.journal.lock().ok()?;
        let spent = s.o.prices.of(journal.folded.tokens);
        let flight = s.reserved.fetch_add(cost, SeqCst) + cost;
        if spent + flight as f64 / 1e6 > most {
            s.reserved.fetch_sub(cost, SeqCst);
            drop(journal);
            stop(s, Stop::Budget("cost"));
            return None;
        }
    }
    let most = b.requests.unwrap_or(u64::MAX);
    if s.requests.fetch_update(SeqCst, SeqCst, |n| (n < most).then_some(n + 1)).is_err() {
        if b.cost.is_some() {
            s.reserved.fetch_sub(cost, SeqCst);
        }
        stop(s, Stop::Budget("requests"));
        return None;
    }
    Some(if b.cost.is_some() { cost } else { 0 })
}

/// Asks, and reads what comes. Tokens in and out, estimated where the backend does not count.
fn ask(s: &Shared<'_>, requests: &[Request]) -> Vec<(Came, [u64; 2])> {
    // A server that asks for a pause means all workers.
    let until = s.hold.lock().map_or_else(|_| Instant::now(), |h| *h);
    pause(s, until.saturating_duration_since(Instant::now()));
    let answers = s.judge.ask(requests);
    let mut out: Vec<(Came, [u64; 2])> = requests.iter().zip(answers).map(|(r, a)| read(r, a)).collect();
    for (came, _) in &out {
        if let (Came::Nothing(_, _, Some(asked)), Ok(mut hold)) = (came, s.hold.lock()) {
            *hold = (*hold).max(Instant::now() + (*asked).min(s.o.wait_most));
        }
    }
    while out.len() < requests.len() {
        let e = Error::internal("ask the judge").got("fewer answers than questions");
        out.push((Came::Fatal(e), [0, 0]));
    }
    out
}

fn read(request: &Request, answer: std::result::Result<Answer, Fault>) -> (Came, [u64; 2]) {
    match answer {
        Ok(a) => {
            let tokens = [
                a.prompt_tokens.unwrap_or_else(|| prompt_tokens(&request.messages)),
                a.completion_tokens.unwrap_or(a.text.len() as u64 / 3 + 1),
            ];
            match parse(&a.text) {
                Ok(scores) => (Came::Scores(scores), tokens),
                Err(e) => (Came::Nothing(true, e.to_string(), None), tokens),
            }
        }
        Err(Fault::Passing { why, wait }) => (Came::Nothing(false, why, wait), [0, 0]),
        Err(Fault::Refused(why)) => (Came::Refused(why), [0, 0]),
        Err(Fault::Fatal(e)) => (Came::Fatal(e), [0, 0]),
    }
}

fn request(item: &Item, facts: &Facts, tries: u32, unreadable: u32) -> Request {
    // Greedy first; what could not be read is asked for again a little less so.
    let temperature = f64::from(unreadable.min(3)) * 0.2;
    Request { messages: messages(item, facts, tries), temperature }
}

/// Sleeps, in slices, until the time is over or the run stops.
fn pause(s: &Shared<'_>, time: Duration) {
    let end = Instant::now() + time;
    while !s.stopped.load(SeqCst) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Wait before try number `tries` + 1: what the server asked for, or doubling from the configured time.
fn wait(s: &Shared<'_>, tries: u32, asked: Option<Duration>) -> Duration {
    let own = s.o.backoff.saturating_mul(1 << tries.saturating_sub(1).min(6)).min(Duration::from_secs(30));
    asked.map_or(own, |a| a.min(s.o.wait_most))
}

/// Whether a repeated try is still allowed, which it then uses up.
fn may_retry(s: &Shared<'_>) -> bool {
    s.retries.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// Asks about a group until each item has an end, or the run stops.
fn items(s: &Shared<'_>, mut group: Vec<Open>) -> Result<()> {
    while !group.is_empty() && !s.stopped.load(SeqCst) {
        let (mut requests, mut reserved) = (Vec::new(), 0);
        for o in &group {
            let p = &s.items[o.index];
            let r = request(&p.item, &p.facts, o.tries, o.unreadable);
            let Some(cost) = take(s, prompt_tokens(&r.messages)) else { break };
            reserved += cost;
            requests.push(r);
        }
        group.truncate(requests.len());
        let came = ask(s, &requests);
        let (mut again, mut longest) = (Vec::new(), Duration::ZERO);
        for (mut o, (came, tokens)) in group.into_iter().zip(came) {
            let p = &s.items[o.index];
            o.tries += 1;
            let (id, key) = (p.item.id.clone(), p.key.clone());
            let mut outcome = Outcome {
                id: id.clone(),
                key: key.clone(),
                status: Status::Failed,
                scores: None,
                recommendation_by_judge: None,
                why: None,
                tries: o.tries,
                called: true,
                tokens,
            };
            match came {
                Came::Scores(mut scores) => {
                    if !p.facts.recommends {
                        outcome.recommendation_by_judge = Some(scores.recommendation_score);
                        scores.recommendation_score = 0.0;
                    }
                    outcome.status = Status::Scored;
                    outcome.scores = Some(scores);
                    s.failures.store(0, SeqCst);
                    write(s, &Event::Item(outcome))?;
                }
                Came::Nothing(unreadable, why, asked) => {
                    if o.tries < s.o.max_tries && may_retry(s) {
                        longest = longest.max(wait(s, o.tries, asked));
                        o.unreadable += u32::from(unreadable);
                        write(s, &Event::Try { id, key, unreadable, why, tokens })?;
                        again.push(o);
                        continue;
                    }
                    outcome.why = Some(why.clone());
                    write(s, &Event::Item(outcome))?;
                    let row = s.failures.fetch_add(1, SeqCst) + 1;
                    if row >= u64::from(s.o.failures_in_a_row.max(1)) {
                        let e = Error::new(ecr_core::Kind::Network, "ask the judge")
                            .got(format!("{row} items in a row without a usable answer, the last by: {why}"))
                            .files("what was scored is kept; those items are marked failed")
                            .hint("is the server up, and does it answer in JSON? Then the same command with --retry-failed");
                        stop(s, Stop::Server(e));
                    }
                }
                Came::Refused(why) => {
                    outcome.why = Some(why);
                    write(s, &Event::Item(outcome))?;
                }
                Came::Fatal(e) => stop(s, Stop::Server(e)),
            }
        }
        s.reserved.fetch_sub(reserved, SeqCst);
        group = again;
        if !group.is_empty() {
            pause(s, longest);
        }
    }
    Ok(())
}

/// Asks the `n`-th pair; if it fails, another one, and then raises the alarm.
fn canaries(s: &Shared<'_>, n: usize) -> Result<()> {
    for pair in [2 * n, 2 * n + 1] {
        match ask_pair(s, pair)? {
            Some(false) if pair % 2 == 1 => {
                s.alarms.fetch_add(1, SeqCst);
                if s.o.stop_on_drift {
                    stop(s, Stop::Drift);
                }
            }
            Some(false) => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Whether the judge tells a pair apart; nothing if it does not answer.
fn ask_pair(s: &Shared<'_>, n: usize) -> Result<Option<bool>> {
    let mut overall = [None; 2];
    let (mut requests, mut spent) = (0, [0, 0]);
    for (slot, (item, facts)) in overall.iter_mut().zip(canary::pair(n)) {
        let mut unreadable = 0;
        for tries in 0..s.o.max_tries {
            let r = request(&item, &facts, tries, unreadable);
            let Some(cost) = take(s, prompt_tokens(&r.messages)) else { break };
            let came = ask(s, &[r]).pop();
            s.reserved.fetch_sub(cost, SeqCst);
            requests += 1;
            let Some((came, tokens)) = came else { break };
            (0..2).for_each(|i| spent[i] += tokens[i]);
            match came {
                Came::Scores(scores) => {
                    *slot = Some(scores.overall_score);
                    break;
                }
                Came::Nothing(bad, _, asked) => {
                    unreadable += u32::from(bad);
                    // Probes draw on the same retries as items.
                    if tries + 1 < s.o.max_tries && may_retry(s) {
                        pause(s, wait(s, tries + 1, asked));
                    } else {
                        break;
                    }
                }
                Came::Refused(_) => break,
                Came::Fatal(e) => {
                    stop(s, Stop::Server(e));
                    break;
                }
            }
        }
    }
    let good = match overall {
        [Some(poor), Some(good)] => Some(canary::told_apart([poor, good])),
        _ => None,
    };
    if requests > 0 {
        write(s, &Event::Probe { requests, overall, good, tokens: spent })?;
    }
    Ok(good)
}
