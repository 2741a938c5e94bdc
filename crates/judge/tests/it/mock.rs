//! A chat server for tests: plain sockets, a judge that is a program, and every fault that a server can have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use ecr_core::{Role, Stream, Utterance};
use ecr_judge::item::Item;
use ecr_judge::prompt::{Message, unframe};
use ecr_judge::scores::{KEYS, Scores};
use serde_json::{Value as Json, json};

/// What the server does with a request.
pub(crate) enum Plan {
    /// A chat completion with this content.
    Say(String),
    /// A response as it goes over the wire.
    Raw(Vec<u8>),
    /// Nothing: the connection is closed.
    Reset,
    /// Nothing until the client has gone.
    Hang,
    /// A head, then a byte now and then.
    Drip,
    /// A head, then bytes without end.
    Flood,
}

/// Decides about request number `n` (from 0).
pub(crate) type Mind = Box<dyn Fn(&Json, u64) -> Plan + Send + Sync>;

/// A running server; it stops when dropped.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Mock {
    pub(crate) fn start(mind: Mind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (n, s, mind) = (requests.clone(), stop.clone(), Arc::new(mind));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if s.load(SeqCst) {
                    return;
                }
                let (n, s, mind) = (n.clone(), s.clone(), mind.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &n, &s, &mind));
            }
        });
        Self { address, requests, stop }
    }
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
    pub(crate) fn count(&self) -> u64 {
        self.requests.load(SeqCst)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, n: &AtomicU64, stop: &AtomicBool, mind: &Mind) {
    stream.set_nodelay(true).unwrap();
    let mut out = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    while let Some(body) = request(&mut input) {
        let plan = mind(&body, n.fetch_add(1, SeqCst));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n";
        let gone = |out: &mut TcpStream, bytes: &[u8]| stop.load(SeqCst) || out.write_all(bytes).is_err();
        match plan {
            Plan::Say(text) => {
                if out.write_all(&ok(&completion(&text))).is_err() {
                    return;
                }
            }
            Plan::Raw(bytes) => {
                let _ = out.write_all(&bytes);
                if !bytes.starts_with(b"HTTP/1.1 200") || !bytes.windows(2).any(|w| w == b"}}") {
                    return;
                }
            }
            Plan::Reset => return,
            Plan::Hang => {
                // Until the client closes its side.
                let _ = input.get_ref().set_read_timeout(Some(Duration::from_secs(20)));
                let _ = input.read(&mut [0]);
                return;
            }
            Plan::Drip => {
                let _ = out.write_all(head.as_bytes());
                while !gone(&mut out, b" ") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            Plan::Flood => {
                let _ = out.write_all(head.as_bytes());
                let block = [b' '; 1 << 16];
                let mut left = 1600;
                while left > 0 && !gone(&mut out, &block) {
                    left -= 1;
                }
                return;
            }
        }
    }
}

/// Body of the next request, `null` for one without.
fn request(input: &mut BufReader<TcpStream>) -> Option<Json> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(v) = lower.strip_prefix("content-length:") {
            length = v.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    if body.is_empty() { Some(Json::Null) } else { serde_json::from_slice(&body).ok() }
}

/// A response of status 200 with a JSON body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    response("200 OK", "content-type: application/json\r\n", body)
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A chat completion.
pub(crate) fn completion(text: &str) -> String {
    json!({"id": "x", "object": "chat.completion", "model": "mock",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}})
    .to_string()
}

/// The messages of a request.
pub(crate) fn messages(body: &Json) -> Vec<Message> {
    let list = body["messages"].as_array().unwrap();
    list.iter()
        .map(|m| Message {
            role: if m["role"] == "system" { "system" } else { "user" },
            content: m["content"].as_str().unwrap().into(),
        })
        .collect()
}

/// The reply that a request asks about.
pub(crate) fn response_of(body: &Json) -> String {
    let (_, data) = unframe(&messages(body)).unwrap();
    let data: Json = serde_json::from_str(&data).unwrap();
    data["response"].as_str().unwrap().into()
}

/// What the mock judge thinks of a reply: a hash of it; canaries as they should be.
pub(crate) fn truth(reply: &str) -> Scores {
    for n in 0..4 {
        let [(poor, _), (good, _)] = ecr_judge::canary::pair(n);
        if reply == poor.response || reply == good.response {
            return Scores::from_values([if reply == poor.response { 0.1 } else { 0.9 }; 5]);
        }
    }
    let h = ecr_core::io::blake3(reply.as_bytes());
    let digit = |i: usize| f64::from(u32::from_str_radix(&h[2 * i..2 * i + 2], 16).unwrap()) / 255.0;
    Scores::from_values([digit(0), digit(1), digit(2), digit(3), digit(4)])
}

/// Scores as an answer.
pub(crate) fn answer(s: &Scores) -> String {
    serde_json::to_string(s).unwrap()
}

/// The kinds of [`fault`].
pub(crate) const FAULTS: u64 = 34;

/// A fault. Where it shows scores at all, they are not the truth, so that an accepted one would be found out.
pub(crate) fn fault(kind: u64) -> Plan {
    let wrong = answer(&Scores::from_values([0.987; 5]));
    let with = |from: &str, to: &str| Plan::Say(wrong.replacen(from, to, 1));
    let last = format!("\"{}\":0.987", KEYS[4]);
    let raw = |status: &str, headers: &str, body: &str| Plan::Raw(response(status, headers, body));
    let html = "<html><body>Bad gateway {\"overall_score\": 1.0}</body></html>";
    match kind {
        0 => raw("429 Too Many Requests", "retry-after: 0\r\n", "{}"),
        1 => raw("429 Too Many Requests", "", "slow down"),
        2 => raw("429 Too Many Requests", "retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", ""),
        3 => raw("500 Internal Server Error", "", &completion(&wrong)),
        4 => raw("502 Bad Gateway", "content-type: text/html\r\n", html),
        5 => raw("503 Service Unavailable", "retry-after: 0\r\n", ""),
        6 => Plan::Reset,
        7 => Plan::Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{\"choices\": [".to_vec()),
        8 => Plan::Raw(b"HTTP/1.1 2".to_vec()),
        9 => Plan::Hang,
        10 => Plan::Drip,
        11 => Plan::Flood,
        12 => Plan::Raw(ok(&completion(&wrong)[..120])),
        13 => Plan::Say(wrong[..wrong.len() / 2].into()),
        14 => Plan::Say(wrong[..wrong.len() - 1].into()),
        15 => Plan::Say(format!("```json\n{wrong}\n```")),
        16 => Plan::Say(format!("Here are the scores: {wrong}")),
        17 => Plan::Say(format!("{wrong}\nThe reply is warm and helpful.")),
        18 => with("0.987", "\"0.987\""),
        19 => with("0.987", "null"),
        20 => with(&last, &format!("{last},\"reason\":\"good\"")),
        21 => with(&format!(",{last}"), ""),
        22 => with(&last, &format!("{last},{last}")),
        23 => with("0.987", "NaN"),
        24 => with("0.987", "1e309"),
        25 => with("0.987", "1.01"),
        26 => with("0.987", "-0.5"),
        27 => raw("200 OK", "content-type: text/html\r\n", html),
        28 => raw("200 OK", "content-type: text/html\r\n", &completion(&wrong)),
        29 => Plan::Say(String::new()),
        30 => Plan::Raw(ok(&completion(&wrong).replace("\"stop\"", "\"length\""))),
        31 => Plan::Say("[0.987,0.987,0.987,0.987,0.987]".into()),
        32 => {
            let mut two: Json = serde_json::from_str(&completion(&wrong)).unwrap();
            let choice = two["choices"][0].clone();
            two["choices"].as_array_mut().unwrap().push(choice);
            Plan::Raw(ok(&two.to_string()))
        }
        _ => Plan::Raw(b"\x16\x03\x01 not http at all\r\n\r\n".to_vec()),
    }
}

/// A judge that tells the truth, and fails in a share of the calls, by number.
pub(crate) fn faulty(share: f64, seed: u64) -> Mind {
    Box::new(move |body, n| {
        let mut draws = Stream::new(seed).child("faults").at(n).rng();
        if draws.uniform() < share {
            fault(draws.below(FAULTS as usize) as u64)
        } else {
            Plan::Say(answer(&truth(&response_of(body))))
        }
    })
}

/// Items that differ; every third names a film.
pub(crate) fn items(n: usize) -> Vec<Item> {
    let film = |i: usize| if i.is_multiple_of(3) { " Try Alien (1979)." } else { "" };
    (0..n)
        .map(|i| Item {
            id: format!("item {i}"),
            conversation: format!("c{}", i / 4),
            context: vec![Utterance { role: Role::Seeker, text: format!("Hello, I am seeker {i}.") }],
            response: format!("Nice to meet you, seeker {i}.{}", film(i)),
        })
        .collect()
}

/// A catalogue of two films.
pub(crate) fn catalogue() -> ecr_data::catalogue::Catalogue {
    use ecr_data::catalogue::{Catalogue, Movie};
    let film = |id, name| Movie::from_name(ecr_core::ItemId(id), name);
    Catalogue::new(vec![film(1, "Alien (1979)"), film(2, "Paddington 2 (2017)")])
}

/// A directory of this test, removed when it ends.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ecr-judge-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub(crate) fn journal(&self) -> std::path::PathBuf {
        self.0.join("scores.jsonl.journal")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
