//! What a layer knows of a call.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::Result;

/// Tries a call once. May be called any number of times, also not at all.
pub type Attempt<'a, T> = &'a (dyn Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a);

/// One call to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The name of the backend.
    pub backend: &'static str,
    /// Which method.
    pub operation: Operation,
    /// How long the call may wait for an entry, besides the time that it takes.
    pub block: Option<Duration>,
}

impl Call {
    /// A call that does not wait for entries.
    #[must_use]
    pub fn new(backend: &'static str, operation: Operation) -> Self {
        Self { backend, operation, block: None }
    }

    /// Waits this long for an entry.
    #[must_use]
    pub fn block(mut self, block: Option<Duration>) -> Self {
        self.block = block;
        self
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, writes: $writes:literal, idempotent: $idempotent:literal;)*) => {
        /// A method of a backend, but for those that only look at the value itself, and `close`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of the method.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether it may change something.
            #[must_use]
            pub fn writes(self) -> bool {
                match self { $(Self::$variant => $writes,)* }
            }

            /// Whether it may be repeated where nobody knows if it took place: the effect is then the same as of once, and
            /// the answer to the repetition hides nothing.
            #[must_use]
            pub fn is_idempotent(self) -> bool {
                match self { $(Self::$variant => $idempotent,)* }
            }
        }
    };
}

operations! {
    /// `append`. Repeated, it would append again.
    Append = "append", writes: true, idempotent: false;
    /// `trim`.
    Trim = "trim", writes: true, idempotent: true;
    /// `inspect`.
    Inspect = "inspect", writes: false, idempotent: true;
    /// `read`.
    Read = "read", writes: false, idempotent: true;
    /// `ensure_group`.
    EnsureGroup = "ensure_group", writes: true, idempotent: true;
    /// `read_group`. Repeated, it would hide entries that became pending unseen.
    ReadGroup = "read_group", writes: true, idempotent: false;
    /// `read_pending`. Delivery counts may grow.
    ReadPending = "read_pending", writes: true, idempotent: true;
    /// `claim`. Repeated, it would hide entries that were claimed unseen.
    Claim = "claim", writes: true, idempotent: false;
    /// `heartbeat`. Repeated, `Unbroken` would hide a `Fresh` whose reply was lost.
    Heartbeat = "heartbeat", writes: true, idempotent: false;
    /// `ack`.
    Ack = "ack", writes: true, idempotent: true;
    /// `leave`.
    Leave = "leave", writes: true, idempotent: true;
    /// `dead_letter`.
    DeadLetter = "dead_letter", writes: true, idempotent: true;
    /// `dead_keys`.
    DeadKeys = "dead_keys", writes: false, idempotent: true;
    /// `redrive`. Repeated, what was done would look as if it had been done before.
    Redrive = "redrive", writes: true, idempotent: false;
    /// `remove`.
    Remove = "remove", writes: true, idempotent: true;
    /// `load`.
    Load = "load", writes: false, idempotent: true;
    /// `list`.
    List = "list", writes: false, idempotent: true;
    /// `acquire`. An epoch may be skipped, which is harmless.
    Acquire = "acquire", writes: true, idempotent: true;
    /// `renew`.
    Renew = "renew", writes: true, idempotent: true;
    /// `release`.
    Release = "release", writes: true, idempotent: true;
    /// `advance`.
    Advance = "advance", writes: true, idempotent: true;
    /// `reset`. Repeated, it would issue another epoch, or refuse the one that it issued.
    Reset = "reset", writes: true, idempotent: false;
    /// `attempts`.
    Attempts = "attempts", writes: false, idempotent: true;
    /// `note_attempts`.
    NoteAttempts = "note_attempts", writes: true, idempotent: true;
    /// `settle`.
    Settle = "settle", writes: true, idempotent: true;
    /// `begin`.
    Begin = "begin", writes: false, idempotent: true;
    /// `settled`. An error ends the transaction.
    Settled = "settled", writes: false, idempotent: false;
    /// `commit`. It ends the transaction, whatever it answers.
    Commit = "commit", writes: true, idempotent: false;
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
