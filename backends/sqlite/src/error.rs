//! What SQLite says, as what to do about it.

use highwater::{Error, ErrorKind, Outcome, Retry, Subscription};

// Primary result codes of SQLite; https://sqlite.org/rescode.html
const ERROR: u32 = 1;
const PERM: u32 = 3;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const TOOBIG: u32 = 18;
const CONSTRAINT: u32 = 19;
const AUTH: u32 = 23;
const NOTADB: u32 = 26;

/// Why an operation stopped.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The request cannot be granted. The transaction is sound.
    Refused(Error),
    /// SQLite failed. The transaction must not go on.
    Database(sqlx::Error),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Fail {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Refused(error) => error,
            Fail::Database(error) => translate(&error),
        }
    }
}

/// The error of the library for one of the driver. It was not applied: only a commit can leave that open.
pub(crate) fn translate(error: &sqlx::Error) -> Error {
    let code = code(error);
    let (kind, message) = match code {
        Some(BUSY | LOCKED) => {
            (ErrorKind::Unavailable, "another process holds the database: repeat, or lengthen `busy_timeout`")
        }
        Some(FULL) => (
            ErrorKind::Unavailable,
            "the disk or the size limit is full: free space, trim streams, or raise `max_bytes`",
        ),
        Some(READONLY) => (
            ErrorKind::Unavailable,
            "the database cannot be written: make the file and its directory writable",
        ),
        Some(PERM | AUTH) => {
            (ErrorKind::Denied, "access to the database was refused: check the rights of the file")
        }
        Some(NOTADB | CORRUPT) => (
            ErrorKind::Corrupt,
            "the file is no sound SQLite database: restore it from a backup, or use another path",
        ),
        Some(TOOBIG) => {
            (ErrorKind::Invalid, "the entry is larger than SQLite can hold: store the payload elsewhere")
        }
        Some(CONSTRAINT) => (
            ErrorKind::Handler,
            "what the transaction wrote cannot be committed: look at the cause, and correct the handler",
        ),
        Some(CANTOPEN) => (
            ErrorKind::Unavailable,
            "the database file cannot be opened: check the path, its rights and open files",
        ),
        Some(ERROR) if error.to_string().contains("no such table") => {
            (ErrorKind::Missing, "the tables of the database are gone: open it again to create them")
        }
        // A value of another type than the schema says: somebody else wrote it.
        None if is_decode(error) => {
            (ErrorKind::Corrupt, "a stored value cannot be read: restore the database file")
        }
        // The disk, or memory, or a code of a later SQLite: all we know is that it did not work this time.
        _ => (ErrorKind::Unavailable, "the database cannot answer: look at the cause, and repeat"),
    };
    let translated = Error::new(kind, message).with_source(error.to_string());
    match code {
        Some(code) => translated.with("code", code),
        None => translated,
    }
}

/// The error for a commit that failed. Whether it took effect is known unless the disk failed in the middle of it.
pub(crate) fn translate_commit(error: &sqlx::Error, rolled_back: bool) -> Error {
    let known = rolled_back && matches!(code(error), Some(BUSY | LOCKED | FULL | READONLY | CONSTRAINT));
    translate(error).with_outcome(if known { Outcome::NotApplied } else { Outcome::Unknown })
}

/// Whether somebody else holds the database for the moment.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether the disk itself failed, so that the connection is not to be trusted.
pub(crate) fn is_io(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(IOERR | CORRUPT | NOTADB)) || !matches!(error, sqlx::Error::Database(_))
}

pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the database was closed, or the runtime that opened it has stopped: open it again",
    )
}

pub(crate) fn no_turn() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "a transaction holds the database: end it sooner, or lengthen `busy_timeout`",
    )
    .with_retry(Retry::Now)
}

pub(crate) fn lost_reply() -> Error {
    closed().with_outcome(Outcome::Unknown)
}

pub(crate) fn missing_group(subscription: &Subscription) -> Error {
    Error::new(ErrorKind::Missing, "there is no such stream or group: create it with `ensure_group`")
        .with("stream", &subscription.stream)
        .with("group", &subscription.group)
}

fn code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    // The extended code carries the primary one in its low byte.
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

fn is_decode(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}
