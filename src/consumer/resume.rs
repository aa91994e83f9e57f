//! The one resume path: load the checkpoint, hold it against the stream, find where to go on.
//!
//! Taken at start, after a lost group, after a read whose reply may be lost, and after an epoch was taken from us.

use std::time::Duration;

use super::{
    context::Context,
    lane::Lanes,
    ledger::Save,
    observer::Observation,
    settings::{OnGap, OnReset, StartAt},
};
use crate::{
    Checkpoint, EntryId, Epoch, ErrorKind, Position, Result,
    backend::{EnsureGroup, GroupState, Inspect, Removal, ResetCheckpoint, StreamState},
    integrity::{self, Finding, Gap, Lost, Reset, ResetReason},
};

/// How long to wait before looking again at what others move meanwhile.
const OUTDATED_WAIT: Duration = Duration::from_millis(5);

/// Where to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Located {
    /// Here.
    At(Position),
    /// The group is to be moved here, over a gap in what it has not delivered. What it has says for itself what is gone.
    Over(Position),
    /// The checkpoint was reset and its epoch with it: ask again.
    Again,
}

/// Whose position is held against the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// An owner.
    Owner,
    /// A consumer of the group that begins.
    Joining,
    /// A consumer of the group that may be handling what is pending, and knows what of it is gone.
    Running,
}

/// Shared: where the group is to stand. Creates it there, and says so, and the checkpoint where there is none. `None`: the
/// subscription is paused.
pub(crate) async fn shared(
    context: &Context,
    lanes: &dyn Lanes,
    who: Who,
) -> Result<Option<(Position, bool)>> {
    let (mut created, mut moved) = (false, false);
    loop {
        let stored = context.store.load(&context.subscription).await?;
        context.set_epoch(epoch(stored.as_ref()));
        if stored.as_ref().is_some_and(|checkpoint| checkpoint.paused) {
            return Ok(None);
        }
        let is_new = stored.is_none();
        let (position, over) =
            match locate(context, lanes, stored.map(|checkpoint| checkpoint.position), who).await? {
                Located::At(position) => (position, false),
                Located::Over(position) => (position, true),
                Located::Again => continue,
            };
        let request = EnsureGroup::new(context.subscription.clone(), &position);
        let fresh = context.stream.ensure_group(&request).await?;
        if fresh {
            created = true;
            context.report(&Observation::GroupCreated { at: position.watermark });
        }
        let now = context.store.load(&context.subscription).await?;
        let stands = now.as_ref().map(|now| now.position.watermark);
        if epoch(now.as_ref()) != context.epoch() {
            if stands < Some(position.watermark) {
                // Somebody moved the checkpoint back since it was loaded, and the group must not stand where it was.
                context.stream.remove(&Removal::Group(context.subscription.clone())).await?;
            }
            continue;
        }
        // Another consumer may have advanced since the checkpoint was loaded. Now that the group is there, what it acks
        // counts again, so one more look is enough: the group is moved up to what it finds.
        if fresh && stands > Some(position.watermark) {
            continue;
        }
        if over && !moved {
            // Where the group stands is not what is settled: pending entries that are gone as well have yet to be told.
            moved = true;
            continue;
        }
        if is_new {
            // Without this, a group that is lost before the first ack would start by the start policy again.
            match context.settler.save(context, context.epoch(), &Save::default(), true).await {
                // It was reset in between.
                Err(error) if error.kind() == ErrorKind::Fenced => continue,
                saved => saved.map(drop)?,
            }
        }
        return Ok(Some((position, created)));
    }
}

/// The epoch that stands, as far as a checkpoint tells.
pub(crate) fn epoch(checkpoint: Option<&Checkpoint>) -> Epoch {
    checkpoint.map_or(Epoch::default(), |checkpoint| checkpoint.epoch)
}

/// Holds a stored position against the stream and applies the policies. Without one, the start policy says where.
pub(crate) async fn locate(
    context: &Context,
    lanes: &dyn Lanes,
    stored: Option<Position>,
    who: Who,
) -> Result<Located> {
    let shared = who != Who::Owner;
    let inspect = if shared {
        Inspect::subscription(&context.subscription)
    } else {
        Inspect::stream(context.subscription.stream.clone())
    };
    let asked = context.clock.elapsed();
    let state = context.stream.inspect(&inspect).await?;
    context.saw(state.as_ref());
    context.saw_pending(asked, state.as_ref(), EntryId::ZERO);
    let incarnation = state.as_ref().and_then(|state| state.incarnation.clone());
    let Some(stored) = stored else {
        return Ok(Located::At(start(context, state.as_ref()).with_incarnation(incarnation)));
    };
    let group = state.as_ref().filter(|_| shared).and_then(|state| state.group.as_ref());
    let loaded = stored.watermark;
    let first_id = state.as_ref().and_then(|state| state.first_id);
    // While an entry that was delivered is there, none that was not was trimmed, whether the server counts or not.
    let tells = |group: &GroupState| {
        group.entries_read.is_some() || first_id.is_some_and(|first| first <= group.last_delivered)
    };
    let held = group.filter(|group| group.first_pending.is_some() && tells(group));
    let (position, mut finding) = with_group(stored, group, state.as_ref());
    let first =
        held.and_then(|group| group.first_pending).filter(|_| matches!(finding, Some(Finding::Gap(_))));
    let over = match (first, who) {
        (None, _) | (_, Who::Owner) => false,
        (_, Who::Running) => true,
        // It is all the same if a transaction has settled it, and its ack was lost or the group was.
        (Some(first), Who::Joining) => !lanes.settled(context.epoch(), vec![first]).await?.is_empty(),
    };
    // What is held, or settled, is not missing though it left the stream. What is, the pending entries say one by one.
    if over {
        finding = undelivered(state.as_ref());
    }
    let finding = match state.as_ref() {
        Some(now) if context.is_another(position.watermark, now) => {
            let (reason, watermark) = (ResetReason::Overtaken, position.watermark);
            Some(Finding::Reset(Reset { reason, watermark, last: Some(now.last_id) }))
        }
        _ => finding,
    };
    if finding.is_some() && is_outdated(context, loaded).await? {
        // A store that contradicts itself must not make a hot loop.
        context.clock.sleep(OUTDATED_WAIT).await;
        return Ok(Located::Again);
    }
    match (finding, state) {
        (None, _) => Ok(Located::At(position.with_incarnation(incarnation))),
        (Some(finding @ Finding::Gap(_)), Some(state)) if skips(context, &finding)? => {
            let behind = behind_gap(&state);
            // What is settled ahead of the gap still is.
            let on = position.at_watermark(behind.watermark);
            let at_gap = on.watermark == behind.watermark;
            let to = if at_gap { behind.with_ahead(on.ahead) } else { on.with_incarnation(incarnation) };
            Ok(if over { Located::Over(to) } else { Located::At(to) })
        }
        (Some(finding @ Finding::Gap(_)), _) => Err(finding.into()),
        (Some(finding @ Finding::Reset(_)), state) => reset(context, finding, state.as_ref()).await,
    }
}

/// Whether somebody has moved the checkpoint since it was loaded: what they settled may have left the stream, and is not missing.
async fn is_outdated(context: &Context, loaded: EntryId) -> Result<bool> {
    let now = context.store.load(&context.subscription).await?;
    Ok(now.is_some_and(|now| now.epoch > context.epoch() || now.position.watermark > loaded))
}

/// What the group has acked since the checkpoint was written is settled, though the checkpoint does not know it yet.
pub(crate) fn with_group(
    stored: Position,
    group: Option<&GroupState>,
    state: Option<&StreamState>,
) -> (Position, Option<Finding>) {
    match (group.and_then(|group| group.first_pending), group) {
        (Some(first), _) if first.prev() >= Some(stored.watermark) => {
            let is_behind = first.prev() > Some(stored.watermark);
            // Whether it is the same stream, the checkpoint says; whether entries are missing, the pending one knows better.
            let finding = match (integrity::check(&stored, state), trimmed(first, state)) {
                (Some(reset @ Finding::Reset(_)), _) => Some(reset),
                (Some(counted), Some(_)) if !is_behind => Some(counted),
                (_, trimmed) => trimmed,
            };
            let behind = first.prev().filter(|_| is_behind);
            (behind.map_or_else(|| stored.clone(), |behind| stored.clone().at_watermark(behind)), finding)
        }
        (None, Some(group)) if group.last_delivered > stored.watermark => {
            let mut behind = stored.at_watermark(group.last_delivered);
            if behind.watermark == group.last_delivered {
                behind = behind.with_ordinal(group.entries_read);
            }
            let finding = integrity::check(&behind, state);
            (behind, finding)
        }
        _ => {
            let finding = integrity::check(&stored, state);
            (stored, finding)
        }
    }
}

/// The smallest pending entry speaks for those behind it: trimming takes the oldest first.
fn trimmed(pending: EntryId, state: Option<&StreamState>) -> Option<Finding> {
    let first_id = state?.first_id;
    let gone = first_id.is_none_or(|first| first > pending);
    let after = pending.prev().unwrap_or_default();
    gone.then(|| Finding::Gap(Gap::new(after, first_id, Lost::AtLeast(1))))
}

/// What is gone of what the group has not delivered, where the server counts.
fn undelivered(state: Option<&StreamState>) -> Option<Finding> {
    let group = state?.group.as_ref()?;
    let delivered = Position::at(group.last_delivered).with_ordinal(group.entries_read);
    integrity::check(&delivered, state).filter(|finding| matches!(finding, Finding::Gap(_)))
}

/// Reports a gap, and says whether the policy is to go on without the entries.
pub(crate) fn skips(context: &Context, finding: &Finding) -> Result<bool> {
    if let Finding::Gap(gap) = finding {
        context.report(&Observation::Gap(gap));
        if context.settings.on_gap == OnGap::Skip {
            context.count_gap();
            return Ok(true);
        }
    }
    Err((*finding).into())
}

/// Behind all entries that are gone: everything up to there is settled, by the policy.
pub(crate) fn behind_gap(state: &StreamState) -> Position {
    let removed = state.entries_added.map(|added| added.saturating_sub(state.len));
    Position::at(state.first_id.and_then(EntryId::prev).unwrap_or(state.last_id))
        .with_ordinal(removed)
        .with_incarnation(state.incarnation.clone())
}

fn start(context: &Context, state: Option<&StreamState>) -> Position {
    // To a stream that is not there yet, nothing was ever added: what is trimmed before we see it is lost to us.
    let Some(state) = state else { return Position::default().with_ordinal(Some(0)) };
    match context.settings.start {
        // What was removed before we ever came is not lost to us.
        StartAt::Beginning => Position::at(EntryId::ZERO)
            .with_ordinal(state.entries_added.map(|added| added.saturating_sub(state.len))),
        StartAt::End => Position::at(state.last_id).with_ordinal(state.entries_added),
        StartAt::After(id) => Position::at(id),
    }
}

async fn reset(context: &Context, finding: Finding, state: Option<&StreamState>) -> Result<Located> {
    if let Finding::Reset(reset) = &finding {
        context.report(&Observation::Reset(reset));
    }
    let position = match (context.settings.on_reset, state) {
        (OnReset::Fail, _) => return Err(finding.into()),
        (OnReset::FromBeginning, Some(state)) => Position::default()
            .with_ordinal(state.entries_added.map(|added| added.saturating_sub(state.len)))
            .with_incarnation(state.incarnation.clone()),
        (OnReset::FromEnd, Some(state)) => Position::at(state.last_id)
            .with_ordinal(state.entries_added)
            .with_incarnation(state.incarnation.clone()),
        (OnReset::FromBeginning | OnReset::FromEnd, None) => Position::default(),
    };
    let has_group = state.is_some_and(|state| state.group.is_some());
    if context.settings.on_reset == OnReset::FromBeginning && has_group {
        // It survived, and stands where it stood. The resume path creates it at the beginning.
        context.stream.remove(&Removal::Group(context.subscription.clone())).await?;
    }
    let request =
        ResetCheckpoint::new(context.subscription.clone(), position).expect(context.epoch()).force(true);
    match context.store.reset(&request).await {
        Ok(epoch) => tracing::warn!(%epoch, "checkpoint reset by policy"),
        // Another consumer did the same, a moment earlier.
        Err(error) if error.kind() == ErrorKind::Fenced => {}
        Err(error) => return Err(error),
    }
    Ok(Located::Again)
}
