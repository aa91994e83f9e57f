//! `cargo xtask bench` and `cargo xtask latency`: what the library costs beside what it stands on.

mod histogram;
mod latency;
mod ours;
mod raw;
mod rows;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use highwater_redis::Redis;

pub use self::latency::{fan, latency, pace};
use self::rows::Rows;
use crate::{Result, cli::Bench, servers, support::server::RedisServer};

const STREAM: &str = "bench";
/// The bytes of an entry's one field.
const PAYLOAD: usize = 100;
const BATCH: usize = 1_000;

/// A loop, and the raw one that it is held against.
struct Contender {
    name: &'static str,
    against: Option<&'static str>,
}

const CONTENDERS: &[Contender] = &[
    Contender { name: "raw XREADGROUP + XACK", against: None },
    Contender { name: "highwater shared", against: Some("raw XREADGROUP + XACK") },
    Contender { name: "raw XREAD", against: None },
    Contender { name: "highwater exclusive", against: Some("raw XREAD") },
    Contender { name: "checkpoint in Postgres", against: Some("highwater shared") },
    Contender { name: "raw XREAD + sqlx", against: None },
    Contender { name: "highwater transactional", against: Some("raw XREAD + sqlx") },
];

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Run {
    wall: Duration,
    client_cpu: Duration,
    server_cpu: Duration,
}

/// Runs all loops in turn, so that whatever else the machine does falls on all of them.
pub async fn bench(args: &Bench) -> Result {
    let server = servers::private_redis(&[])?;
    println!("bench: {} entries of {PAYLOAD} bytes, {} rounds, interleaved", args.entries, args.rounds);
    raw::fill(&server.url(), args.entries).await?;
    let backend = Arc::new(Redis::connect(&server.url()).await?);
    let database = Rows::create().await?;
    let chosen = CONTENDERS.iter().filter(|c| args.only.as_ref().is_none_or(|only| c.name.contains(only)));
    let mut results: Vec<(&Contender, Vec<Run>)> = chosen.map(|c| (c, Vec::new())).collect();
    for round in 1..=args.rounds {
        for (contender, runs) in &mut results {
            let group = format!("{}-{round}", contender.name.replace(' ', "-"));
            runs.push(measure(contender, &server, &backend, &database, &group, args.entries).await?);
        }
    }
    print(&results, args.entries);
    Ok(())
}

async fn measure(
    contender: &Contender,
    server: &RedisServer,
    backend: &Arc<Redis>,
    database: &Rows,
    group: &str,
    entries: u64,
) -> Result<Run> {
    // Connections are made before the clock runs, in all loops.
    database.clear().await?;
    let raw = raw::connect(&server.url()).await?;
    let ours = Arc::clone(backend);
    let before = (client_cpu(), server_cpu(server)?);
    let start = Instant::now();
    match contender.name {
        "raw XREADGROUP + XACK" => raw::read_group(raw, group, entries).await?,
        "raw XREAD" => raw::read(raw, entries).await?,
        "highwater shared" => ours::shared(ours, group, entries).await?,
        "highwater exclusive" => ours::exclusive(ours, group, entries).await?,
        "checkpoint in Postgres" => ours::elsewhere(ours, database.store.clone(), group, entries).await?,
        "raw XREAD + sqlx" => database.raw(raw, group, entries).await?,
        _ => database.ours(ours, group, entries).await?,
    }
    let wall = start.elapsed();
    let run = Run {
        wall,
        client_cpu: client_cpu() - before.0,
        server_cpu: server_cpu(server)?.saturating_sub(before.1),
    };
    match contender.name {
        "raw XREAD" => {}
        "raw XREAD + sqlx" => database.check(entries).await?,
        "highwater transactional" => {
            database.check(entries).await?;
            ours::check(backend, &database.store, group).await?;
        }
        "checkpoint in Postgres" => ours::check(backend, &database.store, group).await?,
        _ => check(server, backend, contender, group).await?,
    }
    Ok(run)
}

/// Nothing may be pending, and our checkpoint must be at the end.
async fn check(server: &RedisServer, backend: &Redis, contender: &Contender, group: &str) -> Result {
    let pending = server.cli(&["XPENDING", STREAM, group])?;
    if contender.name != "highwater exclusive" && pending.list().first().and_then(|n| n.int()) != Some(0) {
        return Err(format!("{}: entries are pending: {pending}", contender.name).into());
    }
    if contender.against.is_some() {
        ours::check(backend, backend, group).await?;
    }
    Ok(())
}

fn client_cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

fn server_cpu(server: &RedisServer) -> Result<Duration> {
    let info = server.cli(&["INFO", "cpu"])?.text();
    let spent = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|n| n.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    Ok(Duration::from_secs_f64(spent("used_cpu_user") + spent("used_cpu_sys")))
}

fn print(results: &[(&Contender, Vec<Run>)], entries: u64) {
    println!(
        "{:<24} {:>10} {:>10} {:>10} {:>8} {:>8} {:>6}",
        "", "entries/s", "min", "max", "client", "server", "ratio"
    );
    println!("{:<24} {:>10} {:>10} {:>10} {:>8} {:>8}", "", "median", "", "", "ns/entry", "ns/entry");
    for (contender, runs) in results {
        let rates = sorted(runs.iter().map(|run| entries as f64 / run.wall.as_secs_f64()));
        let each = |cpu: fn(&Run) -> Duration| {
            middle(&sorted(runs.iter().map(|run| cpu(run).as_nanos() as f64 / entries as f64)))
        };
        let base = results.iter().find(|(c, _)| Some(c.name) == contender.against);
        // Of the medians: the rounds of two loops are no pairs.
        let ratio = base.map(|(_, base)| {
            middle(&rates) / middle(&sorted(base.iter().map(|run| entries as f64 / run.wall.as_secs_f64())))
        });
        println!(
            "{:<24} {:>10.0} {:>10.0} {:>10.0} {:>8.0} {:>8.0} {:>6}",
            contender.name,
            middle(&rates),
            rates.first().copied().unwrap_or_default(),
            rates.last().copied().unwrap_or_default(),
            each(|run| run.client_cpu),
            each(|run| run.server_cpu),
            ratio.map(|r| format!("{r:.2}")).unwrap_or_default(),
        );
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(middle(&sorted([3.0, 1.0, 2.0].into_iter())).to_string(), "2");
        assert_eq!(middle(&sorted([4.0, 1.0, 2.0, 3.0].into_iter())).to_string(), "2.5");
    }
}
