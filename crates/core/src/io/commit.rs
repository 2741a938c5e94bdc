//! Directories that are there whole or not at all, with a manifest of lengths and checksums.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{create_dir_all, fail_point, read, remove_dir_all, sync_dir, write_synced};
use crate::{Error, Result};

#[derive(Serialize, Deserialize)]
struct Entry {
    bytes: usize,
    blake3: String,
}

const MANIFEST: &str = "manifest.json";

/// Where an older directory of the same name waits while it is replaced.
fn aside(dir: &Path) -> std::path::PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

/// Writes a directory of files: aside, fsynced, with a manifest, then renamed. An older directory of that name is
/// replaced.
pub fn commit_dir(dir: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let mut tmp = dir.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = Path::new(&tmp);
    remove_dir_all(tmp)?;
    create_dir_all(tmp)?;
    let fail = |e: std::io::Error| {
        Error::io("write checkpoint", dir, &e)
            .files("earlier checkpoints are intact")
            .hint("free disk space and run the same command again: it continues from the last checkpoint")
    };
    let result = (|| {
        let mut manifest = BTreeMap::new();
        for (name, bytes) in files {
            write_synced(&tmp.join(name), bytes)?;
            manifest.insert(*name, Entry { bytes: bytes.len(), blake3: super::blake3(bytes) });
        }
        fail_point("commit.manifest")?;
        let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::other)?;
        write_synced(&tmp.join(MANIFEST), &text)?;
        fs::File::open(tmp)?.sync_all()?;
        fail_point("commit.rename")?;
        // An older directory of that name is set aside, not removed, until the new one is in its place.
        let old = dir.exists().then(|| aside(dir));
        if let Some(old) = &old {
            remove_dir_all(old).map_err(std::io::Error::other)?;
            fs::rename(dir, old)?;
        }
        fs::rename(tmp, dir)?;
        fail_point("commit.renamed")?;
        old.map_or(Ok(()), fs::remove_dir_all)
    })();
    if let Err(e) = result {
        let _ = fs::remove_dir_all(tmp);
        return Err(fail(e));
    }
    sync_dir(parent)
}

/// Reads a committed directory and checks every file against the manifest.
///
/// # Errors
/// [`crate::Kind::Data`] that names the damaged file.
pub fn read_committed(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    // Killed between the two renames of a replacement: the older one is whole.
    let waiting = aside(dir);
    let dir = if !dir.exists() && waiting.exists() { &waiting } else { dir };
    let damaged = |name: &str, what: String| {
        Error::data(format!("check {}", dir.join(name).display()))
            .expected("what its manifest says")
            .got(what)
    };
    let text = read(&dir.join(MANIFEST))?;
    let manifest: BTreeMap<String, Entry> =
        serde_json::from_slice(&text).map_err(|e| damaged(MANIFEST, e.to_string()))?;
    let mut out = BTreeMap::new();
    for (name, entry) in manifest {
        if name.contains(['/', '\\']) {
            return Err(damaged(MANIFEST, format!("a file outside the directory: {name}")));
        }
        let bytes = read(&dir.join(&name))?;
        if bytes.len() != entry.bytes {
            return Err(damaged(&name, format!("{} bytes instead of {}", bytes.len(), entry.bytes)));
        }
        if super::blake3(&bytes) != entry.blake3 {
            return Err(damaged(&name, "another checksum".into()));
        }
        out.insert(name, bytes);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_truncation_is_named() {
        let root = super::super::tests::scratch("commit");
        let dir = root.join("step-1");
        commit_dir(&dir, &[("a.bin", &[7; 100]), ("b.json", b"{}")]).unwrap();
        assert_eq!(read_committed(&dir).unwrap()["a.bin"], [7; 100]);
        for name in ["a.bin", "b.json", MANIFEST] {
            let good = read(&dir.join(name)).unwrap();
            for bit in (0..good.len() * 8).step_by(37) {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(dir.join(name), &bad).unwrap();
                assert!(read_committed(&dir).is_err(), "{name} bit {bit}");
            }
            fs::write(dir.join(name), &good[..good.len() - 1]).unwrap();
            assert!(read_committed(&dir).is_err(), "{name} cut");
            fs::write(dir.join(name), &good).unwrap();
        }
        assert!(read_committed(&dir).is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
