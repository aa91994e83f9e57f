//! A cluster of three nodes: everything beside a stream is on one of them, and moves with it.

use std::time::Duration;

use highwater::{
    ConsumerName, Epoch, ErrorKind, Outcome, Position, StreamName, Subscription, backend::*,
    dead_letter_stream,
};
use highwater_redis::{Effects, key_beside};

use crate::{Redis, server::*};

const SLOTS: u16 = 16384;

/// `s` lies in this slot, which the first node owns at first.
const SLOT: u16 = 3828;
const OWNER: usize = 0;
/// Where it moves.
const NEXT: usize = 2;

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Self::node().await);
        }
        for (i, node) in (0u16..).zip(&nodes) {
            let raw = node.raw().await;
            let mut words: Vec<String> = ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into();
            words.extend((SLOTS * i / 3..SLOTS * (i + 1) / 3).map(|slot| slot.to_string()));
            raw.words::<()>(&words).await;
            raw.run::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1)).await;
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        cluster.settled(3).await;
        cluster
    }

    async fn node() -> Server {
        let node = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        Server::start_with(&[&node[..], &["--cluster-require-full-coverage", "no"]].concat()).await
    }

    async fn meet(&self, node: &Server) {
        self.nodes[0].raw().await.run::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", node.port())).await;
    }

    /// Waits until all nodes know of so many, and agree.
    async fn settled(&self, count: usize) {
        for node in &self.nodes {
            let raw = node.raw().await;
            let settled = async || {
                let info: String = raw.run("CLUSTER INFO").await;
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r"))
            };
            eventually(settled).await;
        }
    }

    fn url(&self, rest: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://{}{rest}", hosts.join(","))
    }

    async fn connect(&self) -> Redis {
        connect(self.url("")).await.unwrap()
    }

    async fn id(&self, node: usize) -> String {
        self.nodes[node].raw().await.run("CLUSTER MYID").await
    }

    async fn set_slot(&self, on: usize, state: &str, node: usize) {
        let id = self.id(node).await;
        self.nodes[on].raw().await.run::<()>(&format!("CLUSTER SETSLOT {SLOT} {state} {id}")).await;
    }

    /// Moves the keys of the slot, as resharding does.
    async fn move_keys(&self) {
        let raw = self.nodes[OWNER].raw().await;
        let keys: Vec<String> = raw.run(&format!("CLUSTER GETKEYSINSLOT {SLOT} 100")).await;
        let mut words: Vec<String> = ["MIGRATE", "127.0.0.1"].map(str::to_owned).into();
        words.push(self.nodes[NEXT].port().to_string());
        words.extend(["", "0", "5000", "KEYS"].map(str::to_owned));
        words.extend(keys);
        raw.words::<()>(&words).await;
    }

    async fn hand_over(&self) {
        for node in [NEXT, OWNER, 1] {
            self.set_slot(node, "NODE", NEXT).await;
        }
    }
}

async fn len(node: &Server) -> u64 {
    let raw = node.raw().await;
    raw.try_run("XLEN s").await.unwrap_or_default()
}

#[tokio::test]
async fn every_node_serves_its_streams() {
    let cluster = Cluster::start().await;
    for rest in ["", "?protocol=resp3"] {
        let redis = connect(cluster.url(rest)).await.unwrap();
        for i in 0..12 {
            let sub = Subscription::new(format!("{rest}stream{i}"), "g").unwrap();
            let entries = (0..3).map(|_| NewEntry::new(fields("v"))).collect();
            let appended = redis.append(&Append::new(sub.stream.clone(), entries)).await.unwrap();
            let ids: Vec<_> = appended.into_iter().map(Result::unwrap).collect();
            redis.ensure_group(&EnsureGroup::new(sub.clone(), &Position::default())).await.unwrap();
            redis
                .heartbeat(&Heartbeat::new(sub.clone(), name("c"), Token(1), Duration::from_secs(9)))
                .await
                .unwrap();
            assert_eq!(redis.read_group(&ReadGroup::new(sub.clone(), name("c"), 9)).await.unwrap().len(), 3);
            let pending = ReadPending::new(sub.clone(), name("c"), id(0), 9);
            assert_eq!(redis.read_pending(&pending).await.unwrap().len(), 3);
            let settle = Settle::new(sub.clone(), ids.clone(), Epoch(0), ConsumerName::new("c").unwrap());
            assert_eq!(redis.settle(&settle).await.unwrap().acked, 3);
            let listed = redis.list(&sub.stream).await.unwrap();
            assert_eq!(listed[0].1.position.watermark, ids[2]);
            assert_eq!(redis.load(&sub).await.unwrap().unwrap().position.watermark, ids[2]);
        }
    }
    for node in &cluster.nodes {
        assert!(node.raw().await.run::<u64>("DBSIZE").await > 0, "each has some");
    }
}

#[tokio::test]
async fn a_stream_that_moves_is_followed_and_nothing_is_sent_twice() {
    let cluster = Cluster::start().await;
    let redis = cluster.connect().await;
    filled(&redis, 2).await;
    assert_eq!(deliver(&redis, "c", 1).await, ids([1]));
    redis.settle(&Settle::new(subscription(), ids([1]), Epoch(0), name("c"))).await.unwrap();
    cluster.set_slot(NEXT, "IMPORTING", OWNER).await;
    cluster.set_slot(OWNER, "MIGRATING", NEXT).await;
    fill(&redis, 3, 3).await;
    cluster.move_keys().await;
    assert_eq!(len(&cluster.nodes[OWNER]).await, 0, "its keys are gone, and it still owns the slot");
    fill(&redis, 4, 6).await;
    assert_eq!(deliver(&redis, "c", 1).await, ids([2]));
    assert_eq!(acked(&redis, [2]).await.acked, 1);
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(1));
    cluster.hand_over().await;
    fill(&redis, 7, 9).await;
    assert_eq!(deliver(&redis, "c", 9).await, ids(3..=9));
    assert_eq!(len(&cluster.nodes[NEXT]).await, 9);
    redis.settle(&Settle::new(subscription(), ids(3..=9), Epoch(0), name("c"))).await.unwrap();
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position.watermark, id(9));
}

#[tokio::test]
async fn g9_effects_go_where_their_stream_goes() {
    let cluster = Cluster::start().await;
    let redis = cluster.connect().await;
    let total = key_beside(&stream("s"), "total");
    let commit = async |ms, other: &str| {
        let mut effects = Effects::default();
        effects.incr_by(&total, 1).incr_by(other, 1);
        redis.commit(effects, &Settlement::each(subscription(), Epoch(0), name("c"), ids([ms]))).await
    };
    commit(1, &total).await.unwrap();
    let error = commit(2, "elsewhere").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{error}");
    cluster.set_slot(NEXT, "IMPORTING", OWNER).await;
    cluster.set_slot(OWNER, "MIGRATING", NEXT).await;
    cluster.move_keys().await;
    cluster.hand_over().await;
    assert_eq!(commit(1, &total).await.unwrap(), Committed::AlreadySettled(ids([1])));
    commit(2, &total).await.unwrap();
    assert_eq!(cluster.nodes[NEXT].raw().await.run::<u64>(&format!("GET {total}")).await, 4);
}

#[tokio::test]
async fn g11_dead_letters_lie_in_the_slot_of_their_stream() {
    let cluster = Cluster::start().await;
    let redis = cluster.connect().await;
    filled(&redis, 2).await;
    deliver(&redis, "c", 2).await;
    let letter = |ms| NewLetter::new(id(ms), fields("v"), 1).with_key(Some(7));
    let bury = async |into: &StreamName, ms| {
        let request = BuryLetters::new(subscription(), into.clone(), vec![letter(ms)]);
        redis.dead_letter(&request.held_by(Some(name("c")))).await
    };
    let dead = dead_letter_stream(&subscription()).unwrap();
    assert_eq!(bury(&dead, 1).await.unwrap(), [Fate::Buried]);
    let elsewhere = stream("elsewhere");
    let out = vec![RedriveLetter::new(id(1), id(1), None)];
    let refused = [
        bury(&elsewhere, 2).await.map(|_| ()),
        redis.dead_keys(&DeadKeys::new(subscription(), elsewhere.clone())).await.map(|_| ()),
        redis.redrive(&Redrive::new(subscription(), elsewhere, out)).await.map(|_| ()),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied), "{error}");
        assert!(error.to_string().contains("`dead_letter_stream`"), "{error}");
    }
    // They go where the stream goes.
    cluster.set_slot(NEXT, "IMPORTING", OWNER).await;
    cluster.set_slot(OWNER, "MIGRATING", NEXT).await;
    cluster.move_keys().await;
    cluster.hand_over().await;
    assert_eq!(bury(&dead, 1).await.unwrap(), [Fate::Buried]);
    assert_eq!(bury(&dead, 2).await.unwrap(), [Fate::Buried]);
    assert_eq!(redis.dead_keys(&DeadKeys::new(subscription(), dead)).await.unwrap(), [(7, 2)]);
}

#[tokio::test]
async fn a_read_that_blocks_while_its_stream_moves_ends_and_the_next_one_finds_it() {
    let cluster = Cluster::start().await;
    let redis = cluster.connect().await;
    filled(&redis, 1).await;
    assert_eq!(deliver(&redis, "c", 1).await, ids([1]));
    let read = ReadGroup::new(subscription(), name("c"), 9).block(Duration::from_secs(20));
    let reader = redis.clone();
    let blocked = tokio::spawn(async move { reader.read_group(&read).await });
    cluster.nodes[OWNER].raw().await.until_blocked(1).await;
    cluster.set_slot(NEXT, "IMPORTING", OWNER).await;
    cluster.set_slot(OWNER, "MIGRATING", NEXT).await;
    cluster.move_keys().await;
    cluster.hand_over().await;
    fill(&redis, 2, 2).await;
    // Servers differ: they say that the key went, or where it went.
    match blocked.await.unwrap() {
        Ok(delivered) => assert_eq!(delivered[0].id(), id(2)),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Missing | ErrorKind::Unavailable), "{error:?}");
            assert!(
                !redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap()
            );
            assert_eq!(deliver(&redis, "c", 9).await, ids([2]));
        }
    }
}

#[tokio::test]
async fn a_dropped_read_closes_its_connection_to_its_node() {
    let cluster = Cluster::start().await;
    let redis = cluster.connect().await;
    filled(&redis, 0).await;
    let raw = cluster.nodes[OWNER].raw().await;
    let reader = redis.clone();
    let read = ReadGroup::new(subscription(), name("c"), 9).block(Duration::from_secs(20));
    let task = tokio::spawn(async move { drop(reader.read_group(&read).await) });
    raw.until_blocked(1).await;
    task.abort();
    raw.until_blocked(0).await;
    fill(&redis, 1, 1).await;
    assert_eq!(deliver(&redis, "d", 1).await, ids([1]), "nobody else took it");
    let reader = redis.clone();
    let read = ReadGroup::new(subscription(), name("d"), 9).block(Duration::from_secs(20));
    let task = tokio::spawn(async move { reader.read_group(&read).await });
    raw.until_blocked(1).await;
    StreamBackend::close(&redis).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(redis.load(&subscription()).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_replica_that_takes_over_is_found() {
    let mut cluster = Cluster::start().await;
    let replica = Cluster::node().await;
    cluster.meet(&replica).await;
    cluster.nodes.push(replica);
    cluster.settled(4).await;
    let raw = cluster.nodes[3].raw().await;
    raw.run::<()>(&format!("CLUSTER REPLICATE {}", cluster.id(OWNER).await)).await;
    eventually(async || raw.run::<String>("INFO replication").await.contains("master_link_status:up")).await;
    // Only one node is named, and it is not the one that dies.
    let redis = connect(format!("redis-cluster://127.0.0.1:{}", cluster.nodes[1].port())).await.unwrap();
    filled(&redis, 3).await;
    cluster.nodes[OWNER].raw().await.replicated().await;
    cluster.nodes[OWNER].stop();
    let error = redis.ack(&Ack::new(subscription(), ids([1]))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error:?}");
    let error = redis.ack(&Ack::new(subscription(), ids([1]))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error:?}");
    connect(format!("redis-cluster://127.0.0.1:{}", cluster.nodes[1].port()))
        .await
        .expect("the others serve");
    raw.run::<()>("CLUSTER FAILOVER TAKEOVER").await;
    let serves = async || match redis.load(&subscription()).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            false
        }
    };
    eventually(serves).await;
    assert_eq!(deliver(&redis, "c", 9).await, ids(1..=3));
    assert_eq!(acked(&redis, 1..=3).await.acked, 3);
}

#[tokio::test]
async fn g18_the_wrong_kind_of_url_says_which_one_is_right() {
    let server = Server::start().await;
    let error = connect(server.url().replace("redis:", "redis-cluster:")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("`redis://`"), "{error}");
    let cluster = Cluster::start().await;
    let redis = cluster.nodes[1].backend().await;
    let error =
        redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("`redis-cluster://`"), "{error}");
}
