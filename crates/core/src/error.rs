//! One error type. Its message says the operation, what was expected, what was found, what happened to the
//! user's files, and what to do next.

use std::fmt;

/// Result of every fallible function in the workspace.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A failed audit or check (exit 1).
    Check,
    /// Wrong usage or configuration (exit 2).
    Config,
    /// Unusable data or model file (exit 3).
    Data,
    /// Judge or network (exit 4).
    Network,
    /// Disk or I/O (exit 5).
    Io,
    /// Training diverged (exit 6).
    Diverged,
    /// Interrupted by the user (exit 130).
    Interrupted,
    /// A bug in ecr (exit 70).
    Internal,
}

/// An error with its context; build it with [`Error::new`] and the chained setters.
#[derive(Debug, Clone)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// The operation that failed: "read config.json of runs/a/models/baseline_ecr".
    pub operation: String,
    /// What was expected there, if that helps.
    pub expected: Option<String>,
    /// What was found instead.
    pub got: Option<String>,
    /// What happened to the user's files ("nothing was written", "the previous checkpoint is intact").
    pub files: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Error {
    /// A new error of `kind` in `operation`.
    pub fn new(kind: Kind, operation: impl Into<String>) -> Self {
        Self { kind, operation: operation.into(), expected: None, got: None, files: None, hint: None }
    }
    /// Shorthand for [`Kind::Config`].
    pub fn config(operation: impl Into<String>) -> Self {
        Self::new(Kind::Config, operation)
    }
    /// Shorthand for [`Kind::Data`].
    pub fn data(operation: impl Into<String>) -> Self {
        Self::new(Kind::Data, operation)
    }
    /// Shorthand for [`Kind::Internal`]: a broken promise between our own parts.
    pub fn internal(operation: impl Into<String>) -> Self {
        Self::new(Kind::Internal, operation)
    }
    /// An I/O error at `path`, as it comes from the operating system.
    pub fn io(operation: impl Into<String>, path: &std::path::Path, e: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("{} {}", operation.into(), path.display())).got(e.to_string())
    }
    /// Sets what was expected.
    pub fn expected(mut self, s: impl Into<String>) -> Self {
        self.expected = Some(s.into());
        self
    }
    /// Sets what was found.
    pub fn got(mut self, s: impl Into<String>) -> Self {
        self.got = Some(s.into());
        self
    }
    /// Sets what happened to the user's files.
    pub fn files(mut self, s: impl Into<String>) -> Self {
        self.files = Some(s.into());
        self
    }
    /// Sets what to do next.
    pub fn hint(mut self, s: impl Into<String>) -> Self {
        self.hint = Some(s.into());
        self
    }
    /// The documented exit code of this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Check => 1,
            Kind::Config => 2,
            Kind::Data => 3,
            Kind::Network => 4,
            Kind::Io => 5,
            Kind::Diverged => 6,
            Kind::Internal => 70,
            Kind::Interrupted => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        for (label, text) in
            [("expected", &self.expected), ("got", &self.got), ("files", &self.files), ("hint", &self.hint)]
        {
            if let Some(t) = text {
                write!(f, "\n  {label}: {t}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
