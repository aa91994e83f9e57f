//! `cargo xtask soak`: everything at once for a while, over one Redis and one PostgreSQL, with random faults.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use highwater_redis::Client;
use tokio::{task::JoinSet, time};

use crate::{
    Result,
    cli::{FaultStore, Ownership, Soak},
    faults::{
        list::{is_transactional, store_name},
        row::{RECOVERY_MAX, peak_memory},
        scene::{Finished, Plan, Scene},
        stage::{Ground, Stage},
        strike::Fault,
    },
};

/// Old entries are trimmed, or the server's log would grow until it takes long to read.
const RETENTION: Duration = Duration::from_mins(2);
const CONSUMERS: usize = 2;
/// Between faults, at most.
const CALM_MAX_MS: u64 = 4_000;
/// What is done to a server, and takes nothing.
const HARMLESS: &[Fault] = &[
    Fault::Kill,
    Fault::ClientKill,
    Fault::ClientPause,
    Fault::DebugSleep,
    Fault::ScriptFlush,
    Fault::MaxMemory,
    Fault::Cut,
    Fault::Stall,
    Fault::HalfOpen,
    Fault::LoseReplies,
    Fault::PgKill,
    Fault::PgRestart,
    Fault::PgReadOnly,
    Fault::PgConnections,
    Fault::PgStall,
    Fault::PgHalfOpen,
    Fault::PgLoseReplies,
];
/// What is done to one stream, and takes its entries.
const HARMFUL: &[Fault] = &[Fault::Del, Fault::Rename, Fault::SetOver];

/// Runs it, and says what came of it.
pub async fn run(args: &Soak) -> Result {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "soak: {} minutes, {} entries a second for each subscription, seed {seed}",
        args.minutes, args.rate
    );
    let mut stage = Stage::open(Ground::AlwaysProxied, true).await?;
    let mut scenes = Vec::new();
    for plan in plans(&stage, args.rate) {
        scenes.push(Scene::start(plan).await?);
    }
    let end = Instant::now() + Duration::from_secs(args.minutes * 60);
    let mut random = Rng::with_seed(seed);
    let mut struck = BTreeMap::new();
    let played = play(&mut stage, &mut scenes, end, &mut random, &mut struck).await;
    if let Err(error) = played {
        scenes.iter().for_each(|scene| show(&scene.shared.ledger(), &scene.shared.plan));
        return Err(format!("{error}: repeat it with --seed {seed}").into());
    }
    let mut finished = Vec::new();
    for scene in scenes {
        finished.push(scene.finish().await?);
    }
    if print(&struck, &finished)? {
        Ok(())
    } else {
        finished.iter().for_each(|scene| show(&scene.shared.ledger(), &scene.shared.plan));
        Err(format!("a guarantee did not hold: repeat it with --seed {seed}").into())
    }
}

/// Each client with each ownership, once with and once without transactions; each store as often as the others.
fn plans(stage: &Stage, rate: u64) -> Vec<Plan> {
    let stores = [
        [FaultStore::Redis, FaultStore::Rows],
        [FaultStore::Postgres, FaultStore::Keys],
        [FaultStore::Postgres, FaultStore::Keys],
        [FaultStore::Redis, FaultStore::Rows],
    ];
    let clients = [Client::RedisRs, Client::Fred];
    let pairs = clients.into_iter().flat_map(|client| {
        [Ownership::Shared, Ownership::Exclusive].into_iter().map(move |ownership| (client, ownership))
    });
    let each = pairs.zip(stores).flat_map(|(pair, stores)| stores.map(|store| (pair, store)));
    let plan = |(nth, ((client, ownership), store)): (usize, ((Client, Ownership), FaultStore))| Plan {
        redis: stage.url(),
        postgres: stage.postgres_url(),
        stream: format!("soak{nth}"),
        client,
        ownership,
        store,
        consumers: CONSUMERS,
        // It must keep up also where the machine has other things to do.
        singly: false,
        follows: !is_transactional(store),
        rate,
        retention: Some(RETENTION),
    };
    each.enumerate().map(plan).collect()
}

/// How often something was done, and the slowest recovery from it.
type Struck = BTreeMap<String, (u32, Duration)>;

async fn play(
    stage: &mut Stage,
    scenes: &mut Vec<Scene>,
    end: Instant,
    random: &mut Rng,
    struck: &mut Struck,
) -> Result {
    recover(scenes, Instant::now()).await?;
    while Instant::now() < end {
        time::sleep(Duration::from_millis(random.u64(0..CALM_MAX_MS))).await;
        let kinds = HARMLESS.len() + HARMFUL.len();
        let fault = random.usize(0..kinds);
        let fault = HARMLESS.iter().chain(HARMFUL).nth(fault).copied().unwrap_or(Fault::Kill);
        let victims: Vec<_> = (0..scenes.len()).filter(|nth| scenes[*nth].shared.plan.follows).collect();
        let victim = victims[random.usize(0..victims.len())];
        if HARMFUL.contains(&fault) {
            // What was settled before it is not forgiven.
            scenes[victim].pass(0).await?;
        }
        let stream = scenes[victim].shared.plan.stream.clone();
        for scene in scenes.iter() {
            scene.shared.ledger().note(format_args!("{fault:?} begins"));
        }
        fault.strike(stage, &stream)?;
        let ended = Instant::now();
        if HARMFUL.contains(&fault) {
            scenes[victim].forgive();
        }
        // Now and then the next one comes while they recover.
        let waits = random.u8(0..5) > 0;
        let slowest = if waits { recover(scenes, ended).await? } else { Duration::ZERO };
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let recovered =
            if waits { format!("{:.2} s", slowest.as_secs_f64()) } else { "not waited for".to_owned() };
        println!("  {fault:?}: slowest recovery {recovered}, {left} s left");
        let (times, most) = struck.entry(format!("{fault:?}")).or_default();
        (*times, *most) = (*times + 1, slowest.max(*most));
    }
    recover(scenes, Instant::now()).await.map(drop)
}

/// Waits until each has settled a new entry. How long the slowest took.
async fn recover(scenes: &mut Vec<Scene>, since: Instant) -> Result<Duration> {
    let mut running = JoinSet::new();
    for scene in scenes.drain(..) {
        running.spawn(async move {
            let result = scene.recover(since).await;
            (scene, result)
        });
    }
    let mut slowest = Ok(Duration::ZERO);
    for (scene, result) in running.join_all().await {
        let plan = &scene.shared.plan;
        slowest = match (slowest, result) {
            (Ok(slowest), Ok(took)) => Ok(took.max(slowest)),
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(format!("{error}: {plan:?}").into()),
        };
        scenes.push(scene);
    }
    scenes.sort_by(|a, b| a.shared.plan.stream.cmp(&b.shared.plan.stream));
    slowest
}

/// Prints what was done and what came of it, and says whether all holds.
fn print(struck: &Struck, finished: &[Finished]) -> Result<bool> {
    println!("\n| fault | times | slowest recovery |\n| --- | --- | --- |");
    let mut holds = true;
    for (fault, (times, slowest)) in struck {
        println!("| {fault} | {times} | {:.2} s |", slowest.as_secs_f64());
        holds &= *slowest < RECOVERY_MAX;
    }
    println!(
        "\n| client | ownership | checkpoint | appended | lost | gone | told | duplicates | reconnects |"
    );
    println!("|{}", " --- |".repeat(9));
    for Finished { count, settled, shared } in finished {
        let (plan, ledger) = (&shared.plan, shared.ledger());
        let seen = &ledger.seen;
        let (told, store) = (seen.told(), store_name(plan.store));
        println!(
            "| {} | {:?} | {store} | {} | {} | {} | {told} | {} | {} |",
            plan.client,
            plan.ownership,
            count.appended,
            count.lost,
            count.gone,
            count.duplicates,
            seen.reconnects
        );
        holds &= count.lost == 0 && *settled;
        holds &= count.duplicates == 0 || !is_transactional(plan.store);
        holds &= told == 0 || plan.follows;
    }
    println!("\npeak memory {:.1} MiB", peak_memory()? as f64 / 1024.0);
    println!("{}", if holds { "holds" } else { "DOES NOT HOLD" });
    Ok(holds)
}

fn show(ledger: &crate::faults::ledger::Ledger, plan: &Plan) {
    eprintln!("{plan:?}");
    ledger.notes().for_each(|note| eprintln!("  {note}"));
}
