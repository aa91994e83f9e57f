//! What a consumer reports while it runs.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    ConsumerName, Doom, EntryId, Error, Subscription,
    integrity::{Gap, Reset},
};

/// Something that happened in a consumer, or that it measured.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// So many entries came in to be handled.
    Delivered(u64),
    /// So many came in again that are held or settled already: they were not handled again.
    Skipped(u64),
    /// So many were handled.
    Settled(u64),
    /// So many failed and will be tried again.
    Retried(u64),
    /// An entry was moved to the dead letters.
    DeadLettered {
        /// Which.
        id: EntryId,
        /// What it died of.
        doom: &'a Doom,
    },
    /// An entry was given up and settled, by [`OnExhausted::Skip`](crate::OnExhausted::Skip).
    GivenUp {
        /// Which.
        id: EntryId,
        /// What it died of.
        doom: &'a Doom,
    },
    /// An entry was not dead-lettered, because another consumer holds it by now.
    Refused {
        /// Which.
        id: EntryId,
    },
    /// The checkpoint was advanced.
    Advanced {
        /// Where it stands now.
        watermark: EntryId,
        /// How long the stores took.
        latency: Duration,
        /// How many acks found nothing pending: somebody else had acked the entry, or claimed and finished it. Those of dead
        /// letters, which are acked with their letter, do not count.
        late_acks: u64,
    },
    /// Entries left the stream before they were settled.
    Gap(&'a Gap),
    /// The checkpoint does not belong to the stream.
    Reset(&'a Reset),
    /// The group was lost and was created at the checkpoint, or it is new.
    GroupCreated {
        /// It delivers what is above this id.
        at: EntryId,
    },
    /// Entries of dead consumers were taken over.
    Claimed(u64),
    /// This consumer's heartbeat had run out: others may have claimed what it held.
    Lapsed,
    /// Another owner holds the lease. Reported once for each owner.
    StandingBy {
        /// Who, if the store knows.
        owner: Option<&'a ConsumerName>,
    },
    /// An operator has paused the subscription. Reported once, until it goes on.
    Paused {
        /// Why, if a reason was given.
        reason: Option<&'a str>,
    },
    /// The lease was taken.
    Acquired,
    /// The lease was lost: what was in flight is dropped, and another owner delivers it.
    Lost(&'a Error),
    /// A store could not answer. The call is repeated after this wait.
    Unavailable {
        /// What it said.
        error: &'a Error,
        /// How long until the next attempt.
        wait: Duration,
    },
    /// Measured about once in a [`probe_interval`](crate::Settings::probe_interval).
    Status(Status),
}

/// How a subscription stands. `None`: the server cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Entries not delivered yet.
    pub lag: Option<u64>,
    /// Entries not settled yet.
    pub backlog: Option<u64>,
    /// Deliveries that this process holds and has not handled.
    pub in_flight: usize,
    /// Entries handled and not in the checkpoint.
    pub unsaved: usize,
    /// By the ids: how long ago the oldest entry that is not settled was appended. `None` also where there is none.
    pub oldest_unsettled_age: Option<Duration>,
    /// How long ago this process advanced the checkpoint last, or began.
    pub checkpoint_age: Duration,
    /// The watermark that this process stored last.
    pub watermark: EntryId,
}

/// Receives what a consumer reports. Called from its task, so it must not block.
///
/// Every `Fn(&Subscription, &Observation)` is an observer.
///
/// ```
/// use highwater::{Observation, Observer, Subscription};
///
/// fn check(_: impl Observer) {}
/// check(|subscription: &Subscription, observation: &Observation<'_>| {
///     if let Observation::Status(status) = observation {
///         println!("{subscription}: lag {:?}", status.lag);
///     }
/// });
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, subscription: &Subscription, observation: &Observation<'_>);
}

impl<F: Fn(&Subscription, &Observation<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, subscription: &Subscription, observation: &Observation<'_>) {
        self(subscription, observation);
    }
}

/// The user's observer, if any, and the log.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) subscription: Subscription,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl Reporter {
    pub(crate) fn report(&self, observation: &Observation<'_>) {
        log(observation);
        if let Some(observer) = &self.observer {
            observer.observe(&self.subscription, observation);
        }
    }
}

/// What an operator must see is a warning; the rest is for whoever looks closer. The span names the subscription.
fn log(observation: &Observation<'_>) {
    match observation {
        Observation::Delivered(count) => tracing::trace!(count, "delivered"),
        Observation::Skipped(count) => tracing::debug!(count, "redelivered and skipped"),
        Observation::Settled(count) => tracing::trace!(count, "settled"),
        Observation::Retried(count) => tracing::debug!(count, "will be retried"),
        Observation::DeadLettered { id, doom } => {
            tracing::warn!(%id, reason = %doom.reason, error = doom.error, "dead-lettered");
        }
        Observation::GivenUp { id, doom } => {
            tracing::warn!(%id, reason = %doom.reason, error = doom.error, "given up and skipped");
        }
        Observation::Refused { id } => {
            tracing::info!(%id, "not dead-lettered: another consumer holds the entry");
        }
        Observation::Advanced { watermark, latency, late_acks } => {
            tracing::debug!(%watermark, ?latency, late_acks, "checkpoint advanced");
        }
        Observation::Gap(gap) => {
            tracing::warn!(after = %gap.after, before = ?gap.before, lost = %gap.lost, "gap: entries left the stream unsettled");
        }
        Observation::Reset(reset) => {
            tracing::warn!(reason = %reset.reason, watermark = %reset.watermark, last = ?reset.last, "the stream was reset");
        }
        Observation::GroupCreated { at } => tracing::info!(%at, "group created"),
        Observation::Claimed(count) => tracing::info!(count, "claimed from dead consumers"),
        Observation::Lapsed => {
            tracing::warn!("the heartbeat had run out: others may have claimed our entries")
        }
        Observation::StandingBy { owner } => {
            tracing::info!(
                owner = owner.map(ConsumerName::as_str),
                "standing by: another owner holds the lease"
            );
        }
        Observation::Paused { reason } => tracing::info!(reason, "standing by: the subscription is paused"),
        Observation::Acquired => tracing::info!("lease taken"),
        Observation::Lost(error) => tracing::warn!(%error, "lease lost"),
        Observation::Unavailable { error, wait } => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, source, ?wait, "a store cannot answer");
        }
        Observation::Status(status) => tracing::debug!(?status, "status"),
    }
}
