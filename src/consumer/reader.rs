//! Reads deliveries, one batch at a time, and takes the resume path whenever the last one is in doubt.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    context::{Context, is_passing},
    gone::Gone,
    keeper,
    lane::Lanes,
    observer::Observation,
    reading::ReadDesk,
    resume,
    settings::Ownership,
    settle::Life,
};
use crate::{
    Attempts, Delivery, EntryId, ErrorKind, Position, Result,
    backend::{Beat, Inspect, Read, ReadGroup, ReadPending, Renew},
    clock,
    integrity::{self, Finding},
};

/// A reader that was away for longer may have missed entries that came and went.
const PAUSE: Duration = Duration::from_millis(10);

/// What one call of [`Reader::next`] has found.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) deliveries: Vec<Delivery>,
    /// Own pending entries that left the stream.
    pub(crate) gone: Gone,
    /// What the store remembers of attempts at them.
    pub(crate) recalled: Vec<Attempts>,
    /// The position that the resume path has found, if it was taken.
    pub(crate) resumed: Option<Position>,
    /// The resume path had to create the group, which delivers anew what the one before had pending.
    pub(crate) created: bool,
    /// The checkpoint was reset, or the stream created anew: what is held belongs to the one before.
    pub(crate) anew: bool,
    /// Exclusive: go on behind entries that are gone.
    pub(crate) skip: Option<Position>,
    /// Shared: there may be more of this consumer's pending entries to read again.
    pub(crate) recovering: bool,
    /// The reader waits until this is taken.
    pub(crate) waits: bool,
    /// Nobody asked for it: the resume path was taken.
    pub(crate) unasked: bool,
}

#[derive(Debug)]
enum Phase {
    /// Load, compare, ensure the group.
    Resume,
    /// Shared: finish what is pending for this consumer.
    Pending { after: EntryId },
    /// New entries.
    New,
}

/// Reads deliveries.
pub(crate) struct Reader {
    context: Arc<Context>,
    lanes: Arc<dyn Lanes>,
    phase: Phase,
    failed: u32,
    probe_at: Duration,
    /// When the last read ended, and whether it left more to read, of which nothing was looked at since.
    read_at: Duration,
    behind: bool,
    /// Whether the last read was full.
    lags: bool,
    /// The last new id that was read; a group delivers nothing new at or below it.
    read: EntryId,
    /// Shared: the epoch, and the life of the stream, that all that is held belongs to.
    life: Life,
    /// Exclusive: how many entries were ever added up to it, by our own count.
    ordinal: Option<u64>,
}

impl Reader {
    /// Reads on from a position that has been held against the stream already.
    pub(crate) fn new(context: Arc<Context>, lanes: Arc<dyn Lanes>, position: &Position) -> Self {
        let now = context.clock.elapsed();
        let probe_at = now + context.settings.probe_interval.mul_f64(clock::fraction());
        let phase = match context.settings.ownership {
            Ownership::Shared => Phase::Pending { after: EntryId::ZERO },
            Ownership::Exclusive => Phase::New,
        };
        let read = position.watermark;
        let life = (context.epoch(), context.incarnation());
        Self {
            context,
            lanes,
            life,
            phase,
            failed: 0,
            probe_at,
            read_at: now,
            behind: false,
            lags: false,
            read,
            ordinal: position.ordinal,
        }
    }

    /// Reads what is asked for, and takes the resume path when it is told to.
    ///
    /// New entries are read ahead of the session where it lags. Where it does not, what has come goes before the next read. What
    /// is pending is read again when the session knows that it is: it keeps in mind from then on what it acks.
    pub(super) async fn run(mut self, desk: Arc<ReadDesk>) {
        let context = Arc::clone(&self.context);
        loop {
            let limit = tokio::select! {
                biased;
                // It may not be asked for long: what could make room may wait for the very group that only the resume path
                // creates again.
                () = context.resume.notified() => {
                    self.resume();
                    None
                }
                limit = desk.asked() => Some(limit),
            };
            let batch =
                self.next(limit.unwrap_or(1)).await.map(|batch| Batch { unasked: limit.is_none(), ..batch });
            let (ended, waits) = (batch.is_err(), batch.as_ref().is_ok_and(|batch| batch.waits));
            desk.put(batch);
            if ended {
                return;
            }
            if waits {
                desk.taken().await;
            }
        }
    }

    /// The next batch, which may be empty. Waits and asks again while a store cannot answer.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Batch> {
        loop {
            match self.attempt(limit).await {
                // At once: there may be no room to read before what was let go has come again.
                Ok(batch) if matches!(self.phase, Phase::Resume) && !batch.anew => {
                    self.failed = 0;
                    continue;
                }
                Ok(batch) => {
                    self.failed = 0;
                    let recovering = !matches!(self.phase, Phase::New);
                    return Ok(Batch { recovering, waits: recovering || !self.lags, ..batch });
                }
                // The group or the stream went: the resume path says what to do.
                Err(error) if error.kind() == ErrorKind::Missing && self.is_shared() => {
                    tracing::info!(%error, "the group is gone");
                    if matches!(self.phase, Phase::Resume) {
                        let wait = self.backoff(&error);
                        self.context.clock.sleep(wait).await;
                    }
                }
                Err(error) if is_passing(&error) => {
                    let wait = self.backoff(&error);
                    self.context.clock.sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
            // Entries may have become pending that nobody has seen.
            self.resume();
        }
    }

    /// The resume path comes next.
    fn resume(&mut self) {
        self.phase = Phase::Resume;
        self.context.doubt(true);
    }

    fn backoff(&mut self, error: &crate::Error) -> Duration {
        self.failed += 1;
        self.context.unavailable(error, self.failed)
    }

    fn is_shared(&self) -> bool {
        self.context.settings.ownership == Ownership::Shared
    }

    async fn attempt(&mut self, limit: usize) -> Result<Batch> {
        match self.phase {
            Phase::Resume if self.is_shared() => {
                let who = resume::Who::Running;
                let Some((position, created)) = resume::shared(&self.context, &*self.lanes, who).await?
                else {
                    // Paused: whoever takes part again stands by.
                    return Ok(Batch { anew: true, ..Batch::default() });
                };
                // Whoever created the group, heartbeats went with the old one. Without one, what is read from now on would
                // wait for the idle time of strangers if this process were killed.
                let beat = self.context.stream.heartbeat(&keeper::heartbeat(&self.context)).await?;
                if beat == Beat::Fresh && !created {
                    self.context.report(&Observation::Lapsed);
                }
                let created = created || beat == Beat::Fresh;
                // Below it, the group delivers nothing new.
                self.read = position.watermark;
                self.phase = Phase::Pending { after: EntryId::ZERO };
                let anew = !self.is_same_life();
                self.context.doubt(anew);
                Ok(Batch { resumed: Some(position), created, anew, ..Batch::default() })
            }
            Phase::Pending { after } => self.pending(after, limit).await,
            Phase::Resume => {
                let skip = self.probe().await?;
                self.phase = Phase::New;
                Ok(Batch { skip, ..Batch::default() })
            }
            Phase::New => {
                if let Some(skip) = self.probe_if_due().await? {
                    return Ok(Batch { skip: Some(skip), ..Batch::default() });
                }
                if matches!(self.phase, Phase::Resume) {
                    // A read now would jump over what the probe has found.
                    return Ok(Batch::default());
                }
                let reads = limit / self.context.settings.read_entries_max;
                if self.lags && reads > 1 {
                    // None of them waits for entries, so nobody waits long for them to end.
                    return self.side_by_side(reads).await;
                }
                let context = Arc::clone(&self.context);
                tokio::select! {
                    biased;
                    () = context.resume.notified() => {
                        // The read is dropped; what it may have taken is found among the pending entries.
                        self.resume();
                        Ok(Batch::default())
                    }
                    batch = self.new_entries(limit) => batch,
                }
            }
        }
    }

    /// Whether what is held belongs to the checkpoint and the stream that the resume path has found.
    fn is_same_life(&self) -> bool {
        let (epoch, incarnation) = &self.life;
        *epoch == self.context.epoch()
            && (incarnation.is_none() || *incarnation == self.context.incarnation())
    }

    async fn pending(&mut self, after: EntryId, limit: usize) -> Result<Batch> {
        let context = &self.context;
        let request = ReadPending::new(context.subscription.clone(), context.name.clone(), after, limit);
        let pending = context.stream.read_pending(&request).await?;
        let Some(last) = pending.last() else {
            self.phase = Phase::New;
            return Ok(Batch::default());
        };
        let after = last.id;
        let (mut batch, mut gone) = (Batch::default(), Vec::new());
        for entry in pending {
            match entry.into_delivery() {
                Ok(delivery) => batch.deliveries.push(delivery),
                Err(id) => gone.push(id),
            }
        }
        batch.gone = Gone::new(&*self.lanes, context.epoch(), gone).await?;
        let again = batch.deliveries.iter().filter(|delivery| delivery.deliveries > 1);
        batch.recalled = self.context.recall(again.map(Delivery::id).collect()).await?;
        self.phase = Phase::Pending { after };
        Ok(batch)
    }

    async fn new_entries(&mut self, limit: usize) -> Result<Batch> {
        let context = &self.context;
        let block = context.settings.block;
        let limit = limit.min(context.settings.read_entries_max);
        let deliveries = if self.is_shared() {
            let request =
                ReadGroup::new(context.subscription.clone(), context.name.clone(), limit).block(block);
            context.stream.read_group(&request).await?
        } else {
            let request = Read::new(context.subscription.stream.clone(), self.read, limit).block(block);
            let entries = context.stream.read(&request).await?;
            self.ordinal = self.ordinal.map(|ordinal| ordinal + entries.len() as u64);
            entries.into_iter().map(|entry| Delivery::new(entry, 1)).collect()
        };
        Ok(self.found(deliveries, limit))
    }

    /// Several reads at once. The server carries them out one after the other, whichever comes first, so together they are what
    /// one reader would have brought.
    async fn side_by_side(&mut self, reads: usize) -> Result<Batch> {
        let context = &self.context;
        let limit = context.settings.read_entries_max;
        let request = ReadGroup::new(context.subscription.clone(), context.name.clone(), limit);
        // All of them end before one that has failed says so: what they took is pending by then, and read again.
        let ended = join_all((0..reads).map(|_| context.stream.read_group(&request))).await;
        let mut batches: Vec<_> = ended.into_iter().collect::<Result<_>>()?;
        batches.sort_by_key(|batch| batch.first().map(Delivery::id));
        Ok(self.found(batches.into_iter().flatten().collect(), limit * reads))
    }

    /// Takes what came of `limit` that were asked for.
    fn found(&mut self, deliveries: Vec<Delivery>, limit: usize) -> Batch {
        self.read_at = self.context.clock.elapsed();
        self.lags = deliveries.len() >= limit;
        self.behind = self.lags;
        if let (Some(first), Some(last)) = (deliveries.first(), deliveries.last()) {
            if first.id() <= self.read || !deliveries.is_sorted_by(|one, next| one.id() < next.id()) {
                // The group was moved back behind our back, perhaps created anew by another consumer. These are pending
                // for us: take them again on the resume path, which knows what is settled.
                self.resume();
                return Batch::default();
            }
            self.read = last.id();
        }
        Batch { deliveries, ..Batch::default() }
    }

    /// Trimming is silent for readers, so the stream is held against what was read before every read that may jump: while
    /// there is more to read at once, after a pause, and now and then.
    async fn probe_if_due(&mut self) -> Result<Option<Position>> {
        let now = self.context.clock.elapsed();
        let paused = now.saturating_sub(self.read_at) > PAUSE;
        let due = now >= self.probe_at;
        if self.behind || paused || due { self.probe().await } else { Ok(None) }
    }

    /// Holds the stream against what was read. Where the policy says to go on without lost entries: from where.
    async fn probe(&mut self) -> Result<Option<Position>> {
        let now = self.context.clock.elapsed();
        (self.read_at, self.behind) = (now, false);
        self.probe_at = now + clock::about(self.context.settings.probe_interval);
        if self.is_shared() { self.probe_shared().await } else { self.probe_exclusive().await }
    }

    async fn probe_exclusive(&mut self) -> Result<Option<Position>> {
        let context = &self.context;
        let before = context.incarnation();
        let state = context.stream.inspect(&Inspect::stream(context.subscription.stream.clone())).await?;
        let position = Position::at(self.read).with_ordinal(self.ordinal).with_incarnation(before);
        let finding = integrity::check(&position, state.as_ref());
        context.saw(state.as_ref());
        let finding = finding.or_else(|| {
            let gap = integrity::check_tail(self.read, self.ordinal?, state.as_ref()?)?;
            Some(Finding::Gap(gap))
        });
        if finding.is_some() {
            // What a successor has settled may leave the stream: whoever was overtaken misses nothing.
            let (epoch, ttl) = (context.epoch(), context.settings.ttl);
            context.store.renew(&Renew::new(context.subscription.clone(), epoch, ttl)).await?;
        }
        let (Some(finding), Some(state)) = (finding, state.as_ref()) else {
            return finding.map_or(Ok(None), |finding| Err(finding.into()));
        };
        resume::skips(context, &finding)?;
        let behind = match finding {
            // All up to the end is gone or read.
            Finding::Gap(gap) if gap.before.is_none() => {
                Position::at(state.last_id).with_ordinal(state.entries_added)
            }
            _ => resume::behind_gap(state),
        };
        self.read = behind.watermark.max(self.read);
        self.ordinal = behind.ordinal;
        Ok(Some(behind))
    }

    async fn probe_shared(&mut self) -> Result<Option<Position>> {
        let context = Arc::clone(&self.context);
        let before = context.incarnation();
        let asked = context.clock.elapsed();
        let state = context.stream.inspect(&Inspect::subscription(&context.subscription)).await?;
        context.saw(state.as_ref());
        // A probe comes behind the read that it is due after, while what that has brought is handled.
        context.saw_pending(asked, state.as_ref(), self.read);
        // A stream that was not there when the session began.
        self.life.1 = self.life.1.take().or_else(|| context.incarnation());
        if !self.is_same_life() {
            self.resume();
            return Ok(None);
        }
        let Some(group) = state.as_ref().and_then(|state| state.group.as_ref()) else {
            self.resume();
            return Ok(None);
        };
        let delivered =
            Position::at(group.last_delivered).with_ordinal(group.entries_read).with_incarnation(before);
        // Without the group's count nothing can be said while it runs; the pending entries speak for themselves.
        if group.entries_read.is_some() && integrity::check(&delivered, state.as_ref()).is_some() {
            self.resume();
        }
        Ok(None)
    }
}
