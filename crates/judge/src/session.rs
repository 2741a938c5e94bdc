//! Scoring many items: who is asked next, what is tried again, when to stop.
//!
//! Workers take groups of items off one list. Everything that must survive a kill goes through the journal before the
//! worker goes on. A run stops cleanly, with every call accounted for, when the budget is spent, when canaries fail,
//! when the server refuses for good, and when it seems to be down.

mod worker;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ecr_core::{Error, Result, io};
use ecr_data::catalogue::Catalogue;

use crate::backend::Judge;
use crate::budget::{ANSWER_TOKENS, Budget, Estimate, Prices, prompt_tokens};
use crate::canary;
use crate::item::{Facts, Item};
use crate::journal::{Event, Folded, Journal, Outcome, Status};
use crate::prompt::{RESPONSE_MOST, messages, prompt_hash};
use crate::screen;

/// How to score.
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls in flight at once.
    pub concurrency: usize,
    /// Calls for one item at most.
    pub max_tries: u32,
    /// Repeated tries in all, as a share of the items; never fewer than 8.
    pub retry_share: f64,
    /// First wait before a repeated try; it doubles, up to 30 s.
    pub backoff: Duration,
    /// Longest wait that a server may ask for.
    pub wait_most: Duration,
    /// Limits.
    pub budget: Budget,
    /// Prices, for the limit on cost.
    pub prices: Prices,
    /// Whether to send canaries.
    pub canaries: bool,
    /// Whether failed canaries stop the run.
    pub stop_on_drift: bool,
    /// Whether failed items are asked about again.
    pub retry_failed: bool,
    /// Failed items in a row, by whatever fault of the server, that end a run.
    pub failures_in_a_row: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 4,
            max_tries: 5,
            retry_share: 0.55,
            backoff: Duration::from_millis(500),
            wait_most: Duration::from_secs(60),
            budget: Budget::default(),
            prices: Prices::default(),
            canaries: true,
            stop_on_drift: true,
            retry_failed: false,
            failures_in_a_row: 20,
        }
    }
}

/// Why a run ended before its list did.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The limit that was reached: `requests`, `seconds` or `cost`.
    Budget(&'static str),
    /// Canaries were not told apart.
    Drift,
    /// The server refuses, or seems to be down.
    Server(Error),
}

/// An item with its facts and the hash that its score depends on.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The item.
    pub item: Item,
    /// What `mentions()` says.
    pub facts: Facts,
    /// Hash of prompt, judge, context, reply and facts.
    pub key: String,
}

/// Prepares items for a judge.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for two items of one id.
pub fn prepare(items: Vec<Item>, catalogue: &Catalogue, judge: &str) -> Result<Vec<Prepared>> {
    let mut seen = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        if !seen.insert(item.id.clone()) {
            return Err(Error::data("read the items to score")
                .expected("ids that differ")
                .got(format!("two items of id {}", item.id.chars().take(80).collect::<String>()))
                .files("nothing was sent"));
        }
        let facts = Facts::of(&item, catalogue);
        let content = serde_json::to_string(&(prompt_hash(), judge, &item, &facts.earlier, &facts.named))
            .map_err(|e| Error::internal("hash an item").got(e.to_string()))?;
        out.push(Prepared { key: io::blake3(content.as_bytes())[..24].into(), item, facts });
    }
    Ok(out)
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// The journal, folded, over all runs.
    pub folded: Folded,
    /// Why it ended early, if it did.
    pub stop: Option<Stop>,
    /// Canary pairs that failed twice in this run.
    pub alarms: u64,
    /// Items without an end.
    pub left: usize,
    /// Calls of this run.
    pub requests: u64,
    /// Seconds of this run.
    pub seconds: f64,
}

/// Items that have no end yet for their key.
fn pending(items: &[Prepared], folded: &Folded, retry_failed: bool) -> Vec<usize> {
    let ended = |p: &Prepared| {
        folded.ends.get(&p.item.id).is_some_and(|o| {
            o.key == p.key && !folded.suspect.contains(&o.id) && !(retry_failed && o.status == Status::Failed)
        })
    };
    (0..items.len()).filter(|&i| !ended(&items[i])).collect()
}

/// What a run over `items` would take, given what the journal at `journal` holds; nothing is sent or written.
pub fn estimate(items: &[Prepared], journal: &Path, o: &Options, seconds_a_call: f64) -> Result<Estimate> {
    let folded = Journal::peek(journal)?;
    let todo = pending(items, &folded, o.retry_failed);
    let asked: Vec<&Prepared> = todo.iter().map(|&i| &items[i]).filter(|p| refusal(p).is_none()).collect();
    let n = asked.len() as u64;
    let probes = if o.canaries && n > 0 { 2 * n.div_ceil(canary::EVERY as u64) } else { 0 };
    let calls = n + probes;
    let prompt: u64 = asked.iter().map(|p| prompt_tokens(&messages(&p.item, &p.facts, 0))).sum();
    let tokens = [prompt + probes * 700, calls * ANSWER_TOKENS];
    Ok(Estimate {
        items: n,
        calls,
        calls_most: calls + retries(items.len(), o),
        tokens,
        seconds: calls as f64 * seconds_a_call / o.concurrency.max(1) as f64,
        cost: o.prices.of(tokens),
    })
}

/// Repeated tries that are allowed in all.
fn retries(items: usize, o: &Options) -> u64 {
    ((items as f64 * o.retry_share).floor() as u64).max(8)
}

/// Why an item is not sent.
fn refusal(p: &Prepared) -> Option<(Status, String)> {
    if p.item.response.chars().count() > RESPONSE_MOST {
        return Some((Status::Failed, format!("a reply of more than {RESPONSE_MOST} characters")));
    }
    screen::flag_item(&p.item).map(|why| (Status::Flagged, why.into()))
}

/// One entry of the list.
enum Work {
    Item(usize),
    Probe(usize),
}

/// What the workers share.
struct Shared<'a> {
    judge: &'a dyn Judge,
    items: &'a [Prepared],
    o: &'a Options,
    list: Vec<Work>,
    next: AtomicUsize,
    journal: Mutex<Journal>,
    stop: Mutex<Option<Stop>>,
    stopped: AtomicBool,
    /// Calls begun, over all runs.
    requests: AtomicU64,
    /// Repeated tries that are still allowed.
    retries: AtomicU64,
    /// Cost of calls in flight, in millionths.
    reserved: AtomicU64,
    /// No call before this: what the server asked for last.
    hold: Mutex<Instant>,
    failures: AtomicU64,
    alarms: AtomicU64,
    started: Instant,
    progress: &'a (dyn Fn(&Folded) + Sync),
    broken: Mutex<Option<Error>>,
}

/// Scores what has no score yet. `progress` is called after each end of an item.
///
/// # Errors
/// [`ecr_core::Kind::Io`] if the journal cannot be written; a judge that fails is a [`Report`], not an error.
pub fn score(
    items: &[Prepared],
    judge: &dyn Judge,
    journal: &Path,
    o: &Options,
    progress: &(dyn Fn(&Folded) + Sync),
) -> Result<Report> {
    let mut journal = Journal::open(journal)?;
    let todo = pending(items, &journal.folded, o.retry_failed);
    // Items that are not sent come first: they cost nothing.
    let mut asked = Vec::new();
    for i in todo {
        match refusal(&items[i]) {
            Some((status, why)) => {
                let known = journal.folded.ends.get(&items[i].item.id);
                if known.is_none_or(|k| k.key != items[i].key || k.status != status) {
                    journal.write(&Event::Item(Outcome {
                        id: items[i].item.id.clone(),
                        key: items[i].key.clone(),
                        status,
                        scores: None,
                        recommendation_by_judge: None,
                        why: Some(why),
                        tries: 0,
                        called: false,
                        tokens: [0, 0],
                    }))?;
                }
            }
            None => asked.push(i),
        }
    }
    let mut list = Vec::new();
    for (n, part) in asked.chunks(canary::EVERY).enumerate() {
        // A pair before each part, so that a judge that is unfit from the start costs two calls.
        if o.canaries {
            list.push(Work::Probe(n));
        }
        list.extend(part.iter().map(|&i| Work::Item(i)));
    }
    let before = journal.folded.requests;
    let left = retries(items.len(), o).saturating_sub(journal.folded.retries);
    let shared = Shared {
        judge,
        items,
        o,
        list,
        next: AtomicUsize::new(0),
        requests: AtomicU64::new(before),
        retries: AtomicU64::new(left),
        reserved: AtomicU64::new(0),
        journal: Mutex::new(journal),
        stop: Mutex::new(None),
        stopped: AtomicBool::new(false),
        hold: Mutex::new(Instant::now()),
        failures: AtomicU64::new(0),
        alarms: AtomicU64::new(0),
        started: Instant::now(),
        progress,
        broken: Mutex::new(None),
    };
    // The first pair by itself: until it is told apart, nothing that the judge says counts.
    if o.canaries && !shared.list.is_empty() {
        worker::first(&shared);
    }
    std::thread::scope(|s| {
        for _ in 0..o.concurrency.max(1).min(shared.list.len().max(1)) {
            s.spawn(|| worker::work(&shared));
        }
    });
    let lock = |_| Error::internal("score: a worker panicked");
    if let Some(e) = shared.broken.into_inner().map_err(|_| Error::internal("score: a worker panicked"))? {
        return Err(e);
    }
    let folded = shared.journal.into_inner().map_err(lock)?.folded;
    Ok(Report {
        left: pending(items, &folded, false).len(),
        stop: shared.stop.into_inner().map_err(|_| Error::internal("score: a worker panicked"))?,
        alarms: shared.alarms.into_inner(),
        requests: shared.requests.load(Ordering::SeqCst) - before,
        seconds: shared.started.elapsed().as_secs_f64(),
        folded,
    })
}
