//! Which addresses a judge may be asked at.

use std::net::IpAddr;

use ecr_core::{Error, Result};
use ureq::http::Uri;

/// A checked base address, e.g. `https://host/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Without a slash at its end.
    pub base: String,
    /// Whether it is this machine.
    pub loopback: bool,
}

impl Address {
    /// Checks an address: https, or http on loopback; no user, query or fragment.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`].
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |got: &str| {
            Error::config("read the address of the judge")
                .expected("https://HOST/v1, or http://127.0.0.1:PORT/v1 on this machine")
                .got(got)
                .files("nothing was sent")
        };
        let uri: Uri = text.parse().map_err(|_| bad("an address that cannot be read"))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| bad("no host"))?;
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("a user or password in the address")
                .hint("give the key by an environment variable (--key-env) or a 0600 file (--key-file)"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad("a query or fragment"));
        }
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let loopback = ip.map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if loopback => {}
            Some("http") => {
                return Err(bad("http to another machine").hint(
                    "conversations and keys would be readable on the way: use https, or a tunnel to loopback",
                ));
            }
            _ => return Err(bad("another scheme")),
        }
        Ok(Self { base: text.trim_end_matches('/').into(), loopback })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encrypted_or_local_addresses_are_taken() {
        for good in [
            "https://api.example.com/v1",
            "http://127.0.0.1:8000/v1/",
            "http://localhost:1/v1",
            "http://[::1]:9/v1",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Address::parse("http://127.0.0.1:8000/v1/").unwrap().base, "http://127.0.0.1:8000/v1");
        for bad in [
            "http://api.example.com/v1",
            "http://10.0.0.1/v1",
            "http://127.0.0.1.example.com/v1",
            "http://localhost.example.com/v1",
            "http://2130706433/v1",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "https://user:pass@api.example.com/v1",
            "http://localhost@api.example.com/v1",
            "https://api.example.com/v1?key=1",
            "https://api.example.com/v1#x",
            "https:///v1",
            "api.example.com",
            "",
        ] {
            let e = Address::parse(bad);
            assert_eq!(e.err().map(|e| e.exit_code()), Some(2), "{bad}");
        }
    }
}
