//! The one I/O seam. Nothing else in the workspace opens, writes, renames or removes a file.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    #[allow(clippy::disallowed_methods)]
    fs::read(path).map_err(|e| Error::io("read", path, &e))
}

/// Reads a UTF-8 text file.
pub fn read_to_string(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        Error::data(format!("read {}", path.display())).expected("UTF-8 text").got(e.utf8_error().to_string())
    })
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
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_dir_all(dir)?;
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let fail = |e: std::io::Error| {
        Error::io("write", path, &e).files("the file that was there before, if any, is intact")
    };
    #[allow(clippy::disallowed_methods)]
    let mut f = fs::File::create(&tmp).map_err(fail)?;
    f.write_all(bytes).map_err(fail)?;
    f.sync_all().map_err(fail)?;
    #[allow(clippy::disallowed_methods)]
    fs::rename(&tmp, path).map_err(fail)?;
    sync_dir(dir)
}

/// Creates a directory and its parents.
pub fn create_dir_all(path: &Path) -> Result<()> {
    #[allow(clippy::disallowed_methods)]
    fs::create_dir_all(path).map_err(|e| Error::io("create directory", path, &e))
}

/// Flushes a directory's entries to the disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    #[allow(clippy::disallowed_methods)]
    fs::File::open(path).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync directory", path, &e))
}

/// SHA-256 of bytes, hex.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
