//! Watches the checkpoint all the time.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use highwater::{Position, Subscription, backend::CheckpointBackend};
use tokio::{task::JoinHandle, time};

use super::audit::Sighting;
use crate::Result;

const POLL: Duration = Duration::from_millis(3);

/// Polls the checkpoint from its start to its end, and keeps every change.
#[derive(Debug)]
pub struct Observer {
    eyes: Eyes,
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
        let seen = Arc::<Mutex<Vec<Sighting>>>::default();
        let watching = tokio::spawn(watch(eyes.clone(), Arc::clone(&seen)));
        Self { eyes, seen, watching }
    }

    /// The checkpoint as it is now.
    pub async fn look(&self) -> Result<Sighting> {
        self.eyes.look().await
    }

    /// Ends, with all that was seen.
    pub async fn finish(self) -> Result<Vec<Sighting>> {
        if self.watching.is_finished() {
            return Err("the observer failed: see above".into());
        }
        let last = self.look().await?;
        self.watching.abort();
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.push(last);
        Ok(seen)
    }
}

/// Keeps a position when it is first seen: the file of effects was shortest then, so it says the most.
async fn watch(eyes: Eyes, seen: Arc<Mutex<Vec<Sighting>>>) {
    let mut last = Position::default();
    loop {
        match eyes.look().await {
            Ok(sighting) if sighting.position == last => {}
            Ok(sighting) => {
                last = sighting.position.clone();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
            }
            Err(error) => return eprintln!("the checkpoint cannot be read: {error}"),
        }
        time::sleep(POLL).await;
    }
}
