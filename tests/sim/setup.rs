//! How the consumers of a run are set up, drawn from its seed.

use std::time::Duration;

use highwater::{Backoff, CheckpointPolicy, OnGap, OnReset, Ownership, Settings};

/// How long a consumer counts as alive.
pub const TTL: Duration = Duration::from_millis(300);
/// How long a stop may take.
pub const DRAIN: Duration = Duration::from_millis(200);
/// Handlers at once, where there is no order or one by key.
pub const LANES: usize = 4;
/// So many times a process may be killed while it handles an entry.
pub const CRASHES_MAX: u32 = 2;
/// Deliveries at once.
pub const IN_FLIGHT: usize = 16;

/// In which order entries are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    Strict,
    Keyed,
    Unordered,
}

/// How entries are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Entries,
    Batches,
    Transactions,
    TransactionBatches,
}

impl Style {
    pub fn is_transactional(self) -> bool {
        matches!(self, Self::Transactions | Self::TransactionBatches)
    }

    pub fn is_batches(self) -> bool {
        matches!(self, Self::Batches | Self::TransactionBatches)
    }
}

/// How the consumers of a run are set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub ownership: Ownership,
    pub ordering: Ordering,
    pub style: Style,
    pub policy: CheckpointPolicy,
    /// Both stores are one.
    pub one_store: bool,
    /// They settle in one step.
    pub fused: bool,
    pub on_gap: OnGap,
    pub on_reset: OnReset,
    /// The share of calls that go wrong.
    pub faults: f64,
    /// Entries come from a producer whose calls go wrong, too, and not from the operator.
    pub producer: bool,
    /// The share of handler calls that fail.
    pub failures: f64,
    /// So many failures make a dead letter.
    pub attempts_max: u32,
    /// So many letters with a key may lie there before a key waits; 0: no entries are parked.
    pub parks: u64,
    /// Whether processes die of some entries.
    pub poison: bool,
    /// Consumers at once.
    pub consumers: usize,
    /// What happens to them.
    pub steps: usize,
}

impl Setup {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let ownership = if random.bool() { Ownership::Shared } else { Ownership::Exclusive };
        let style =
            [Style::Entries, Style::Entries, Style::Batches, Style::Transactions, Style::TransactionBatches];
        let style = style[random.usize(..style.len())];
        let ordering = match random.u8(..3) {
            _ if style.is_batches() => Ordering::Strict,
            _ if style.is_transactional() && ownership == Ownership::Exclusive => Ordering::Strict,
            0 => Ordering::Strict,
            1 => Ordering::Keyed,
            _ => Ordering::Unordered,
        };
        let policies = [
            CheckpointPolicy::Coalesced,
            CheckpointPolicy::EveryAck,
            CheckpointPolicy::Entries(3),
            CheckpointPolicy::Interval(Duration::from_millis(20)),
        ];
        let one_store = random.bool();
        Self {
            ownership,
            ordering,
            style,
            policy: policies[random.usize(..policies.len())],
            one_store,
            fused: one_store && random.bool(),
            on_gap: if random.u8(..4) == 0 { OnGap::Fail } else { OnGap::Skip },
            on_reset: if random.bool() { OnReset::Fail } else { OnReset::FromBeginning },
            faults: [0.0, 0.02, 0.1][random.usize(..3)],
            producer: random.bool(),
            failures: [0.0, 0.05, 0.2][random.usize(..3)],
            attempts_max: [2, 4, u32::MAX][random.usize(..3)],
            parks: if ordering == Ordering::Keyed { [0, 3, 50][random.usize(..3)] } else { 0 },
            poison: random.u8(..4) == 0,
            consumers: random.usize(1..=4),
            steps: random.usize(12..=36),
        }
    }

    /// Whether the process of whoever handles it dies.
    pub fn is_poison(&self, n: u64) -> bool {
        self.poison && n % 16 == 5
    }

    pub fn is_shared(&self) -> bool {
        self.ownership == Ownership::Shared
    }

    pub fn configure(&self, settings: &mut Settings) {
        settings.ownership = self.ownership;
        settings.checkpoint = self.policy;
        (settings.on_gap, settings.on_reset) = (self.on_gap, self.on_reset);
        (settings.attempts_max, settings.crashes_max) = (self.attempts_max, CRASHES_MAX);
        settings.parked_entries_max = self.parks;
        settings.retry = short(1, 5);
        settings.reconnect = short(2, 20);
        settings.read_entries_max = if self.steps.is_multiple_of(2) { 8 } else { 4 };
        settings.readers = if self.is_shared() { 8 / settings.read_entries_max } else { 1 };
        settings.in_flight_entries_max = IN_FLIGHT;
        settings.window_entries_max = 40;
        settings.block = Duration::from_millis(40);
        settings.probe_interval = Duration::from_millis(100);
        settings.ttl = TTL;
        settings.claim_interval = Duration::from_millis(50);
        settings.claim_min_idle = Duration::from_millis(500);
        settings.drain_timeout = DRAIN;
    }
}

fn short(first: u64, max: u64) -> Backoff {
    Backoff { first: Duration::from_millis(first), max: Duration::from_millis(max), ..Backoff::default() }
}
