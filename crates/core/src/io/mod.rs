//! The one I/O seam. Nothing else in the workspace opens, writes, renames or removes a file.
//!
//! Promises: a file written here is the old or the new one after a crash; a directory committed here is there
//! whole or not at all; a log cut to a recorded length continues byte for byte. `ECR_FAILPOINT` makes named points
//! fail (see [`fail_point`]), for tests.
#![allow(clippy::disallowed_methods)]

mod append;
mod commit;
mod fail;
mod lock;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub use append::AppendLog;
pub use commit::{commit_dir, read_committed};
pub use fail::fail_point;
pub use lock::DirLock;

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", path, &e))
}

/// Reads a UTF-8 text file.
pub fn read_to_string(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        Error::data(format!("read {}", path.display())).expected("UTF-8 text").got(e.utf8_error().to_string())
    })
}

/// Reads a text file that holds a secret: a regular file that nobody but its owner may read or write.
///
/// # Errors
/// [`crate::Kind::Config`] for other permissions; the text is in no message.
pub fn read_private(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).map_err(|e| Error::io("read", path, &e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = meta.permissions().mode() & 0o777;
        if !meta.is_file() || mode & 0o077 != 0 {
            return Err(Error::config(format!("read the secret {}", path.display()))
                .expected("a file of mode 0600")
                .got(format!("mode {mode:04o}"))
                .hint(format!("chmod 600 {}", path.display())));
        }
    }
    #[cfg(not(unix))]
    let _ = meta;
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    Ok(text)
}

/// Reads a file, unpacked if its name ends in `.gz`.
pub fn read_maybe_gz(path: &Path) -> Result<Vec<u8>> {
    let raw = read(path)?;
    if path.extension().is_none_or(|x| x != "gz") {
        return Ok(raw);
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&raw[..])
        .read_to_end(&mut out)
        .map_err(|e| Error::io("unpack", path, &e))?;
    Ok(out)
}

/// Writes a file so that it is either the old or the new one after a crash: aside, fsync, rename, fsync the
/// directory.
///
/// # Errors
/// [`crate::Kind::Io`]; the file that was there before is intact.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_dir_all(dir)?;
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let written = write_synced(&tmp, bytes).and_then(|()| fail_point("atomic_write.rename"));
    if let Err(e) = written.and_then(|()| fs::rename(&tmp, path)) {
        let _ = fs::remove_file(&tmp);
        return Err(Error::io("write", path, &e)
            .files("the file that was there before, if any, is intact")
            .hint(if e.kind() == std::io::ErrorKind::StorageFull {
                format!("free at least {} bytes on that disk and run the same command again", bytes.len())
            } else {
                "check the directory's permissions and run the same command again".into()
            }));
    }
    sync_dir(dir)
}

/// Writes and fsyncs a file in place.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut f = fs::File::create(path)?;
    fail_point("write")?;
    f.write_all(bytes)?;
    f.sync_all()
}

/// Creates a directory and its parents.
pub fn create_dir_all(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| Error::io("create directory", path, &e))
}

/// Gives a file a second name, or copies it where that cannot be (another disk, a file system without links). For files
/// that are replaced as wholes and never written into: both names would show the change.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
    if to.exists() {
        fs::remove_file(to).map_err(|e| Error::io("replace", to, &e))?;
    }
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => atomic_write(to, &read(from)?),
    }
}

/// Flushes a directory's entries to the disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::File::open(path).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync directory", path, &e))
}

/// Entries of a directory by name; empty if it does not exist.
pub fn read_dir_sorted(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", path, &e)),
    };
    let mut out = Vec::new();
    for entry in entries {
        out.push(entry.map_err(|e| Error::io("list", path, &e))?.path());
    }
    out.sort();
    Ok(out)
}

/// All files below a path (itself, if it is a file), by name.
pub fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut out = Vec::new();
    for entry in read_dir_sorted(path)? {
        out.extend(files_below(&entry)?);
    }
    Ok(out)
}

/// Removes a directory and everything in it; nothing if it does not exist.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// SHA-256 of bytes, hex.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// BLAKE3 of bytes, hex.
pub fn blake3(bytes: &[u8]) -> String {
    ::blake3::hash(bytes).to_hex().to_string()
}

/// BLAKE3 of a file, hex, read piece by piece.
pub fn blake3_file(path: &Path) -> Result<String> {
    let mut hasher = ::blake3::Hasher::new();
    fs::File::open(path)
        .and_then(|f| hasher.update_reader(f).map(|_| ()))
        .map_err(|e| Error::io("read", path, &e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let dir = scratch("hash");
        let bytes: Vec<u8> = (0..300_001_u32).map(|i| (i * i % 251) as u8).collect();
        for n in [0, 1, 65_536, 300_001] {
            atomic_write(&dir.join("x"), &bytes[..n]).unwrap();
            assert_eq!(blake3_file(&dir.join("x")).unwrap(), blake3(&bytes[..n]), "{n} bytes");
        }
        assert_eq!(blake3_file(&dir.join("y")).unwrap_err().exit_code(), 5);
        fs::remove_dir_all(dir).unwrap();
    }

    pub(super) fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ecr-io-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn atomic_write_replaces_and_leaves_no_scratch() {
        let dir = scratch("atomic");
        let path = dir.join("a/b.txt");
        atomic_write(&path, b"one").unwrap();
        atomic_write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(files_below(&dir).unwrap(), [path]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = scratch("secret");
        let path = dir.join("key");
        atomic_write(&path, b"sk-1").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let got = read_private(&path);
            assert_eq!(got.is_ok(), good, "{mode:o}");
            assert!(good || !got.unwrap_err().to_string().contains("sk-1"));
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_keeps_its_text_when_the_other_name_is_replaced() {
        let dir = scratch("link");
        let (a, b) = (dir.join("a"), dir.join("x/b"));
        atomic_write(&a, b"one").unwrap();
        link_or_copy(&a, &b).unwrap();
        link_or_copy(&a, &b).unwrap();
        atomic_write(&a, b"two").unwrap();
        assert_eq!((read(&a).unwrap(), read(&b).unwrap()), (b"two".to_vec(), b"one".to_vec()));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_in_the_way_is_a_clean_error() {
        let dir = scratch("in-the-way");
        fs::create_dir_all(dir.join("x/y")).unwrap();
        let e = atomic_write(&dir.join("x"), b"one").unwrap_err();
        assert_eq!(e.exit_code(), 5);
        assert!(e.to_string().contains("intact"));
        assert!(!dir.join("x.tmp").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
