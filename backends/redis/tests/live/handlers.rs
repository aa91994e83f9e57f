//! Handlers that write in the Redis that holds stream and checkpoint, while their connections break.

use std::{sync::Arc, time::Duration};

use highwater::{Backoff, Consumer, HandlerError, Ownership, backend::CheckpointBackend};
use highwater_redis::key_beside;

use crate::{Redis, server::*};

const LAST: u64 = 600;

/// Consumes until told to stop, and writes a row for each entry.
async fn consume(redis: Redis, ownership: Ownership, batches: bool, stop: Arc<tokio::sync::Notify>) {
    let rows = key_beside(&stream("s"), "rows");
    let consumer = Consumer::fused(subscription(), redis)
        .configure(|settings| {
            settings.ownership = ownership;
            let (first, max) = (Duration::from_millis(1), Duration::from_millis(20));
            settings.reconnect = Backoff { first, max, ..settings.reconnect.clone() };
        })
        .build()
        .unwrap();
    let stopped = async move { stop.notified().await };
    let report = if batches {
        consumer
            .run_transactional_batches(
                move |effects, batch| {
                    for delivery in batch {
                        effects.list_push_right(&rows, delivery.id().ms.to_string());
                    }
                    Box::pin(async { Ok::<_, HandlerError>(()) })
                },
                stopped,
            )
            .await
    } else {
        consumer
            .run_transactional(
                move |effects, delivery| {
                    effects.list_push_right(&rows, delivery.id().ms.to_string());
                    Box::pin(async { Ok::<_, HandlerError>(()) })
                },
                stopped,
            )
            .await
    };
    report.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_effects_of_handlers_are_there_once_whatever_breaks() {
    for (ownership, batches, consumers) in
        [(Ownership::Shared, false, 3), (Ownership::Shared, true, 3), (Ownership::Exclusive, true, 1)]
    {
        let server = Server::start().await;
        let (redis, raw) = (server.backend().await, server.raw().await);
        fill(&redis, 1, LAST / 2).await;
        let stop = Arc::new(tokio::sync::Notify::new());
        let mut running = Vec::new();
        for _ in 0..consumers {
            let backend = server.backend().await;
            running.push(tokio::spawn(consume(backend, ownership, batches, stop.clone())));
        }
        let rows = async || raw.run::<Vec<u64>>("LRANGE {s}:rows 0 -1").await;
        let mut filled = LAST / 2;
        for round in 1..=15 {
            raw.run::<()>("CLIENT KILL TYPE normal SKIPME yes").await;
            let before = rows().await.len();
            eventually(async || {
                let now = rows().await.len();
                now > before || now as u64 == filled
            })
            .await;
            if round % 5 == 0 {
                fill(&server.backend().await, filled + 1, filled + LAST / 6).await;
                filled += LAST / 6;
            }
        }
        eventually(async || {
            let checkpoint = server.backend().await.load(&subscription()).await.unwrap();
            checkpoint.is_some_and(|checkpoint| checkpoint.position.watermark == id(LAST))
        })
        .await;
        for _ in 0..consumers {
            stop.notify_one();
        }
        for consumer in running {
            consumer.await.unwrap();
        }
        let mut found = rows().await;
        found.sort_unstable();
        assert_eq!(found, (1..=LAST).collect::<Vec<_>>(), "{ownership:?}, batches: {batches}");
        assert_eq!(raw.run::<u64>("EXISTS highwater:{s}:settled:1:s:g").await, 0, "pruned");
    }
}
