//! One run a directory: an advisory lock that the kernel releases with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::{Error, Kind, Result};

/// Holds the lock of a directory until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks `dir` (its file `.lock`), creating the directory.
    ///
    /// # Errors
    /// [`Kind::Io`] if another process holds it.
    pub fn acquire(dir: &Path) -> Result<Self> {
        super::create_dir_all(dir)?;
        let path = dir.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(Kind::Io, format!("lock the run directory {}", dir.display()))
                    .got("another ecr process is using it")
                    .files("nothing was changed")
                    .hint("wait for it to end, or choose another directory with --out"))
            }
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let dir = super::super::tests::scratch("lock");
        let first = DirLock::acquire(&dir).unwrap();
        assert!(DirLock::acquire(&dir).unwrap_err().to_string().contains("another ecr process"));
        drop(first);
        DirLock::acquire(&dir).unwrap();
        super::super::remove_dir_all(&dir).unwrap();
    }
}
