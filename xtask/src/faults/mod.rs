//! `cargo xtask faults`: what happens to servers, done to them on purpose while there is work, as one table.

mod cluster;
mod eyes;
mod ledger;
mod list;
mod row;
mod scene;
mod stage;
mod strike;
mod table;
mod work;

pub use self::{row::row, table::run};
