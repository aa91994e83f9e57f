//! Every method against a private server.

#[path = "live/server.rs"]
mod server;

#[path = "live/checkpoints.rs"]
mod checkpoints;
#[path = "live/claims.rs"]
mod claims;
#[path = "live/connections.rs"]
mod connections;
#[path = "live/settlement.rs"]
mod settlement;
#[path = "live/streams.rs"]
mod streams;
