//! Fail points: `ECR_FAILPOINT=name=kill|enospc[@n]` makes the `n`-th (default first) passage of a named point kill
//! the process or report a full disk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Armed {
    name: String,
    kill: bool,
    at: u64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);

/// Passes a named point.
///
/// # Errors
/// `StorageFull` where the environment says so; without `ECR_FAILPOINT` never.
pub fn fail_point(name: &str) -> std::io::Result<()> {
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("ECR_FAILPOINT").ok()?;
        let parsed = parse(&text);
        if parsed.is_none() {
            // A test that arms nothing proves nothing.
            eprintln!("error: ECR_FAILPOINT={text}: expected NAME=kill|enospc or NAME=kill|enospc@N");
            std::process::abort();
        }
        parsed
    });
    let Some(a) = armed.as_ref().filter(|a| a.name == name) else { return Ok(()) };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 < a.at {
        return Ok(());
    }
    if a.kill { std::process::abort() } else { Err(std::io::Error::from(std::io::ErrorKind::StorageFull)) }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, action) = text.split_once('=')?;
    let (action, at) = action.split_once('@').unwrap_or((action, "1"));
    let kill = match action {
        "kill" => true,
        "enospc" => false,
        _ => return None,
    };
    Some(Armed { name: name.into(), kill, at: at.parse().ok().filter(|n| *n > 0)? })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_whole_orders_are_understood() {
        assert!(parse("write=kill").is_some_and(|a| a.kill && a.at == 1));
        assert!(parse("write=enospc@7").is_some_and(|a| !a.kill && a.at == 7));
        for bad in ["write", "write=panic", "write=kill@x", "write=kill@0"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
