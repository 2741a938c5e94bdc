//! Fail points: `ECR_FAILPOINT=name=kill|enospc[@n]` makes the `n`-th (default first) passage of a named point kill
//! the process or report a full disk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Armed {
    name: String,
    action: String,
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
        let (name, action) = text.split_once('=')?;
        let (action, at) = action.split_once('@').unwrap_or((action, "1"));
        Some(Armed { name: name.into(), action: action.into(), at: at.parse().unwrap_or(1) })
    });
    let Some(a) = armed.as_ref().filter(|a| a.name == name) else { return Ok(()) };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 < a.at {
        return Ok(());
    }
    match a.action.as_str() {
        "enospc" => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        _ => std::process::abort(),
    }
}
