//! `cargo xtask crash`: what a user gets who kills the process at any instant, shown and not argued.

mod audit;
mod child;
mod consumer;
mod exactly_once;
mod observer;
mod rounds;
mod table;
mod transact;

use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;

use self::{
    audit::{Evidence, Verdict, audit, read_effects},
    rounds::{Outcome, Scene},
};
pub use self::{
    child::{consume, produce},
    transact::transact,
};
use crate::{
    Result,
    cli::{Backend, Crash, Ownership, Ownerships, Place},
    servers,
    support::server::RedisServer,
};

/// After a restart the first entry must be settled within this.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// Runs the scene for each ownership and prints what was found.
pub async fn run(args: &Crash) -> Result {
    let disturbed = args.destroy_group || args.flush_group || args.cut_connections;
    if args.backend != Backend::Redis && disturbed {
        return Err("--destroy-group, --flush-group and --cut-connections are for --backend redis".into());
    }
    if args.transactional && disturbed {
        return Err(
            "--destroy-group, --flush-group and --cut-connections are for runs without --transactional"
                .into(),
        );
    }
    if args.entries <= u64::from(args.rounds) {
        return Err("each round needs an entry: more --entries, or fewer --rounds".into());
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let ownerships: &[_] = match args.ownership {
        Ownerships::Shared => &[Ownership::Shared],
        Ownerships::Exclusive => &[Ownership::Exclusive],
        Ownerships::Both => &[Ownership::Shared, Ownership::Exclusive],
    };
    let mut failed = false;
    for ownership in ownerships {
        let holds = match args.transactional {
            true => exactly_once::one(args, *ownership, seed).await?,
            false => one(args, *ownership, seed).await?,
        };
        failed |= !holds;
    }
    if failed {
        Err(format!("a guarantee did not hold: repeat it with --seed {seed}").into())
    } else {
        Ok(())
    }
}

async fn one(args: &Crash, ownership: Ownership, seed: u64) -> Result<bool> {
    let folder = TempDir::new()?;
    let (server, place) = open_place(args.backend, folder.path())?;
    println!(
        "crash: {:?}, {ownership:?}, {} rounds, {} entries, seed {seed}",
        args.backend, args.rounds, args.entries
    );
    let scene = Scene {
        args,
        ownership,
        seed,
        place,
        group: "auditors".to_owned(),
        effects: folder.path().join("effects"),
        server: server.as_ref(),
    };
    let outcome = scene.play().await;
    if outcome.is_err() {
        show_log(server.as_ref());
    }
    let outcome = outcome?;
    let effects = read_effects(&fs::read_to_string(&scene.effects)?)?;
    let verdict = audit(&Evidence {
        ownership,
        entries: args.entries,
        effects: &effects,
        sightings: &outcome.sightings,
        faults: &outcome.faults,
    });
    let holds = print(&outcome, &verdict);
    if !holds {
        println!("  the effects are in           {}", folder.keep().join("effects").display());
    }
    Ok(holds)
}

/// A place for the stream, and its server if it has one.
fn open_place(backend: Backend, folder: &Path) -> Result<(Option<RedisServer>, Place)> {
    let server = match backend {
        Backend::Redis => Some(servers::private_redis(&[])?),
        Backend::Sqlite => None,
    };
    let at = match &server {
        Some(server) => server.url(),
        None => folder.join("stream.db").display().to_string(),
    };
    Ok((server, Place { backend, at, stream: "crash".to_owned() }))
}

fn show_log(server: Option<&RedisServer>) {
    let log = server.and_then(|server| fs::read_to_string(server.dir().join("redis.log")).ok());
    let log = log.unwrap_or_default();
    log.lines().rev().take(10).for_each(|line| eprintln!("redis-server: {line}"));
}

fn print(outcome: &Outcome, verdict: &Verdict) -> bool {
    let mut recoveries = outcome.recoveries.clone();
    recoveries.sort_unstable();
    let slowest = recoveries.last().copied().unwrap_or_default();
    let median = recoveries.get(recoveries.len() / 2).copied().unwrap_or_default();
    println!("{verdict}");
    println!(
        "  restart to first settled     median {median:.2?}, slowest {slowest:.2?} (at most {RECOVERY_MAX:?}), of {}",
        recoveries.len()
    );
    println!(
        "  kills {}, groups lost or connections cut {}, checkpoints seen {}",
        outcome.kills,
        outcome.disturbances,
        outcome.sightings.len()
    );
    let holds = verdict.holds() && slowest <= RECOVERY_MAX;
    println!("  {}", if holds { "holds" } else { "DOES NOT HOLD" });
    holds
}
