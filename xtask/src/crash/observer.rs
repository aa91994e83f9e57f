//! Watches the checkpoint all the time.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use highwater::{Position, Subscription, backend::CheckpointBackend};
use tokio::{sync::watch, task::JoinHandle, time};

use super::audit::Sighting;
use crate::Result;

const POLL: Duration = Duration::from_millis(3);

/// Polls the checkpoint from its start to its end, and keeps every change.
#[derive(Debug)]
pub struct Observer {
    eyes: Eyes,
    position: watch::Receiver<Position>,
    seen: Arc<Mutex<Vec<Sighting>>>,
    watching: JoinHandle<()>,
}

/// Loads the checkpoint and measures the file of effects, in that order.
#[derive(Debug, Clone)]
pub struct Eyes {
    pub checkpoints: Arc<dyn CheckpointBackend>,
    pub subscription: Subscription,
    pub effects: PathBuf,
}

impl Eyes {
    pub async fn look(&self) -> Result<Sighting> {
        let checkpoint = self.checkpoints.load(&self.subscription).await?;
        let position = checkpoint.map(|c| c.position).unwrap_or_default();
        Ok(Sighting { effects_len: fs::metadata(&self.effects)?.len(), position })
    }
}

impl Observer {
    pub fn start(eyes: Eyes) -> Self {
        let (send, position) = watch::channel(Position::default());
        let seen = Arc::<Mutex<Vec<Sighting>>>::default();
        let watching = tokio::spawn(watch(eyes.clone(), send, Arc::clone(&seen)));
        Self { eyes, position, seen, watching }
    }

    /// The checkpoint as it is now.
    pub async fn look(&self) -> Result<Sighting> {
        self.eyes.look().await
    }

    /// Waits until the checkpoint is another one than `before`, and says how long after `since` that was.
    pub async fn change(&self, before: &Position, since: Instant, limit: Duration) -> Result<Duration> {
        let mut position = self.position.clone();
        match time::timeout(limit, position.wait_for(|now| now != before)).await {
            Ok(Ok(_)) => Ok(since.elapsed()),
            Ok(Err(_)) => Err("the observer failed: see above".into()),
            Err(_) => Err(format!("nothing was settled within {limit:?} of a restart").into()),
        }
    }

    /// Ends, with all that was seen.
    pub async fn finish(self) -> Result<Vec<Sighting>> {
        let last = self.look().await?;
        self.watching.abort();
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.push(last);
        Ok(seen)
    }
}

/// Keeps a position when it is first seen: the file of effects was shortest then, so it says the most.
async fn watch(eyes: Eyes, position: watch::Sender<Position>, seen: Arc<Mutex<Vec<Sighting>>>) {
    loop {
        match eyes.look().await {
            Ok(sighting) => {
                if *position.borrow() != sighting.position {
                    let now = sighting.position.clone();
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
                    position.send_replace(now);
                }
            }
            Err(error) => return eprintln!("the checkpoint cannot be read: {error}"),
        }
        time::sleep(POLL).await;
    }
}
