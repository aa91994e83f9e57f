//! Random sequences over the whole library and each server: a Redis as both stores, a PostgreSQL beside a stream in memory.

use std::sync::Arc;

use highwater::{
    Memory,
    conformance::model::{Sequences, Stores},
};
use tokio::{runtime::Builder, sync::Mutex};

use crate::{
    servers::{POSTGRES_15, POSTGRES_18, REDIS_6_2, REDIS_7_0, REDIS_8_0, REDIS_8_2, VALKEY_9_1},
    suites,
};

/// What is drawn for each server. The matrix of the core draws more, over one version of each.
const SEQUENCES: u32 = 8;

async fn redis_rs(url: &str) -> Stores {
    Stores::one(Arc::new(suites::redis_rs(url).await))
}

async fn fred(url: &str) -> Stores {
    Stores::one(Arc::new(suites::fred(url).await))
}

async fn postgres(url: &str) -> Stores {
    Stores::one(Memory::new()).with_checkpoints(suites::postgres(url).await)
}

/// Runs what is drawn over stores that are opened once.
fn drawn(open: impl AsyncFn() -> Stores) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a test can start a runtime");
    let opened = Mutex::new(None);
    let result = Sequences::new(SEQUENCES).run(&runtime, async || {
        let mut opened = opened.lock().await;
        if opened.is_none() {
            *opened = Some(open().await);
        }
        opened.clone().expect("it was opened")
    });
    let summary = result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(summary.sequences >= 1, "something was drawn");
}

macro_rules! sequences {
    ($($name:ident: $open:ident on $server:ident;)*) => {
        $(#[test]
        fn $name() {
            $server.test("sequences", || drawn(async || $open($server.address()).await));
        })*
    };
}

sequences! {
    redis_rs_on_redis_6_2: redis_rs on REDIS_6_2;
    redis_rs_on_redis_7_0: redis_rs on REDIS_7_0;
    redis_rs_on_redis_8_0: redis_rs on REDIS_8_0;
    redis_rs_on_redis_8_2: redis_rs on REDIS_8_2;
    redis_rs_on_valkey_9_1: redis_rs on VALKEY_9_1;
    fred_on_redis_6_2: fred on REDIS_6_2;
    fred_on_redis_7_0: fred on REDIS_7_0;
    fred_on_redis_8_0: fred on REDIS_8_0;
    fred_on_redis_8_2: fred on REDIS_8_2;
    fred_on_valkey_9_1: fred on VALKEY_9_1;
    postgres_15: postgres on POSTGRES_15;
    postgres_18: postgres on POSTGRES_18;
}
