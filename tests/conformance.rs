//! The conformance suite over every backend that needs a server or a file. The core runs it over memory and the layers.

use std::sync::Arc;

use highwater::backend::{AtomicSettle, CheckpointBackend, StreamBackend};
use highwater_postgres::Postgres;
use highwater_redis::{Client, Fred, Redis, RedisStore, Settings};
use highwater_sqlite::Sqlite;

use crate::{
    effects::{RedisTables, shared_postgres as postgres_effects, sqlite as sqlite_effects},
    support::shared_redis_url,
};

async fn redis() -> Redis {
    Redis::connect(&shared_redis_url()).await.expect("the server answers")
}

async fn redis_resp3() -> Redis {
    Redis::connect(&format!("{}/?protocol=resp3", shared_redis_url())).await.expect("the server answers")
}

/// Reads wait together, without connections of their own.
async fn redis_waiting() -> Redis {
    let settings = Settings::new(shared_redis_url()).reading_connections_max(0);
    Redis::connect_with(settings).await.expect("the server answers")
}

async fn fred_waiting() -> Redis<Fred> {
    let settings = Settings::new(shared_redis_url()).reading_connections_max(0);
    Redis::open(settings).await.expect("the server answers")
}

async fn redis_effects() -> (Redis, RedisTables) {
    (redis().await, RedisTables(redis().await))
}

async fn redis_resp3_effects() -> (Redis, RedisTables) {
    (redis_resp3().await, RedisTables(redis_resp3().await))
}

async fn fred() -> Redis<Fred> {
    Redis::open(Settings::new(shared_redis_url())).await.expect("the server answers")
}

async fn fred_resp3() -> Redis<Fred> {
    let url = format!("{}/?protocol=resp3", shared_redis_url());
    Redis::open(Settings::new(url)).await.expect("the server answers")
}

/// As a deployment would that names its client in a setting.
async fn chosen(client: Client) -> Arc<dyn RedisStore> {
    highwater_redis::connect(shared_redis_url(), client).await.expect("the server answers")
}

async fn any_stream() -> Arc<dyn StreamBackend> {
    chosen(Client::RedisRs).await
}

async fn any_checkpoint() -> Arc<dyn CheckpointBackend> {
    chosen(Client::RedisRs).await
}

async fn any_settle() -> Arc<dyn AtomicSettle> {
    chosen(Client::RedisRs).await
}

async fn any_fred_stream() -> Arc<dyn StreamBackend> {
    chosen(Client::Fred).await
}

async fn any_fred_checkpoint() -> Arc<dyn CheckpointBackend> {
    chosen(Client::Fred).await
}

async fn any_fred_settle() -> Arc<dyn AtomicSettle> {
    chosen(Client::Fred).await
}

async fn any_fred_effects() -> (Arc<dyn RedisStore>, RedisTables) {
    (chosen(Client::Fred).await, RedisTables(redis().await))
}

async fn sqlite() -> Sqlite {
    sqlite_effects().await.0
}

async fn postgres() -> Postgres {
    postgres_effects().await.0
}

highwater::stream_conformance!(redis_stream, redis);
highwater::checkpoint_conformance!(redis_checkpoint, redis);
highwater::settle_conformance!(redis_settle, redis);
highwater::stream_conformance!(redis_resp3_stream, redis_resp3);
highwater::settle_conformance!(redis_resp3_settle, redis_resp3);
highwater::transactional_conformance!(redis_transactional, redis_effects);
highwater::transactional_conformance!(redis_resp3_transactional, redis_resp3_effects);
highwater::fused_conformance!(redis_fused, redis_effects);
highwater::fused_conformance!(redis_resp3_fused, redis_resp3_effects);
highwater::stream_conformance!(redis_waiting_stream, redis_waiting);
highwater::stream_conformance!(fred_waiting_stream, fred_waiting);
highwater::stream_conformance!(redis_shared_stream, any_stream);
highwater::checkpoint_conformance!(redis_shared_checkpoint, any_checkpoint);
highwater::settle_conformance!(redis_shared_settle, any_settle);
highwater::stream_conformance!(fred_stream, fred);
highwater::checkpoint_conformance!(fred_checkpoint, fred);
highwater::settle_conformance!(fred_settle, fred);
highwater::stream_conformance!(fred_resp3_stream, fred_resp3);
highwater::checkpoint_conformance!(fred_resp3_checkpoint, fred_resp3);
highwater::settle_conformance!(fred_resp3_settle, fred_resp3);
highwater::stream_conformance!(fred_shared_stream, any_fred_stream);
highwater::checkpoint_conformance!(fred_shared_checkpoint, any_fred_checkpoint);
highwater::settle_conformance!(fred_shared_settle, any_fred_settle);
highwater::transactional_conformance!(fred_shared_transactional, any_fred_effects);
highwater::fused_conformance!(fred_shared_fused, any_fred_effects);
highwater::stream_conformance!(sqlite_stream, sqlite);
highwater::checkpoint_conformance!(sqlite_checkpoint, sqlite);
highwater::settle_conformance!(sqlite_settle, sqlite);
highwater::checkpoint_conformance!(postgres_checkpoint, postgres);
highwater::transactional_conformance!(sqlite_transactional, sqlite_effects);
highwater::fused_conformance!(sqlite_fused, sqlite_effects);
highwater::transactional_conformance!(postgres_transactional, postgres_effects);
