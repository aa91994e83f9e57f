//! A master that is found by a sentinel, and another one after a failover.

use std::time::Duration;

use highwater::{ErrorKind, Outcome, Retry, backend::*};

use crate::server::*;

struct Watched {
    master: Server,
    replica: Server,
    sentinel: Server,
}

impl Watched {
    async fn start() -> Self {
        let master = Server::start().await;
        let replica = Server::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
        let sentinel = Server::sentinel_of(&master).await;
        let watched = Self { master, replica, sentinel };
        let replicas = async || {
            let seen: Vec<redis::Value> = watched.asked().await.run("SENTINEL REPLICAS m").await;
            !seen.is_empty()
        };
        eventually(replicas).await;
        let raw = watched.replica.raw().await;
        eventually(async || raw.run::<String>("INFO replication").await.contains("master_link_status:up"))
            .await;
        watched
    }

    /// Waits until the replica is the master.
    async fn promoted(&self) {
        let promoted = async || {
            let master: Vec<String> = self.asked().await.run("SENTINEL GET-MASTER-ADDR-BY-NAME m").await;
            master[1] == self.replica.port().to_string()
        };
        eventually(promoted).await;
    }

    async fn asked(&self) -> Raw {
        self.sentinel.raw_with(&format!("redis://:watch@127.0.0.1:{}", self.sentinel.port())).await
    }

    /// The first sentinel is not there.
    fn url(&self, rest: &str) -> String {
        format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}{rest}&sentinel_pass=watch", self.sentinel.port())
    }
}

/// Whether an entry was taken. If not, that is since nobody serves; were it sent twice, its id would be refused.
async fn appended(redis: &crate::Redis, ms: u64) -> bool {
    let entry = NewEntry::new(fields("v")).with_id(id(ms));
    let result = redis.append(&Append::new(stream("s"), vec![entry])).await;
    match result.and_then(|mut results| results.remove(0)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{error:?}");
            false
        }
    }
}

#[tokio::test]
async fn a_master_is_found_and_found_again_after_it_died() {
    let mut watched = Watched::start().await;
    for protocol in ["resp2", "resp3"] {
        let redis = connect(watched.url(&format!("/1?master=m&protocol={protocol}"))).await.unwrap();
        assert!(redis.load(&subscription()).await.unwrap().is_none());
    }
    let redis = connect(watched.url("?master=m")).await.unwrap();
    assert!(!format!("{redis:?}").contains("watch"), "{redis:?}");
    filled(&redis, 3).await;
    assert_eq!(deliver(&redis, "c", 1).await, ids([1]));
    watched.master.raw().await.replicated().await;
    let reader = redis.clone();
    let blocked = tokio::spawn(async move {
        let read = Read::new(stream("s"), id(3), 1).block(Duration::from_secs(20));
        reader.read(&read).await
    });
    watched.master.raw().await.until_blocked(1).await;
    watched.master.stop();
    let error = blocked.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error:?}");
    assert!(!appended(&redis, 4).await, "nobody serves");
    watched.asked().await.run::<()>("SENTINEL FAILOVER m").await;
    eventually(async || appended(&redis, 4).await).await;
    assert_eq!(deliver(&redis, "c", 9).await, ids(2..=4), "the group is where it was");
    assert_eq!(acked(&redis, 1..=4).await.acked, 4);
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let watched = Watched::start().await;
    let redis = connect(watched.url("?master=m")).await.unwrap();
    filled(&redis, 1).await;
    watched.master.raw().await.replicated().await;
    watched.asked().await.run::<()>("SENTINEL FAILOVER m").await;
    watched.promoted().await;
    // A sentinel takes its time with this. Until then the old one takes writes that are lost, and no client can know.
    let follow = format!("REPLICAOF 127.0.0.1 {}", watched.replica.port());
    watched.master.raw().await.run::<()>(&follow).await;
    eventually(async || appended(&redis, 2).await).await;
    assert_eq!(watched.replica.raw().await.run::<u64>("XLEN s").await, 2, "it went to the new master");
}

#[tokio::test]
async fn g18_a_master_that_no_sentinel_knows_and_a_wrong_password_say_what_to_do() {
    let watched = Watched::start().await;
    let unknown = connect(watched.url("?master=other")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Invalid, "{unknown:?}");
    assert!(unknown.to_string().contains("`master`"), "{unknown}");
    let port = watched.sentinel.port();
    let wrong = format!("redis-sentinel://127.0.0.1:{port}?master=m&sentinel_pass=hunter2");
    let error = connect(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let nobody = connect("redis-sentinel://127.0.0.1:1?master=m").await.unwrap_err();
    assert_eq!((nobody.kind(), nobody.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
}
