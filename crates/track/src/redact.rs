//! Keeps secrets and paths of the machine out of what may be uploaded.

use serde_json::{Map, Value as Json};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A configuration (dotted key → value) that may leave the machine: texts under keys that name a secret, and texts that
/// look like one, are replaced; of a path only the last part stays.
pub fn redact(config: &Map<String, Json>) -> Map<String, Json> {
    config.iter().map(|(k, v)| (k.clone(), value(k, v))).collect()
}

fn value(key: &str, v: &Json) -> Json {
    match v {
        Json::String(s) if !s.is_empty() && (secret_key(key) || secret_text(s)) => REDACTED.into(),
        Json::String(s) if key.ends_with("path") || s.starts_with('/') => {
            s.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default().into()
        }
        Json::Array(a) => a.iter().map(|v| value(key, v)).collect(),
        Json::Object(o) => o.iter().map(|(k, v)| (k.clone(), value(&format!("{key}.{k}"), v))).collect(),
        other => other.clone(),
    }
}

/// Whether a key names a secret: one of its words does, or it ends in `key`.
fn secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words: Vec<&str> =
        key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.iter().any(|w| {
        ["token", "passw", "secret", "credential", "apikey", "bearer", "cookie"]
            .iter()
            .any(|s| w.starts_with(s))
            || ["auth", "authorization", "pwd", "passphrase"].contains(w)
    }) || words.last().is_some_and(|w| *w == "key")
}

/// Whether a text looks like a secret, whatever its key: known prefixes, or a password within an address.
fn secret_text(text: &str) -> bool {
    let prefixes = ["sk-", "hf_", "ghp_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "Bearer "];
    let address = text.split_once("://").is_some_and(|(_, rest)| {
        rest.split('/')
            .next()
            .and_then(|host| host.rsplit_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    });
    address
        || text.contains("-----BEGIN")
        || prefixes.iter().any(|p| text.starts_with(p) && text.len() > p.len() + 8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_settings_stay() {
        let config = json!({
            "judge.api_key": "abc", "judge.token": "abc", "hub.access-token": "t", "db.password": "p",
            "judge.headers": {"Authorization": "x", "accept": "json"}, "judge.url": "https://me:pw@host/v1",
            "policy.system": "hf_abcdefghijklmnop", "keys": ["sk-0123456789abcdef", "plain"],
            "policy.path": "a/b/smollm2", "data.dir": "/srv/data/redial/",
            "sft.batch_tokens": 768, "lora.targets": ["q_proj"], "encoder.max_len": 160, "judge.token2": "",
            "critic.pretrained_path": "", "reward.mode": "keyword", "judge.base": "https://host/v1",
        });
        let got = Json::Object(redact(config.as_object().unwrap()));
        let want = json!({
            "judge.api_key": REDACTED, "judge.token": REDACTED, "hub.access-token": REDACTED, "db.password": REDACTED,
            "judge.headers": {"Authorization": REDACTED, "accept": "json"}, "judge.url": REDACTED,
            "policy.system": REDACTED, "keys": [REDACTED, "plain"],
            "policy.path": "smollm2", "data.dir": "redial",
            "sft.batch_tokens": 768, "lora.targets": ["q_proj"], "encoder.max_len": 160, "judge.token2": "",
            "critic.pretrained_path": "", "reward.mode": "keyword", "judge.base": "https://host/v1",
        });
        assert_eq!(got, want);
    }
}
