//! Keeps a consumer alive in the eyes of the others: its heartbeat, or its lease. Runs apart from handlers.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    context::{Context, is_passing},
    entered::Entered,
    lane::Lanes,
    observer::Observation,
    resume::{self, Located, Who},
    settings::Ownership,
};
use crate::{
    ConsumerName, Error, ErrorKind, Outcome, Position, Result,
    backend::{Acquire, Acquired, Beat, Heartbeat, Leave, Release, Renew},
    clock,
};

/// What a keeper has to say.
#[derive(Debug)]
pub(crate) enum News {
    /// The heartbeat had run out: others may have claimed what we held. It stands again.
    Lapsed,
    /// We are not the owner, or not this consumer, any more.
    Lost(Error),
}

/// How long a standby waits at most before it asks for the lease again.
const STANDBY_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long a goodbye may take. Without it, others wait for the time to live.
pub(crate) const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Becomes a consumer of the group, or the owner of the lease, and says where to go on. Stands by while the subscription is
/// paused.
///
/// # Errors
///
/// `Busy` if another live process uses this consumer's name and goes on to.
pub(crate) async fn enter(context: &Context, lanes: &dyn Lanes) -> Result<Entered> {
    loop {
        stand_by(context).await?;
        let entered = match context.settings.ownership {
            Ownership::Shared => join(context, lanes).await?,
            Ownership::Exclusive => own(context, lanes).await?,
        };
        // Otherwise it was paused in between.
        let Some(position) = entered else { continue };
        match Entered::recall(context, position).await {
            // A reset, or another owner after a long pause, came in between.
            Err(error) if error.kind() == ErrorKind::Fenced => {}
            entered => return entered,
        }
    }
}

/// Waits while the subscription is paused: without a lease, a heartbeat or a read, so that nobody counts it as alive.
async fn stand_by(context: &Context) -> Result<()> {
    let mut told = false;
    while let Some(checkpoint) = context.store.load(&context.subscription).await?.filter(|c| c.paused) {
        if !told {
            told = true;
            context.report(&Observation::Paused { reason: checkpoint.reason.as_deref() });
            if context.settings.ownership == Ownership::Shared {
                leave(context, GOODBYE_MAX).await;
            }
        }
        context.clock.sleep(clock::about(context.settings.probe_interval)).await;
    }
    Ok(())
}

async fn join(context: &Context, lanes: &dyn Lanes) -> Result<Option<Position>> {
    // A process of this name that was killed counts as alive for its time to live. Then its name is free.
    let patience = context.clock.elapsed() + context.settings.ttl + context.settings.ttl / 3;
    loop {
        let Some((position, _)) = resume::shared(context, lanes, Who::Joining).await? else {
            return Ok(None);
        };
        match context.stream.heartbeat(&heartbeat(context)).await {
            Ok(_) => return Ok(Some(position)),
            // The group went in between.
            Err(error) if error.kind() == ErrorKind::Missing => {
                context.clock.sleep(context.settings.ttl / 10).await
            }
            Err(error) if error.kind() == ErrorKind::Busy && context.clock.elapsed() < patience => {
                context.clock.sleep(context.settings.ttl / 10).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn own(context: &Context, lanes: &dyn Lanes) -> Result<Option<Position>> {
    let request = Acquire::new(context.subscription.clone(), context.lease_owner(), context.settings.ttl);
    // As in `join`: a process of this name that was killed holds the lease for its time to live, and no longer.
    let patience = context.clock.elapsed() + context.settings.ttl + context.settings.ttl / 3;
    let mut seen: Option<Option<ConsumerName>> = None;
    loop {
        let asked = context.clock.elapsed();
        match context.store.acquire(&request).await? {
            Acquired::Owned(ownership) => {
                context.set_epoch(ownership.epoch);
                context.lease.granted(asked, request.ttl);
                if context.store.load(&context.subscription).await?.is_some_and(|c| c.paused) {
                    leave(context, GOODBYE_MAX).await;
                    return Ok(None);
                }
                context.report(&Observation::Acquired);
                let is_new = ownership.position.is_none();
                let Located::At(position) =
                    resume::locate(context, lanes, ownership.position, Who::Owner).await?
                else {
                    // The reset took a new epoch and ended the lease.
                    continue;
                };
                if is_new {
                    // Without this, an owner that dies before its first advance would leave no trace of where it began.
                    let save = super::ledger::Save {
                        position: Some(position.clone()),
                        ..super::ledger::Save::default()
                    };
                    match context.settler.save(context, context.epoch(), &save, false).await {
                        // A reset, or another owner after a long pause, came in between: ask again.
                        Err(error) if error.kind() == ErrorKind::Fenced => continue,
                        saved => saved.map(drop)?,
                    }
                }
                return Ok(Some(position));
            }
            Acquired::Held { owner: Some(owner), .. }
                if context.is_namesake(&owner) && context.clock.elapsed() >= patience =>
            {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "another live process owns the subscription under this consumer's name: give each its own",
                )
                .with("consumer", &context.name));
            }
            Acquired::Held { owner, remaining } => {
                if seen.as_ref() != Some(&owner) {
                    context.report(&Observation::StandingBy { owner: owner.as_ref() });
                    seen = Some(owner);
                }
                let wait = remaining.clamp(Duration::from_millis(1), STANDBY_WAIT_MAX);
                context.clock.sleep(wait).await;
            }
        }
    }
}

/// The sign of life of this process.
pub(crate) fn heartbeat(context: &Context) -> Heartbeat {
    Heartbeat::new(context.subscription.clone(), context.name.clone(), context.token, context.settings.ttl)
}

/// Renews until it is lost or the task is ended.
pub(crate) async fn keep(context: Arc<Context>, news: mpsc::UnboundedSender<News>) {
    match context.settings.ownership {
        Ownership::Shared => {
            tokio::select! {
                biased;
                () = renewals(&context, &news) => {}
                () = watch(&context) => {}
            }
        }
        Ownership::Exclusive => renewals(&context, &news).await,
    }
}

/// Notices that the checkpoint was reset or paused, also where nothing is saved. An owner learns it by its lease. Never ends.
async fn watch(context: &Context) {
    let interval = context.settings.probe_interval;
    let mut wait = clock::about(interval);
    loop {
        context.clock.sleep_together(wait).await;
        // Either takes a new epoch, which fences a save.
        let saved = context.not_fenced().map(|asked| context.clock.elapsed().saturating_sub(asked));
        if let Some(ago) = saved.filter(|&ago| ago < interval) {
            wait = interval - ago;
            continue;
        }
        wait = clock::about(interval);
        match context.store.load(&context.subscription).await {
            Ok(stored) if resume::epoch(stored.as_ref()) != context.epoch() => context.resume.notify_one(),
            Ok(_) => {}
            // What matters goes on without an answer, until so much is unsaved that reading pauses.
            Err(error) => tracing::debug!(%error, "could not look at the checkpoint; will look again"),
        }
    }
}

async fn renewals(context: &Context, news: &mpsc::UnboundedSender<News>) {
    let interval = context.settings.ttl / 3;
    let mut wait = interval.mul_f64(clock::fraction());
    if context.lease.is_over() {
        // To find out where to go on took long. No handler is called until it is renewed.
        wait = Duration::ZERO;
    }
    // By our own monotonic clock: from now, so that a store that is slow has the time of a renewal to answer the first one,
    // and then from before the call that was answered.
    let mut stands_until = context.clock.elapsed() + context.settings.ttl;
    // A renewal whose reply was lost may have been the one that found the last one run out.
    let mut in_doubt = false;
    loop {
        context.clock.sleep_together(wait).await;
        let asked = context.clock.elapsed();
        let limit = match context.settings.ownership {
            Ownership::Shared => context.settings.ttl,
            // An owner that has no answer when its lease is over is none.
            Ownership::Exclusive => stands_until.saturating_sub(asked).max(Duration::from_millis(1)),
        };
        match renew(context, limit).await {
            Ok(beat) => {
                stands_until = asked + context.settings.ttl;
                if context.settings.ownership == Ownership::Exclusive {
                    context.lease.granted(asked, context.settings.ttl);
                }
                wait = interval.mul_f64(0.75 + 0.25 * clock::fraction());
                let lapsed = beat == Beat::Fresh || std::mem::take(&mut in_doubt);
                if lapsed && news.send(News::Lapsed).is_err() {
                    return;
                }
            }
            // The group went, and the heartbeat with it. The resume path creates it again.
            Err(error)
                if error.kind() == ErrorKind::Missing && context.settings.ownership == Ownership::Shared =>
            {
                wait = interval / 4;
                context.resume.notify_one();
            }
            Err(error) if is_passing(&error) => {
                wait = interval / 4;
                let expired = context.clock.elapsed() >= stands_until;
                in_doubt |= expired && error.outcome() == Outcome::Unknown;
                if expired && context.settings.ownership == Ownership::Exclusive {
                    // Nobody can tell us that we are still the owner, so we are not.
                    let _ = news.send(News::Lost(error));
                    return;
                }
            }
            Err(error) => {
                let _ = news.send(News::Lost(error));
                return;
            }
        }
    }
}

/// A renewal that takes longer than `limit` is no renewal.
async fn renew(context: &Context, limit: Duration) -> Result<Beat> {
    let renewing = async {
        match context.settings.ownership {
            Ownership::Shared => context.stream.heartbeat(&heartbeat(context)).await,
            Ownership::Exclusive => {
                let request = Renew::new(context.subscription.clone(), context.epoch(), context.settings.ttl);
                context.store.renew(&request).await.map(|()| Beat::Unbroken)
            }
        }
    };
    tokio::select! {
        biased;
        renewed = renewing => renewed,
        () = context.clock.sleep(limit) => {
            Err(Error::new(ErrorKind::Unavailable, "the store did not answer a renewal in time")
                .with("limit_ms", limit.as_millis())
                .with_outcome(Outcome::Unknown))
        }
    }
}

/// Says goodbye, so that others need not wait for the time to live.
pub(crate) async fn leave(context: &Context, limit: Duration) {
    let goodbye = async {
        match context.settings.ownership {
            Ownership::Shared => {
                let leave = Leave::new(context.subscription.clone(), context.name.clone(), context.token);
                context.stream.leave(&leave).await.map(drop)
            }
            Ownership::Exclusive => {
                context.store.release(&Release::new(context.subscription.clone(), context.epoch())).await
            }
        }
    };
    tokio::select! {
        biased;
        result = goodbye => if let Err(error) = result {
            tracing::info!(%error, "could not say goodbye: others wait for the time to live");
        },
        () = context.clock.sleep(limit) => tracing::info!("no answer to the goodbye: others wait for the time to live"),
    }
}
