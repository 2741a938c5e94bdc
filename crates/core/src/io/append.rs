//! Append-only files that can be cut back to a recorded length.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
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
    /// Opens (or creates) a log for this process alone, until dropped: `whole` sees what it holds and says how many
    /// bytes of it are to stay.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] if another process holds it; what `whole` returns, and then nothing is cut.
    pub fn open_exclusive(path: &Path, whole: impl FnOnce(&[u8]) -> Result<usize>) -> Result<Self> {
        super::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let fail = |e| Error::io("open", path, &e);
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).truncate(false).read(true).write(true).open(path).map_err(fail)?;
        // Locked before it is read: a cut by a second process would take the first one's last line.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(crate::Kind::Io, format!("lock {}", path.display()))
                    .got("another ecr process is using it")
                    .files("nothing was changed"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, &e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        let len = whole(&bytes)?.min(bytes.len()) as u64;
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
    fn an_exclusive_log_is_not_opened_twice() {
        let dir = super::super::tests::scratch("exclusive");
        let path = dir.join("log.jsonl");
        let mut one = AppendLog::open_exclusive(&path, |_| Ok(0)).unwrap();
        one.line("kept").unwrap();
        one.line("cut").unwrap();
        assert!(AppendLog::open_exclusive(&path, |_| Ok(0)).is_err());
        drop(one);
        drop(AppendLog::open_exclusive(&path, |b| Ok(b.len() - 4)).unwrap());
        assert_eq!(super::super::read(&path).unwrap(), b"kept\n");
        super::super::remove_dir_all(&dir).unwrap();
    }

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
