//! Opens the backend that was asked for.

use std::sync::Arc;

use highwater::backend::{CheckpointBackend, StreamBackend};
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;

use crate::{
    Result,
    cli::{Backend, Place},
};

/// A backend by its traits.
#[derive(Debug)]
pub struct Opened {
    pub stream: Arc<dyn StreamBackend>,
    pub checkpoints: Arc<dyn CheckpointBackend>,
}

/// Connects to the server, or opens the file.
pub async fn open(place: &Place) -> Result<Opened> {
    Ok(match place.backend {
        Backend::Redis => both(Redis::connect(&place.at).await?),
        Backend::Sqlite => both(Sqlite::open(&place.at).await?),
    })
}

fn both<B: StreamBackend + CheckpointBackend>(backend: B) -> Opened {
    let backend = Arc::new(backend);
    Opened { stream: Arc::clone(&backend) as _, checkpoints: backend }
}

/// The place as the arguments of another process of this program.
pub fn arguments(place: &Place) -> [&str; 6] {
    let backend = match place.backend {
        Backend::Redis => "redis",
        Backend::Sqlite => "sqlite",
    };
    ["--backend", backend, "--at", &place.at, "--stream", &place.stream]
}
