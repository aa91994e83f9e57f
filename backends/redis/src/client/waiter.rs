//! Somebody who reads a stream and, where there is nothing, waits without a connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use highwater::{EntryId, GroupName, Result, clock::Clock};
use tokio::sync::{Notify, watch};

use super::pool::lock;

/// The end of a stream.
pub(super) struct Tail {
    clock: Clock,
    known: Mutex<Known>,
    /// Wakes those that read without a group.
    grown: watch::Sender<()>,
}

struct Known {
    /// The last id that was seen; `None` before the first look.
    last: Option<EntryId>,
    groups: HashMap<GroupName, Group>,
    used_at: Duration,
}

#[derive(Default)]
struct Group {
    /// Up to here, nothing is left to deliver.
    read: EntryId,
    /// How many read or wait.
    readers: usize,
    next: Arc<Notify>,
}

/// Somebody who reads a stream, and waits where there is nothing.
pub(crate) struct Waiter {
    tail: Arc<Tail>,
    grown: watch::Receiver<()>,
    group: Option<(GroupName, Arc<Notify>)>,
}

impl Tail {
    pub(super) fn new(clock: Clock) -> Self {
        let known = Known { last: None, groups: HashMap::new(), used_at: clock.elapsed() };
        Self { clock, known: Mutex::new(known), grown: watch::Sender::new(()) }
    }

    /// Where it ended at the last look.
    pub(super) fn end(&self) -> Option<EntryId> {
        lock(&self.known).last
    }

    /// What was seen may not hold any more.
    pub(super) fn doubt(&self) {
        lock(&self.known).last = None;
    }

    /// Whether nobody has read in this time.
    pub(super) fn is_idle(&self, time: Duration) -> bool {
        self.clock.elapsed().saturating_sub(lock(&self.known).used_at) >= time
    }

    /// The stream ends here: wakes all that read by themselves, and one of each group.
    pub(super) fn is_at(&self, last: EntryId) {
        let mut known = lock(&self.known);
        if known.last.replace(last) == Some(last) {
            return;
        }
        self.grown.send_replace(());
        for group in known.groups.values().filter(|group| group.readers > 0 && group.read < last) {
            group.next.notify_one();
        }
    }
}

impl Waiter {
    pub(super) fn new(tail: Arc<Tail>, group: Option<&GroupName>) -> Self {
        let group = group.map(|name| {
            let mut known = lock(&tail.known);
            let group = known.groups.entry(name.clone()).or_default();
            group.readers += 1;
            (name.clone(), group.next.clone())
        });
        Self { grown: tail.grown.subscribe(), tail, group }
    }

    /// Reads, and reads again whenever there may be more, until something comes or the time is over.
    ///
    /// `after` is up to where this reader has read, if it reads without a group.
    pub(crate) async fn read<T, F: Future<Output = Result<Vec<T>>>>(
        mut self,
        after: EntryId,
        wait: Duration,
        read: impl Fn() -> F,
        id: impl Fn(&T) -> EntryId,
    ) -> Result<Vec<T>> {
        if self.may_find(after) {
            let found = self.look(read(), &id).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let clock = self.tail.clock.clone();
        let over = clock.sleep_together(wait);
        tokio::pin!(over);
        loop {
            let is_over = tokio::select! {
                biased;
                () = self.woken() => false,
                () = &mut over => true,
            };
            // The last look tells whether the group is still there.
            let found = self.look(read(), &id).await?;
            if is_over || !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Whether there may be something that is not read.
    fn may_find(&self, after: EntryId) -> bool {
        let known = lock(&self.tail.known);
        let read = match &self.group {
            Some((name, _)) => known.groups.get(name).map_or(EntryId::ZERO, |group| group.read),
            None => after,
        };
        known.last.is_none_or(|last| read < last)
    }

    async fn woken(&mut self) {
        match &self.group {
            Some((_, next)) => next.notified().await,
            // The sender is in the tail, which is ours.
            None => drop(self.grown.changed().await),
        }
    }

    /// Reads once. Unless there was nothing, the next of the group has its turn, also if this is dropped or fails.
    async fn look<T>(
        &mut self,
        read: impl Future<Output = Result<Vec<T>>>,
        id: &impl Fn(&T) -> EntryId,
    ) -> Result<Vec<T>> {
        self.grown.mark_unchanged();
        let mut turn = Turn { waiter: &*self, passes: true };
        let end = self.tail.end();
        let found = read.await?;
        let up_to = found.last().map(id);
        if let (Some((name, _)), Some(read)) = (&self.group, up_to.or(end))
            && let Some(group) = lock(&self.tail.known).groups.get_mut(name)
        {
            group.read = read;
        }
        turn.passes = !found.is_empty();
        Ok(found)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut known = lock(&self.tail.known);
        known.used_at = self.tail.clock.elapsed();
        if let Some(group) = self.group.as_ref().and_then(|(name, _)| known.groups.get_mut(name)) {
            group.readers -= 1;
        }
    }
}

/// Whose turn it is.
struct Turn<'a> {
    waiter: &'a Waiter,
    passes: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((name, next)) = self.waiter.group.as_ref().filter(|_| self.passes) {
            let known = lock(&self.waiter.tail.known);
            if known.groups.get(name).is_some_and(|group| group.readers > 1) {
                next.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn id(id: &u64) -> EntryId {
        EntryId::new(*id, 0)
    }

    fn of_group(tail: &Arc<Tail>) -> Waiter {
        Waiter::new(tail.clone(), Some(&GroupName::new("g").unwrap()))
    }

    fn ended_at(last: u64) -> Arc<Tail> {
        let tail = Arc::new(Tail::new(Clock::new()));
        tail.is_at(id(&last));
        tail
    }

    /// A read that finds nothing, so that its reader waits.
    fn nothing() -> std::future::Ready<Result<Vec<u64>>> {
        ready(Ok(Vec::new()))
    }

    #[tokio::test]
    async fn g14_the_turn_of_a_reader_that_is_dropped_goes_to_the_next() {
        let tail = ended_at(0);
        let mut first = Box::pin(of_group(&tail).read(EntryId::ZERO, LONG, pending::<Result<Vec<u64>>>, id));
        let mut second = Box::pin(of_group(&tail).read(EntryId::ZERO, LONG, || ready(Ok(vec![1])), id));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none(), "both wait");
        tail.is_at(id(&1));
        assert!((&mut second).now_or_never().is_none(), "one is woken, and it is the first");
        assert!((&mut first).now_or_never().is_none(), "which reads");
        drop(first);
        assert_eq!(second.now_or_never().unwrap().unwrap(), [1]);
    }

    #[tokio::test]
    async fn one_that_finds_something_wakes_the_next_and_one_that_finds_nothing_does_not() {
        let tail = ended_at(0);
        let mut first = Box::pin(of_group(&tail).read(EntryId::ZERO, LONG, || ready(Ok(vec![1])), id));
        let mut second = Box::pin(of_group(&tail).read(EntryId::ZERO, LONG, nothing, id));
        let mut third = Box::pin(of_group(&tail).read(EntryId::ZERO, LONG, || ready(Ok(vec![9])), id));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        tail.is_at(id(&1));
        assert_eq!(first.now_or_never().unwrap().unwrap(), [1]);
        assert!((&mut second).now_or_never().is_none(), "it finds nothing");
        assert!((&mut third).now_or_never().is_none(), "so nobody wakes it");
    }

    #[tokio::test]
    async fn what_was_appended_before_the_wait_is_not_waited_for() {
        let tail = ended_at(5);
        let read = of_group(&tail).read(EntryId::ZERO, LONG, || ready(Ok(vec![5])), id);
        assert_eq!(read.now_or_never().unwrap().unwrap(), [5]);
        let all = of_group(&tail).read(
            EntryId::ZERO,
            LONG,
            || -> std::future::Ready<Result<Vec<u64>>> { panic!("the group has read all there is") },
            id,
        );
        assert!(all.now_or_never().is_none());
        let plain = Waiter::new(tail.clone(), None).read(id(&4), LONG, || ready(Ok(vec![5])), id);
        assert_eq!(plain.now_or_never().unwrap().unwrap(), [5]);
    }

    #[tokio::test]
    async fn all_that_read_without_a_group_are_woken() {
        let tail = ended_at(0);
        let read =
            || Box::pin(Waiter::new(tail.clone(), None).read(EntryId::ZERO, LONG, || ready(Ok(vec![1])), id));
        let mut readers = [read(), read(), read()];
        assert!(readers.iter_mut().all(|reader| reader.now_or_never().is_none()));
        tail.is_at(id(&1));
        assert!(readers.into_iter().all(|reader| reader.now_or_never().is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_of_the_wait_it_looks_once_more() {
        let tail = ended_at(0);
        let looks = std::cell::Cell::new(0);
        let read = || {
            looks.set(looks.get() + 1);
            nothing()
        };
        assert_eq!(of_group(&tail).read(EntryId::ZERO, LONG, read, id).await.unwrap(), Vec::<u64>::new());
        assert_eq!(looks.get(), 1);
    }
}
