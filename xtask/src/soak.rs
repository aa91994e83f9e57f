//! `cargo xtask soak`.

use crate::{Result, cli::Soak};

pub async fn run(args: &Soak) -> Result {
    Err(format!("{args:?}").into())
}
