//! No room for a checkpoint: the consumer goes on, tries again, and in the end every ack is in the checkpoint.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use highwater::{
    Backoff, Consumer, ConsumerName, Delivery, Epoch, ErrorKind, Observation, Position, Report, Subscription,
    backend::*,
};
use highwater_redis::Redis;
use highwater_sqlite::Settings;
use tokio::{sync::oneshot, task::JoinHandle};

use super::place::*;
use crate::support::eventually;

/// A consumer of ten entries in memory, whose checkpoint is somewhere else.
struct Run {
    place: Place,
    handled: Arc<Mutex<Vec<u64>>>,
    /// What the store said while it could not answer.
    unavailable: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    run: JoinHandle<highwater::Result<Report>>,
}

impl Run {
    async fn start(checkpoints: Arc<dyn CheckpointBackend>) -> Self {
        let place = Place::memory();
        let entries = (1..=10).map(|ms| NewEntry::new(fields("v")).with_id(id(ms))).collect();
        place.backend.append(&Append::new(stream(), entries)).await.unwrap();
        let (handled, unavailable) = (Arc::default(), Arc::default());
        let (stop, stopped) = oneshot::channel();
        let handler = {
            let handled: Arc<Mutex<Vec<u64>>> = Arc::clone(&handled);
            move |delivery: Delivery| {
                handled.lock().unwrap().push(delivery.id().ms);
                async { Ok::<_, std::io::Error>(()) }
            }
        };
        let observer = {
            let unavailable: Arc<Mutex<Vec<String>>> = Arc::clone(&unavailable);
            move |_: &Subscription, observation: &Observation<'_>| {
                if let Observation::Unavailable { error, .. } = observation {
                    assert_told("while it is full", error, ErrorKind::Unavailable, &[]);
                    unavailable.lock().unwrap().push(error.to_string());
                }
            }
        };
        let consumer = Consumer::builder(subscription(), place.stream(), checkpoints)
            // A long name makes a large record.
            .name(ConsumerName::new("c".repeat(512)).unwrap())
            .observer(observer)
            .configure(|settings| {
                settings.reconnect = Backoff { max: Duration::from_millis(50), ..settings.reconnect.clone() };
            })
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run(handler, async { drop(stopped.await) }));
        Self { place, handled, unavailable, stop, run }
    }

    fn handled(&self) -> Vec<u64> {
        self.handled.lock().unwrap().clone()
    }

    async fn until_refused(&self, times: usize) {
        let seen = async || self.unavailable.lock().unwrap().len() >= times;
        eventually("the store refuses, again and again", SOON, seen).await;
    }

    /// Waits until all is in the checkpoint, and stops. Returns what the store said before.
    async fn recover(self, checkpoints: &dyn CheckpointBackend) -> Vec<String> {
        let saved = async || {
            let checkpoint = checkpoints.load(&subscription()).await.unwrap();
            checkpoint.is_some_and(|checkpoint| checkpoint.position.watermark == id(10))
        };
        eventually("every ack is in the checkpoint", SOON, saved).await;
        self.stop.send(()).unwrap();
        let report = self.run.await.unwrap().unwrap();
        assert_eq!((report.settled, report.unsaved, report.watermark), (10, 0, Some(id(10))), "{report:?}");
        assert_eq!(*self.handled.lock().unwrap(), (1..=10).collect::<Vec<_>>(), "each once, in order");
        let inspect = Inspect::subscription(&subscription());
        let group = self.place.backend.inspect(&inspect).await.unwrap().unwrap().group.unwrap();
        assert_eq!((group.pending, group.last_delivered), (0, id(10)));
        let unavailable = self.unavailable.lock().unwrap().clone();
        assert!(report.reconnects >= unavailable.len() as u64);
        unavailable
    }
}

/// A checkpoint at the beginning, by somebody with a short name.
async fn seed(checkpoints: &dyn CheckpointBackend) {
    let advance = Advance::new(subscription(), Epoch(0), Position::at(id(0)), consumer("a"));
    checkpoints.advance(&advance).await.unwrap();
}

/// Lets the server find that it cannot write its file, or that it can again.
async fn save_to_disk(place: &Place, works: bool) {
    let file = place.server().dir().join("dump.rdb");
    if works {
        std::fs::remove_dir_all(&file).unwrap();
    } else {
        std::fs::create_dir_all(file.join("in the way")).unwrap();
    }
    place.redis_cli(&["BGSAVE"]);
    let status = if works { "rdb_last_bgsave_status:ok" } else { "rdb_last_bgsave_status:err" };
    let ended = async || {
        let info = place.redis_cli(&["INFO", "persistence"]);
        info.contains(status) && info.contains("rdb_bgsave_in_progress:0")
    };
    eventually(status, SOON, ended).await;
}

#[tokio::test]
async fn g18_a_server_without_disk_refuses_checkpoints_and_the_consumer_recovers() {
    for seeded in [true, false] {
        let place = Place::redis().await;
        place.redis_cli(&["CONFIG", "SET", "save", "3600 1"]);
        if seeded {
            seed(&place.backend).await;
        }
        save_to_disk(&place, false).await;
        let before = place.picture().await;
        let run = Run::start(place.store()).await;
        run.until_refused(3).await;
        // Without a checkpoint to come back to, nothing is begun.
        assert_eq!(run.handled().len(), if seeded { 10 } else { 0 });
        assert_eq!(place.picture().await, before);
        save_to_disk(&place, true).await;
        for said in run.recover(&place.backend).await {
            assert!(said.contains("cannot save its data") && said.contains("look at its log"), "{said}");
        }
    }
}

#[tokio::test]
async fn g18_a_server_out_of_memory_refuses_entries_but_takes_checkpoints() {
    let place = Place::redis_with(&["--maxmemory-policy", "noeviction"]).await;
    place.fill(1).await;
    place.redis_cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = place.picture().await;
    let append = Append::new(stream(), vec![NewEntry::new(fields("v"))]);
    let error = place.backend.append(&append).await.unwrap().remove(0).unwrap_err();
    let words = ["out of memory", "trim streams, or raise `maxmemory`"];
    assert_told("append", &error, ErrorKind::Unavailable, &words);
    assert_eq!(place.picture().await, before);

    // What acks frees memory, so it must not wait for it: a new connection, a checkpoint, every call of a consumer.
    let checkpoints = Redis::connect(place.server().url()).await.unwrap();
    checkpoints.reset(&ResetCheckpoint::new(subscription(), Position::default())).await.unwrap();
    let run = Run::start(Arc::new(checkpoints)).await;
    assert_eq!(run.recover(&place.backend).await, [""; 0], "nothing was refused");

    place.redis_cli(&["CONFIG", "SET", "maxmemory", "0"]);
    place.backend.append(&append).await.unwrap().remove(0).expect("there is room again");
}

#[tokio::test]
async fn g18_a_full_file_refuses_checkpoints_and_the_consumer_recovers() {
    for seeded in [true, false] {
        let place = Place::sqlite_with(&Settings::default().max_bytes(Some(1 << 20))).await;
        if seeded {
            seed(&place.backend).await;
        }
        let mut sql = place.sql().await;
        // Neighbours fill the page that the record is in, and ballast the file up to its limit: the record cannot grow.
        for group in 0..4 {
            let advance = Advance::new(
                Subscription::new("s", format!("neighbour {group}")).unwrap(),
                Epoch(0),
                Position::at(id(1)),
                ConsumerName::new("n".repeat(512)).unwrap(),
            );
            place.backend.advance(&advance).await.unwrap();
        }
        sqlx::query(
            "UPDATE highwater_checkpoint SET incarnation = printf('%.*c', 320, 'i') WHERE grp <> 'g'",
        )
        .execute(&mut sql)
        .await
        .unwrap();
        sqlx::raw_sql("CREATE TABLE ballast (b); INSERT INTO ballast VALUES (zeroblob(2000000))")
            .execute(&mut sql)
            .await
            .unwrap();
        let before = place.picture().await;
        let run = Run::start(place.store()).await;
        run.until_refused(3).await;
        assert_eq!(run.handled().len(), if seeded { 10 } else { 0 });
        assert_eq!(place.picture().await, before);
        sqlx::query("DELETE FROM ballast").execute(&mut sql).await.unwrap();
        for said in run.recover(&place.backend).await {
            assert!(said.contains("full: free space, trim streams, or raise `max_bytes`"), "{said}");
        }
    }
}
