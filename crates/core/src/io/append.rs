//! Append-only files that can be cut back to a recorded length.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A log of lines. A resumed run cuts it to the length of its checkpoint, so that logs too are equal to the bit.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
    len: u64,
}

impl AppendLog {
    /// Opens (or creates) a log and cuts it to `len` bytes.
    ///
    /// # Errors
    /// [`crate::Kind::Io`], also if the log is shorter than `len`.
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        super::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let fail = |e| Error::io("open", path, &e);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(fail)?;
        let have = file.metadata().map_err(fail)?.len();
        if have < len {
            return Err(Error::new(crate::Kind::Io, format!("continue the log {}", path.display()))
                .expected(format!("at least {len} bytes, as the checkpoint says"))
                .got(format!("{have} bytes"))
                .hint("the log was cut by hand: run the stage again with --force"));
        }
        file.set_len(len).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(Self { file, path: path.to_path_buf(), len })
    }
    /// Appends one line by a single write.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(b'\n');
        self.put(&bytes)
    }
    /// Appends bytes by a single write, at the fail point `append.bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        super::fail_point("append.bytes").map_err(|e| Error::io("append to", &self.path, &e))?;
        self.put(bytes)
    }
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("append to", &self.path, &e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }
    /// Bytes that it holds.
    pub fn size(&self) -> u64 {
        self.len
    }
    /// Flushes to the disk and gives the length, for a checkpoint.
    pub fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, &e))?;
        Ok(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_where_it_was_cut() {
        let dir = super::super::tests::scratch("append");
        let path = dir.join("log.jsonl");
        let mut log = AppendLog::open(&path, 0).unwrap();
        log.line("a").unwrap();
        let at = log.sync().unwrap();
        log.line("lost").unwrap();
        drop(log);
        let mut log = AppendLog::open(&path, at).unwrap();
        log.line("b").unwrap();
        assert_eq!(super::super::read(&path).unwrap(), b"a\nb\n");
        assert!(AppendLog::open(&path, 100).is_err());
        super::super::remove_dir_all(&dir).unwrap();
    }
}
