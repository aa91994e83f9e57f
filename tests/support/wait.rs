//! Waiting, and names.

use std::{
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(5);

/// Waits until the condition holds, and panics with `what` if it does not within `limit`.
///
/// Tests wait for a state this way, never for a time: a slow machine is then no failure, and a fast one no delay.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "did not happen within {limit:?}: {what}");
        sleep(POLL).await;
    }
}

/// A name that no other test, process or run uses: the server may be shared.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{n}-{:08x}", process::id(), fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::support::{eventually, unique};

    #[tokio::test]
    async fn eventually_sees_a_change() {
        let mut left = 3;
        eventually("the count is down", Duration::from_secs(5), async || {
            left -= 1;
            left == 0
        })
        .await;
        assert_ne!(unique("a"), unique("a"));
    }

    #[tokio::test]
    #[should_panic(expected = "did not happen within 20ms: the impossible")]
    async fn eventually_says_what_did_not_happen() {
        eventually("the impossible", Duration::from_millis(20), async || false).await;
    }
}
