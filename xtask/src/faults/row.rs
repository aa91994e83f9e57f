//! One row: the servers, the work, the fault, and what came of it. In a process of its own, so that its memory is its own.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    list::{Harm, KINDS, Kind, is_transactional},
    scene::{Finished, Plan, Scene},
    stage::Stage,
    strike::Fault,
};
use crate::{
    Result,
    cli::{self, FaultRow, FaultStore},
};

/// The first new entry must be settled within this after the fault has ended.
pub const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// Entries a second, and where some have a transaction each.
const RATE: u64 = 200;
const RATE_OF_ROWS: u64 = 25;
/// Before the fault, and behind the first entry that is settled after it, so many entries pass.
const CALM: u64 = 50;
const CONSUMERS: usize = 2;
/// Before the line that holds the row, and between its fields.
pub const MARK: &str = "row|";

/// Plays one row, and prints it.
pub async fn row(args: &FaultRow) -> Result {
    let kind = KINDS.iter().find(|kind| kind.name == args.name).ok_or("there is no such fault")?;
    let with_postgres = matches!(args.store, FaultStore::Postgres | FaultStore::Rows);
    let mut stage = Stage::open(kind.ground, with_postgres).await?;
    let plan = Plan {
        redis: stage.url(),
        postgres: stage.postgres_url(),
        stream: "faults".to_owned(),
        client: match args.client {
            cli::Client::RedisRs => highwater_redis::Client::RedisRs,
            cli::Client::Fred => highwater_redis::Client::Fred,
        },
        ownership: args.ownership,
        store: args.store,
        consumers: CONSUMERS,
        singly: true,
        follows: kind.harm != Harm::Nothing,
        rate: if args.store == FaultStore::Rows { RATE_OF_ROWS } else { RATE },
        retention: None,
    };
    let mut scene = Scene::start(plan).await?;
    let shared = Arc::clone(&scene.shared);
    let played = async {
        scene.pass(CALM).await?;
        scene.shared.ledger().note("the fault begins");
        kind.fault.strike(&mut stage, "faults")?;
        let ended = Instant::now();
        scene.shared.ledger().note("the fault is over");
        if kind.harm != Harm::Nothing {
            scene.forgive();
        }
        let recovery = scene.recover(ended).await?;
        scene.shared.ledger().note("the first new entry is settled");
        if harm(kind, args.store) == Harm::Entries {
            scene.until_told(ended + RECOVERY_MAX).await;
        }
        scene.pass(CALM).await?;
        Result::Ok(recovery)
    };
    let result = match played.await {
        Ok(recovery) => scene.finish().await.map(|finished| (recovery, finished)),
        Err(error) => Err(error),
    };
    let (recovery, finished) = match result {
        Ok(done) => done,
        Err(error) => {
            shared.ledger().notes().for_each(|note| eprintln!("  {note}"));
            return Err(error);
        }
    };
    let wrong = judge(harm(kind, args.store), args.store, recovery, &finished);
    if args.notes || !wrong.is_empty() {
        finished.shared.ledger().notes().for_each(|note| eprintln!("  {note}"));
    }
    println!("{MARK}{}", line(recovery, &finished, &wrong)?);
    Ok(())
}

/// Where the checkpoint goes with the stream, a new subscription begins, and there is nothing to hold against it.
fn harm(kind: &Kind, store: FaultStore) -> Harm {
    match kind.harm {
        Harm::Entries if kind.fault == Fault::FlushAll && store == FaultStore::Redis => Harm::Tail,
        harm => harm,
    }
}

/// What does not hold, in words.
fn judge(harm: Harm, store: FaultStore, recovery: Duration, finished: &Finished) -> Vec<String> {
    let Finished { count, settled, shared } = finished;
    let ledger = shared.ledger();
    let seen = &ledger.seen;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    must(count.lost == 0, "entries were lost");
    must(*settled, "not all was settled");
    must(recovery < RECOVERY_MAX, "it took too long");
    must(!is_transactional(store) || count.duplicates == 0, "an effect took place twice");
    must(harm != Harm::Entries || seen.gaps + seen.resets > 0, "entries went in silence");
    must(
        harm != Harm::Nothing || seen.gaps + seen.resets == 0,
        "a gap or a reset was told where there was none",
    );
    must(harm == Harm::Key || seen.ended.is_empty(), "a consumer ended");
    must(harm != Harm::Key || !seen.ended.is_empty(), "no consumer said that the key is wrong");
    wrong
}

/// The fields of the row.
fn line(recovery: Duration, finished: &Finished, wrong: &[String]) -> Result<String> {
    let Finished { count, shared, .. } = finished;
    let ledger = shared.ledger();
    let seen = &ledger.seen;
    let fields = [
        count.appended.to_string(),
        count.lost.to_string(),
        count.gone.to_string(),
        seen.told().to_string(),
        count.duplicates.to_string(),
        format!("{:.2} s", recovery.as_secs_f64()),
        format!("{:.1} MiB", peak_memory()? as f64 / 1024.0),
        seen.reconnects.to_string(),
        wrong.join(", "),
    ];
    Ok(fields.join("|"))
}

/// The most memory that this process has had, in KiB.
pub fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak of memory")?;
    Ok(line.split_whitespace().next().ok_or("no peak of memory")?.parse()?)
}
