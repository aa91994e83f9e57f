//! Every method, by the client `fred`, against a private server: `redis-server`, or the program that `REDIS_SERVER` names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// The other root of these tests has the other client.
type Redis = highwater_redis::Redis<highwater_redis::Fred>;

#[path = "live/server.rs"]
mod server;

#[path = "live/attempts.rs"]
mod attempts;
#[path = "live/checkpoints.rs"]
mod checkpoints;
#[path = "live/claims.rs"]
mod claims;
#[path = "live/cluster.rs"]
mod cluster;
#[path = "live/connections.rs"]
mod connections;
#[path = "live/effects.rs"]
mod effects;
#[path = "live/handlers.rs"]
mod handlers;
#[path = "live/large_settles.rs"]
mod large_settles;
#[path = "live/letters.rs"]
mod letters;
#[path = "live/letters_model.rs"]
mod letters_model;
#[path = "live/model.rs"]
mod model;
#[path = "live/sentinel.rs"]
mod sentinel;
#[path = "live/settlement.rs"]
mod settlement;
#[path = "live/streams.rs"]
mod streams;
#[path = "live/transactions.rs"]
mod transactions;
#[path = "live/waiting.rs"]
mod waiting;
