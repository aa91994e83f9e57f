//! The suites: a line for each pair of a client or store and a server.

use highwater::backend::{AtomicSettle, CheckpointBackend};
use highwater_postgres::Postgres;
use highwater_redis::{Fred, Redis, Settings};

use crate::servers::{POSTGRES_15, POSTGRES_18, REDIS_6_2, REDIS_7_0, REDIS_8_0, REDIS_8_2, VALKEY_9_1};

pub(crate) async fn redis_rs(url: &str) -> Redis {
    Redis::connect(url).await.expect("the server answers")
}

pub(crate) async fn fred(url: &str) -> Redis<Fred> {
    Redis::open(Settings::new(url)).await.expect("the server answers")
}

pub(crate) async fn postgres(url: &str) -> Postgres {
    let postgres = Postgres::connect(url).await.expect("the server answers");
    postgres.ensure_schema().await.expect("the user may create tables");
    postgres
}

/// Makes a test of each case, which is skipped where the server cannot be had.
macro_rules! cases {
    ([$run:ident $server:ident] $($module:ident { $($case:ident)* })*) => {
        $(mod $module {
            use super::*;

            $(#[test]
            fn $case() {
                let suite = module_path!().split("::").nth(2).expect("a suite is a module");
                $server.test(suite, || {
                    let case = concat!(stringify!($module), "::", stringify!($case));
                    // One function for all cases, and no closure: the suite is compiled once for each type of it.
                    highwater::conformance::$run(case, make);
                });
            })*
        })*
    };
}

/// The suite of a store of checkpoints.
macro_rules! checkpoints {
    ($name:ident, $open:path, $server:ident) => {
        mod $name {
            use super::*;

            async fn make() -> impl CheckpointBackend {
                $open($server.address()).await
            }

            highwater::__checkpoint_cases! { [cases] run_checkpoint $server }
        }
    };
}

/// All suites of a client of Redis, which is a stream, a store of checkpoints, and both in one step.
macro_rules! redis {
    ($name:ident, $connect:path, $server:ident) => {
        mod $name {
            use super::*;

            async fn make() -> impl AtomicSettle {
                $connect($server.address()).await
            }

            mod stream {
                use super::*;
                highwater::__stream_cases! { [cases] run_stream $server }
            }
            mod settle {
                use super::*;
                highwater::__settle_cases! { [cases] run_settle $server }
            }
            checkpoints!(checkpoint, $connect, $server);
        }
    };
}

redis!(redis_rs_on_redis_6_2, redis_rs, REDIS_6_2);
redis!(redis_rs_on_redis_7_0, redis_rs, REDIS_7_0);
redis!(redis_rs_on_redis_8_0, redis_rs, REDIS_8_0);
redis!(redis_rs_on_redis_8_2, redis_rs, REDIS_8_2);
redis!(redis_rs_on_valkey_9_1, redis_rs, VALKEY_9_1);
redis!(fred_on_redis_6_2, fred, REDIS_6_2);
redis!(fred_on_redis_7_0, fred, REDIS_7_0);
redis!(fred_on_redis_8_0, fred, REDIS_8_0);
redis!(fred_on_redis_8_2, fred, REDIS_8_2);
redis!(fred_on_valkey_9_1, fred, VALKEY_9_1);
checkpoints!(postgres_15, postgres, POSTGRES_15);
checkpoints!(postgres_18, postgres, POSTGRES_18);
