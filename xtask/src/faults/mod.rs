//! `cargo xtask faults`: what happens to servers, done to them on purpose while there is work, as one table.

mod cluster;
mod eyes;
pub mod ledger;
pub mod list;
pub mod row;
pub mod scene;
pub mod stage;
pub mod strike;
mod table;
mod work;

pub use self::{row::row, table::run};
