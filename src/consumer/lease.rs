//! How long an owner may call handlers, by its own clock.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::clock::Clock;

/// Of quick calls, one in so many is preceded by a look at the clock. A look costs about as much as a quick call.
pub(crate) const STRETCH_MAX: u32 = 16;
/// A stretch of calls that took longer is no quick one: it ends with the next call.
const QUICK: Duration = Duration::from_micros(100);

/// Until when the lease stands that the keeper renews, by our own clock: counted from before the store was asked, so that it is
/// over here before it is over there. In a shared subscription it always stands.
#[derive(Debug)]
pub(crate) struct Lease {
    clock: Clock,
    /// In nanoseconds of the clock.
    until: AtomicU64,
    renewed: Notify,
}

impl Lease {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, until: AtomicU64::new(u64::MAX), renewed: Notify::new() }
    }

    /// The store has granted it, asked at `asked` for so long.
    pub(crate) fn granted(&self, asked: Duration, ttl: Duration) {
        let until = u64::try_from((asked + ttl).as_nanos()).unwrap_or(u64::MAX);
        self.until.store(until, Ordering::Release);
        self.renewed.notify_waiters();
    }

    pub(crate) fn is_over(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until != u64::MAX && self.clock.elapsed() >= Duration::from_nanos(until)
    }

    /// Waits until it stands. An owner that loses it does not wait for long: its lanes are dropped.
    pub(crate) async fn stands(&self) {
        loop {
            let mut renewed = pin!(self.renewed.notified());
            renewed.as_mut().enable();
            if !self.is_over() {
                return;
            }
            renewed.await;
        }
    }
}

/// When a lane looks at the lease before its calls, and reports: each time behind a call that took long, as one does that
/// blocks its thread, and ever more rarely behind quick ones.
#[derive(Debug)]
pub(crate) struct Looks {
    left: u32,
    stretch: u32,
    at: Duration,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self { left: 0, stretch: 0, at: Duration::ZERO }
    }

    /// Comes before each call, and says whether a stretch of calls ends here.
    pub(crate) fn are_due(&mut self) -> bool {
        self.left.checked_sub(1).map(|left| self.left = left).is_none()
    }

    /// Comes before the first call of a stretch, and waits if the lease is over. Behind a stretch that took long, others have
    /// their turn.
    pub(crate) async fn before_call(&mut self, lease: &Lease) {
        if lease.until.load(Ordering::Relaxed) != u64::MAX {
            lease.stands().await;
        }
        if self.look(lease.clock.elapsed()) {
            tokio::task::yield_now().await;
            self.at = lease.clock.elapsed();
        }
    }

    /// Whether the stretch before took long.
    fn look(&mut self, now: Duration) -> bool {
        let (is_first, quick) = (self.stretch == 0, now.saturating_sub(self.at) <= QUICK);
        self.stretch = if quick { (self.stretch * 2).clamp(1, STRETCH_MAX) } else { 1 };
        self.left = self.stretch - 1;
        self.at = now;
        !quick && !is_first
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn g16_a_lease_is_over_by_our_own_clock_and_stands_again_when_it_is_renewed() {
        let clock = Clock::started();
        let lease = Lease::new(clock.clone());
        assert!(!lease.is_over(), "nobody leads by it");
        lease.granted(clock.elapsed(), TTL);
        clock.sleep(TTL - Duration::from_millis(1)).await;
        assert!(!lease.is_over());
        let asked = clock.elapsed();
        clock.sleep(Duration::from_millis(1)).await;
        let mut waiting = pin!(lease.stands());
        assert!(lease.is_over() && waiting.as_mut().now_or_never().is_none());
        lease.granted(asked, TTL);
        waiting.await;
        clock.sleep(TTL - Duration::from_millis(1)).await;
        assert!(lease.is_over(), "it counts from when the store was asked");
    }

    #[test]
    fn one_in_sixteen_quick_calls_is_looked_at_and_each_behind_a_long_one() {
        let mut looks = Looks::new();
        let mut now = Duration::from_secs(1);
        let stretches = |looks: &mut Looks, now: &mut Duration, times: [u64; 7]| {
            times.map(|micros| {
                *now += Duration::from_micros(micros);
                looks.look(*now);
                looks.left + 1
            })
        };
        assert_eq!(stretches(&mut looks, &mut now, [1; 7]), [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(stretches(&mut looks, &mut now, [200, 200, 200, 1, 1, 1, 1]), [1, 1, 1, 2, 4, 8, 16]);
    }
}
