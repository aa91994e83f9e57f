//! Bugs that are planted: each spoils what a server does for the consumers, or what the runtime does for a handler, and must be
//! found by what it breaks.

use std::time::Duration;

use highwater::{
    ConsumerName, Result,
    backend::{Leave, StreamBackend},
};

use crate::server::Server;

/// How wrong the clock of [`Mutant::SkewedExpiry`] is.
const SKEW: Duration = Duration::from_millis(150);

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// An ack or an advance that failed is reported as done.
    SwallowedError,
    /// The checkpoint advances to the greatest id that was read.
    HighestSeen,
    /// What is settled ahead of the watermark is not stored.
    ForgottenAhead,
    /// Leases and heartbeats end by a wall clock that is wrong.
    SkewedExpiry,
    /// Entries are claimed from consumers that live.
    ClaimFromLiving,
    /// A consumer claims what it holds.
    ClaimFromSelf,
    /// An advance counts whatever its epoch.
    OldEpoch,
    /// A lease is renewed for whoever had it once.
    RenewedByName,
    /// A release frees the lease of whoever has it now.
    ReleasedByName,
    /// A group that was lost is made anew at the end of the stream.
    GroupAtEnd,
    /// What was claimed is not handed over.
    LostClaims,
    /// Delivery settles.
    SettleOnDelivery,
    /// Effects are committed without the advance.
    EffectsAlone,
    /// An entry is acked before its dead letter is written.
    AckBeforeLetter,
    /// The handler does not get the last entry of a batch.
    LostBatchTail,
    /// An advance that knew less moves the watermark back.
    LastWriteWins,
    /// What was trimmed does not show.
    HiddenTrims,
    /// The stream says that it has had as many entries as it has.
    CountsWhatIsLeft,
    /// A failure appends the entry again.
    RetryAppends,
    /// Nobody remembers what processes have died of.
    ForgottenCrashes,
    /// What a process was started with counts as what it died of.
    KeptCrashes,
    /// Letters stay when they are redriven.
    RedrivenTwice,
    /// Nobody learns which keys have dead letters.
    ForgottenDeadKeys,
    /// A read does not wait.
    NeverWaits,
    /// A read brings more than was asked for.
    ReadsAll,
}

impl Mutant {
    pub const ALL: &[Self] = &[
        Self::SwallowedError,
        Self::HighestSeen,
        Self::ForgottenAhead,
        Self::SkewedExpiry,
        Self::ClaimFromLiving,
        Self::ClaimFromSelf,
        Self::OldEpoch,
        Self::RenewedByName,
        Self::ReleasedByName,
        Self::GroupAtEnd,
        Self::LostClaims,
        Self::SettleOnDelivery,
        Self::EffectsAlone,
        Self::AckBeforeLetter,
        Self::LostBatchTail,
        Self::LastWriteWins,
        Self::HiddenTrims,
        Self::CountsWhatIsLeft,
        Self::RetryAppends,
        Self::ForgottenCrashes,
        Self::KeptCrashes,
        Self::RedrivenTwice,
        Self::ForgottenDeadKeys,
        Self::NeverWaits,
        Self::ReadsAll,
    ];

    /// The guarantees of which it breaks one.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            // What is not saved comes again to whoever comes next, or nobody ever settles it.
            Self::SwallowedError => &["G1", "G5", "G15"],
            Self::HighestSeen => &["G2"],
            Self::ForgottenAhead => &["G5", "G15"],
            Self::SkewedExpiry | Self::ClaimFromLiving | Self::ClaimFromSelf => &["G13"],
            Self::OldEpoch | Self::RenewedByName | Self::ReleasedByName => &["G4"],
            Self::GroupAtEnd => &["G1", "G2"],
            Self::LostClaims => &["G1"],
            Self::SettleOnDelivery => &["G1", "G2"],
            Self::EffectsAlone => &["G9"],
            Self::AckBeforeLetter => &["G1", "G2"],
            Self::LostBatchTail => &["G1", "G2", "G10"],
            Self::LastWriteWins => &["G3"],
            Self::HiddenTrims => &["G7", "G8"],
            Self::CountsWhatIsLeft => &["G7", "G8"],
            Self::RetryAppends => &["G12"],
            Self::ForgottenCrashes | Self::KeptCrashes | Self::RedrivenTwice => &["G11"],
            Self::ForgottenDeadKeys => &["G10"],
            Self::NeverWaits => &["G16"],
            Self::ReadsAll => &["G17"],
        }
    }
}

impl Server {
    /// By a clock that is wrong, a lease with so much time left is over.
    pub fn thinks_it_over(&self, left: Duration) -> bool {
        self.is(Mutant::SkewedExpiry) && left < SKEW
    }

    /// Ends heartbeats that stand, but for the caller's.
    pub async fn end_heartbeats(&self, caller: &ConsumerName) -> Result<()> {
        if !self.is(Mutant::SkewedExpiry) && !self.is(Mutant::ClaimFromLiving) {
            return Ok(());
        }
        let beats: Vec<_> = {
            let audit = self.audit.lock();
            let now = audit.now();
            let left = |until: Duration| until.saturating_sub(now);
            let over = |until| self.is(Mutant::ClaimFromLiving) || self.thinks_it_over(left(until));
            let beats = audit.beats().filter(|(name, _, until)| *name != caller && over(*until));
            beats.map(|(name, token, _)| (name.clone(), token)).collect()
        };
        for (name, token) in beats {
            self.stream.leave(&Leave::new(self.subscription.clone(), name, token)).await?;
        }
        Ok(())
    }
}
