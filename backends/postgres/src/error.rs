//! What PostgreSQL says, as what to do about it.

use highwater::{Epoch, Error, ErrorKind, Outcome, Retry};
use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

/// The error for a statement that failed. `unanswered`: what is known about one that was sent and not answered.
pub(crate) fn translate(error: &sqlx::Error, unanswered: Outcome) -> Error {
    match error {
        sqlx::Error::Database(refusal) => {
            // A transaction that stood still did not come to its commit.
            let known = !is_fatal(error) || refusal.code().as_deref() == Some("25P03");
            let outcome = if known { Outcome::NotApplied } else { unanswered };
            of_refusal(&**refusal).with_outcome(outcome)
        }
        sqlx::Error::PoolTimedOut => no_connection(),
        sqlx::Error::PoolClosed => closed(),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            unreadable("a row").with_source(error.to_string()).with_outcome(unanswered)
        }
        _ => Error::new(ErrorKind::Unavailable, "the connection to the database broke before it answered")
            .with_source(error.to_string())
            .with_outcome(unanswered),
    }
}

/// The error for a connection that could not be had. Nothing was sent.
pub(crate) fn translate_connect(error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::Io(_) => {
            Error::new(ErrorKind::Unavailable, "the database cannot be reached: is it running, and is the address right?")
                .with_source(error.to_string())
        }
        sqlx::Error::Tls(_) => Error::new(
            ErrorKind::Invalid,
            "TLS with the database cannot be established: look at the cause, and at `sslmode` and the TLS feature of sqlx",
        )
        .with_source(error.to_string()),
        _ => translate(error, Outcome::NotApplied).with_outcome(Outcome::NotApplied),
    }
}

/// The error for a statement in a transaction before its commit: whatever happened, nothing took place.
pub(crate) fn translate_in_transaction(error: &sqlx::Error) -> Error {
    if code(error).as_deref() == Some("25P02") {
        return Error::new(
            ErrorKind::Handler,
            "a statement of the handler failed, and the transaction with it: return the error, or use a savepoint",
        )
        .with_source(error.to_string());
    }
    translate(error, Outcome::NotApplied)
}

/// The error for a commit that failed.
pub(crate) fn translate_commit(error: &sqlx::Error) -> Error {
    match code(error).as_deref() {
        // A constraint that is checked at the end, or an error that a deferred trigger raised: with whatever code it likes. Only
        // what the server itself may say of a commit, and may not say the next time, is not the handler's.
        Some(code)
            if !is_fatal(error) && !matches!(&code[..2], "08" | "40" | "53" | "55" | "57" | "58" | "XX") =>
        {
            Error::new(
                ErrorKind::Handler,
                "what the handler wrote cannot be committed: look at the constraint or trigger in the cause",
            )
            .with("code", code)
            .with_source(error.to_string())
        }
        _ => translate(error, Outcome::Unknown),
    }
}

/// Whether the connection can be used on after this error of a single statement.
pub(crate) fn spares_the_connection(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_)) && !is_fatal(error)
}

/// Whether the connection came with a transaction that had failed, or was nested.
pub(crate) fn is_dirty(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("25P02")
        || matches!(error, sqlx::Error::InvalidSavePointStatement | sqlx::Error::BeginFailed)
}

/// Whether a statement is not prepared there.
pub(crate) fn is_unprepared(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("26000")
}

/// Whether a statement that was to be prepared is already.
pub(crate) fn is_prepared(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("42P05")
}

/// Whether a statement that needs a transaction was outside of one.
pub(crate) fn is_outside(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("25P01")
}

pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the store or its pool was closed, or the runtime that opened it has stopped: open it again",
    )
}

pub(crate) fn no_connection() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the pool gave no connection in time: is the database running, and is the pool large enough?",
    )
}

pub(crate) fn timed_out(outcome: Outcome) -> Error {
    Error::new(ErrorKind::Unavailable, "the database did not answer in time").with_outcome(outcome)
}

/// Somebody else wrote in between, again and again.
pub(crate) fn raced() -> Error {
    Error::new(ErrorKind::Unavailable, "others create and remove the record all the time: repeat")
        .with_retry(Retry::Now)
}

pub(crate) fn unreadable(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, "an answer of the database has an unknown form: please report it")
        .with("expected", what)
}

pub(crate) fn never_issued(epoch: Epoch, stored: Epoch) -> Error {
    Error::invalid("this epoch was never issued, or the record was lost: load the checkpoint again")
        .with("epoch", epoch)
        .with("stored", stored)
}

/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_refusal(refusal: &dyn DatabaseError) -> Error {
    let code = refusal.code().unwrap_or_default();
    let (kind, retry, message) = match &*code {
        "40001" | "40P01" => {
            (ErrorKind::Unavailable, Retry::Now, "somebody else wrote at the same time: repeat")
        }
        "55P03" | "57014" => (
            ErrorKind::Unavailable,
            Retry::Now,
            "the statement took too long: repeat, and look for transactions that stay open",
        ),
        "42P01" | "42703" | "3F000" => (
            ErrorKind::Missing,
            Retry::Never,
            "the tables are not there, or of an earlier version: call `ensure_schema`, or run `migrations/*.sql`",
        ),
        "42501" => (
            ErrorKind::Denied,
            Retry::Never,
            "the role lacks a right: grant USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables, and let their owner \
             call `ensure_schema`",
        ),
        "3D000" => (ErrorKind::Invalid, Retry::Never, "there is no such database: correct the URL"),
        "23514" | "22003" | "22008" | "22P02" => (
            ErrorKind::Corrupt,
            Retry::Never,
            "the record or the tables are not what they should be: look at the cause, then restore them",
        ),
        "25006" => (
            ErrorKind::Unavailable,
            Retry::Later,
            "the server only reads, as a standby does: connect to the primary",
        ),
        "25P03" => (
            ErrorKind::Unavailable,
            Retry::Now,
            "the transaction stood still too long, and the server ended it: repeat, or lengthen `commit_timeout`",
        ),
        code if code.starts_with("28") => {
            (ErrorKind::Denied, Retry::Never, "the server refused the user or the password: correct the URL")
        }
        _ => (
            ErrorKind::Unavailable,
            Retry::Later,
            "the database cannot answer: look at the cause, and repeat",
        ),
    };
    // The first line alone: details may quote what the user stores.
    Error::new(kind, message).with_retry(retry).with("code", code).with_source(refusal.message().to_owned())
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn is_fatal(error: &sqlx::Error) -> bool {
    let refusal = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    refusal.is_some_and(|e| matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
