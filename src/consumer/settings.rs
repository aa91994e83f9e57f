//! The limits and policies of a consumer: plain data, checked when it is built.

use std::time::Duration;

use crate::{Backoff, EntryId, Error, Result};

/// How a subscription is owned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Any number of consumers compete, through a group on the server. Scales by adding consumers; no order across them.
    #[default]
    Shared,
    /// One owner at a time, by lease and epoch; the others stand by. Strict order, and no group on the server.
    Exclusive,
}

/// Where a subscription without a checkpoint starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With the first entry of the stream. The default, since it loses nothing.
    #[default]
    Beginning,
    /// Behind the last entry that the stream holds when the subscription starts for the first time.
    End,
    /// Behind this id.
    After(EntryId),
}

/// When the checkpoint is written. Never more than one write is under way, and each carries all that is settled by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckpointPolicy {
    /// At once when nothing is left to handle and the last write is 25 ms ago; otherwise after 1,000 entries or 25 ms,
    /// whichever comes first.
    #[default]
    Coalesced,
    /// After each entry, before the next handler starts. The least redelivery after a crash, and the slowest.
    EveryAck,
    /// After this many entries, or a second after the first of them.
    Entries(u64),
    /// After this many bytes of fields, or a second after the first of them.
    Bytes(u64),
    /// This long after the first entry that is not in the checkpoint.
    Interval(Duration),
}

/// What to do when entries left the stream before they were settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// Stop with [`ErrorKind::Gap`](crate::ErrorKind::Gap).
    #[default]
    Fail,
    /// Report it and go on behind the gap.
    Skip,
}

/// What to do when the checkpoint does not belong to the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnReset {
    /// Stop with [`ErrorKind::Reset`](crate::ErrorKind::Reset).
    #[default]
    Fail,
    /// Reset the checkpoint and start with the first entry of the stream as it is now.
    FromBeginning,
    /// Reset the checkpoint and start behind the last entry of the stream as it is now.
    FromEnd,
}

/// What to do with an entry that is given up: rejected, or failed as often or for as long as it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnExhausted {
    /// Move it to the dead letters, in one step with its ack where both are on one server, and go on.
    #[default]
    DeadLetter,
    /// Settle it, report it, and go on: its effects are lost.
    Skip,
    /// Stop with [`ErrorKind::Handler`](crate::ErrorKind::Handler). The entry is not settled.
    Stop,
}

/// The limits and policies of a [`Consumer`](crate::Consumer).
///
/// Each has a default that suits most. They are checked when the consumer is built.
///
/// ```
/// use std::time::Duration;
/// use highwater::Settings;
///
/// let mut settings = Settings::default();
/// settings.drain_timeout = Duration::from_secs(30);
/// settings.in_flight_entries_max = 100;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// How the subscription is owned. Default: [`Ownership::Shared`].
    pub ownership: Ownership,
    /// Where to start without a checkpoint. Default: [`StartAt::Beginning`].
    pub start: StartAt,
    /// When the checkpoint is written. Default: [`CheckpointPolicy::Coalesced`].
    pub checkpoint: CheckpointPolicy,
    /// What to do about lost entries. Default: [`OnGap::Fail`].
    pub on_gap: OnGap,
    /// What to do about another stream. Default: [`OnReset::Fail`].
    pub on_reset: OnReset,
    /// What to do about an entry that cannot be handled. Default: [`OnExhausted::DeadLetter`].
    pub on_exhausted: OnExhausted,

    /// How often the handler may fail with an entry before it is given up, by all processes together. What a process that was
    /// killed had not noted yet is not counted. Default: 5.
    pub attempts_max: u32,
    /// How often a process may die while it handles an entry before that is given up. Such an entry comes again alone, and
    /// only then can be told from those beside it, so the process dies once or twice more than this. Default: 5.
    pub crashes_max: u32,
    /// The waits between attempts. Default: 100 ms, doubling to 30 s.
    pub retry: Backoff,
    /// An entry that fails this long after it failed first is given up, however few its attempts. Default: none.
    pub retry_elapsed_max: Option<Duration>,
    /// A call of the handler that takes longer is dropped at its next await, and has failed. A delivery that is settled by hand has
    /// so long from when it was taken. Default: none.
    pub handler_timeout: Option<Duration>,
    /// With [`keyed`](crate::Builder::keyed) order: entries of a key that has dead letters follow them there, in order, until the
    /// key is redriven or dropped; up to so many letters with a key, and then the key waits. 0: they are handled. Default: 0.
    pub parked_entries_max: u64,
    /// The waits before a server that cannot answer is asked again. Default: 50 ms, doubling to 2 s.
    pub reconnect: Backoff,

    /// The most entries that one read asks for. More make fewer round trips and later first handlers. Default: 1,000.
    pub read_entries_max: usize,
    /// How many reads may be under way at once while the subscription lags, each by a connection of its own and for
    /// `read_entries_max`. More keep the server busier, and need room: see `in_flight_entries_max`. The order is that of one reader:
    /// what they bring is put in order before anything of it is handled. Only with [`Ownership::Shared`]. Default: 1.
    pub readers: usize,
    /// The most deliveries that this process holds and has not handled. A claim from the dead that comes beside a read may go
    /// over it, to twice as many at most. Default: 4,096.
    pub in_flight_entries_max: usize,
    /// The most bytes of fields in them. One read may go over it by one batch of entries that are larger than those before.
    /// Default: 16 MiB.
    pub in_flight_bytes_max: usize,
    /// The most entries from the first that is not in the checkpoint to the last that was read. When one entry is stuck or the
    /// store is away, reading pauses here, and memory stays flat. Default: 65,536.
    pub window_entries_max: usize,
    /// The most bytes of the checkpoint's settled-ahead set. What does not fit is delivered again after a crash.
    /// Default: 768, which keeps a record under 1 KiB.
    pub ahead_bytes_max: usize,

    /// How long one read waits for an entry. A stream that is deleted while a read waits is noticed this late.
    /// Default: 1 s.
    pub block: Duration,
    /// How often the stream is held against the checkpoint while running, and a shared consumer that saves nothing looks whether
    /// the subscription was reset or paused. Default: 1 s.
    pub probe_interval: Duration,
    /// How long a consumer counts as alive after a heartbeat, and an owner's lease lasts. It is renewed three times as often.
    /// Shorter is a faster takeover, longer forgives longer pauses. Default: 3 s.
    pub ttl: Duration,
    /// How often entries of dead consumers are looked for, unless a probe less than a `ttl` ago found nothing pending with others.
    /// What a dead one held is claimed within `ttl` and one and a half times this. In a group of many, a look that found nobody
    /// dead does for all of them for a quarter of this time. Default: 1 s.
    pub claim_interval: Duration,
    /// After which idle time entries are claimed from consumers that keep no heartbeat, being of other software.
    /// Default: 60 s.
    pub claim_min_idle: Duration,
    /// How long a stop waits for handlers that run, and then for the last checkpoint. Default: 10 s.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ownership: Ownership::default(),
            start: StartAt::default(),
            checkpoint: CheckpointPolicy::default(),
            on_gap: OnGap::default(),
            on_reset: OnReset::default(),
            on_exhausted: OnExhausted::default(),
            attempts_max: 5,
            crashes_max: 5,
            retry_elapsed_max: None,
            handler_timeout: None,
            parked_entries_max: 0,
            retry: Backoff::default(),
            reconnect: Backoff {
                first: Duration::from_millis(50),
                max: Duration::from_secs(2),
                ..Backoff::default()
            },
            read_entries_max: 1_000,
            readers: 1,
            in_flight_entries_max: 4_096,
            in_flight_bytes_max: 16 << 20,
            window_entries_max: 65_536,
            ahead_bytes_max: 768,
            block: Duration::from_secs(1),
            probe_interval: Duration::from_secs(1),
            ttl: Duration::from_secs(3),
            claim_interval: Duration::from_secs(1),
            claim_min_idle: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) names the setting and what it must be.
    pub fn validate(&self) -> Result<()> {
        let at_least_one = [
            ("attempts_max", self.attempts_max as usize),
            ("crashes_max", self.crashes_max as usize),
            ("read_entries_max", self.read_entries_max),
            ("readers", self.readers),
            ("in_flight_entries_max", self.in_flight_entries_max),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
        ];
        if let Some((name, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::invalid("the setting must be at least 1").with("setting", name));
        }
        if self.readers > 1 && self.ownership == Ownership::Exclusive {
            return Err(Error::invalid(
                "`readers` is for shared ownership: an owner reads each batch behind the one before",
            )
            .with("readers", self.readers));
        }
        if self.window_entries_max < self.in_flight_entries_max {
            return Err(Error::invalid("`window_entries_max` must be at least `in_flight_entries_max`")
                .with("window_entries_max", self.window_entries_max)
                .with("in_flight_entries_max", self.in_flight_entries_max));
        }
        let interval = match self.checkpoint {
            CheckpointPolicy::Interval(interval) => interval,
            _ => Duration::ZERO,
        };
        // Each is added to a time that it must not overflow.
        let waits = [
            ("block", self.block, 10),
            ("probe_interval", self.probe_interval, 10),
            ("ttl", self.ttl, 100),
            ("claim_interval", self.claim_interval, 10),
            ("claim_min_idle", self.claim_min_idle, 1),
            ("drain_timeout", self.drain_timeout, 0),
            ("checkpoint", interval, 0),
            ("retry_elapsed_max", self.retry_elapsed_max.unwrap_or_default(), 0),
            ("handler_timeout", self.handler_timeout.unwrap_or(Duration::from_millis(1)), 1),
        ];
        for (name, value, min_ms) in waits {
            if !(Duration::from_millis(min_ms)..=Duration::from_secs(86_400)).contains(&value) {
                return Err(Error::invalid("the setting is out of range")
                    .with("setting", name)
                    .with("min", format_args!("{min_ms} ms"))
                    .with("max", "1 day"));
            }
        }
        match self.checkpoint {
            CheckpointPolicy::Entries(0)
            | CheckpointPolicy::Bytes(0)
            | CheckpointPolicy::Interval(Duration::ZERO) => {
                return Err(Error::invalid("a checkpoint policy needs a limit above zero")
                    .with("setting", "checkpoint"));
            }
            _ => {}
        }
        self.retry.validate("retry")?;
        self.reconnect.validate("reconnect")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g18_each_bad_setting_is_named() {
        Settings::default().validate().expect("the defaults are valid");
        type Spoil = fn(&mut Settings);
        let bad: [(&str, Spoil); 11] = [
            ("attempts_max", |s| s.attempts_max = 0),
            ("read_entries_max", |s| s.read_entries_max = 0),
            ("readers", |s| s.readers = 0),
            ("readers", |s| (s.readers, s.ownership) = (2, Ownership::Exclusive)),
            ("window_entries_max", |s| s.window_entries_max = 1),
            ("ttl", |s| s.ttl = Duration::ZERO),
            ("block", |s| s.block = Duration::from_secs(100_000)),
            ("checkpoint", |s| s.checkpoint = CheckpointPolicy::Entries(0)),
            ("retry", |s| s.retry.jitter = 2.0),
            ("retry", |s| s.retry.factor = f64::NAN),
            ("reconnect", |s| s.reconnect.first = Duration::ZERO),
        ];
        for (name, spoil) in bad {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
