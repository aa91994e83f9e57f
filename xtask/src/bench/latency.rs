//! How late entries come to their handlers, with many consumers in one process, and how much memory that takes.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use highwater::{Consumer, Delivery, Fields, Subscription, backend::AtomicSettle, producer::Producer};
use tokio::{sync::watch, task::JoinSet, time};

use super::{PAYLOAD, histogram::Histogram};
use crate::{
    Result,
    cli::{Backend, Fan, Latency, Pace, Place},
    place, servers,
    support::process::Guarded,
};

/// Consumers have this long to take their places before the first entry.
const SETTLE_IN: Duration = Duration::from_secs(3);
/// After the last entry was due, stragglers have this long.
const STRAGGLE: Duration = Duration::from_secs(30);
/// What the project's issue asks for on its machine.
const P95_MAX: Duration = Duration::from_millis(20);
const RSS_MAX_KIB: u64 = 60 * 1024;

/// Measures both ways of many consumers on one stream: a group each, and one group for all.
pub async fn latency(args: &Latency) -> Result {
    println!(
        "latency: {} consumers in one process, {} entries/s for {} s, from before the append to the handler",
        args.consumers, args.rate, args.seconds
    );
    for group_each in [true, false] {
        let server = servers::private_redis(&[])?;
        let place = Place { backend: Backend::Redis, at: server.url(), stream: "latency".to_owned() };
        let entries = args.rate * args.seconds;
        let mut fan = child("fan", &place, entries)?;
        fan.args(["--consumers", &args.consumers.to_string()]).stdout(Stdio::piped());
        if group_each {
            fan.arg("--group-each");
        }
        let mut fan = Guarded::spawn(&mut fan)?;
        let mut lines = BufReader::new(fan.child().stdout.take().ok_or("no output")?).lines();
        lines.next().ok_or("the consumers did not start")??;
        let mut pace = child("pace", &place, entries)?;
        let mut pace = Guarded::spawn(pace.args(["--rate", &args.rate.to_string()]))?;
        for line in lines {
            println!("{}: {}", if group_each { "a group each" } else { "one group   " }, line?);
        }
        if !fan.wait()?.success() || !pace.wait()?.success() {
            return Err("a process failed: see above".into());
        }
    }
    Ok(())
}

fn child(task: &str, place: &Place, entries: u64) -> io::Result<Command> {
    let mut command = Command::new(crate::this_program()?);
    command.args(["child", task]).args(place::arguments(place)).args(["--entries", &entries.to_string()]);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Appends entries that carry the time, one by one, evenly.
pub async fn pace(args: &Pace) -> Result {
    let opened = place::open(&args.place).await?;
    let producer = Producer::new(args.place.stream.parse()?, opened.stream)?;
    let mut ticks = time::interval(Duration::from_secs(1) / u32::try_from(args.rate)?);
    for _ in 0..args.entries {
        ticks.tick().await;
        let mut payload = vec![b'x'; PAYLOAD];
        payload[..8].copy_from_slice(&now().to_be_bytes());
        producer.append(Fields::from_iter([("d", payload)])).await?;
    }
    producer.close().await?;
    Ok(())
}

/// Consumes with many consumers, says when they stand, and what they measured.
pub async fn fan(args: &Fan) -> Result {
    match args.place.backend {
        Backend::Redis => fan_from(args, highwater_redis::Redis::connect(&args.place.at).await?).await,
        Backend::Sqlite => fan_from(args, highwater_sqlite::Sqlite::open(&args.place.at).await?).await,
    }
}

async fn fan_from<B: AtomicSettle>(args: &Fan, backend: B) -> Result {
    let backend = Arc::new(backend);
    let gauge = Arc::new(Gauge::default());
    let (stop, stopped) = watch::channel(false);
    let mut consumers = JoinSet::new();
    for n in 0..args.consumers {
        let group = if args.group_each { format!("group-{n}") } else { "group".to_owned() };
        let subscription = Subscription::new(&args.place.stream, group)?;
        let consumer = Consumer::fused(subscription, Arc::clone(&backend)).shared().build()?;
        let (gauge, mut stopped) = (Arc::clone(&gauge), stopped.clone());
        let handler = move |delivery: Delivery| std::future::ready(gauge.take(&delivery));
        consumers.spawn(async move {
            let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
            consumer.run(handler, stop).await
        });
    }
    time::sleep(SETTLE_IN).await;
    println!("ready");
    let expected = args.entries * if args.group_each { u64::from(args.consumers) } else { 1 };
    let handled = gauge.wait(expected).await;
    stop.send_replace(true);
    while let Some(ended) = consumers.join_next().await {
        ended??;
    }
    print(&gauge, handled, expected)
}

fn print(gauge: &Gauge, handled: u64, expected: u64) -> Result {
    let histogram = gauge.histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let (p95, rss) = (histogram.quantile(0.95), peak_rss_kib()?);
    println!(
        "p50 {:.2?}, p95 {p95:.2?}, p99 {:.2?}, max {:.2?} of {} deliveries, peak RSS {:.1} MiB: {}",
        histogram.quantile(0.50),
        histogram.quantile(0.99),
        histogram.max(),
        histogram.len(),
        rss as f64 / 1024.0,
        if p95 < P95_MAX && rss < RSS_MAX_KIB { "within 20 ms and 60 MiB" } else { "OVER 20 ms or 60 MiB" }
    );
    if handled == expected { Ok(()) } else { Err(format!("{handled} of {expected} deliveries came").into()) }
}

#[derive(Debug, Default)]
struct Gauge {
    handled: AtomicU64,
    histogram: Mutex<Histogram>,
}

impl Gauge {
    fn take(&self, delivery: &Delivery) -> io::Result<()> {
        let payload = delivery.fields().get("d").and_then(|payload| payload.first_chunk());
        let sent = u64::from_be_bytes(*payload.ok_or_else(|| io::Error::other("an entry without a time"))?);
        let late = Duration::from_nanos(now().saturating_sub(sent));
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner).record(late);
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until so many came, or none any more.
    async fn wait(&self, expected: u64) -> u64 {
        let (mut last, mut quiet) = (0, Duration::ZERO);
        loop {
            const STEP: Duration = Duration::from_millis(100);
            time::sleep(STEP).await;
            let handled = self.handled.load(Ordering::Relaxed);
            quiet = if handled == last { quiet + STEP } else { Duration::ZERO };
            if handled >= expected || quiet > STRAGGLE {
                return handled;
            }
            last = handled;
        }
    }
}

/// Nanoseconds by the clock that both processes read.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The most memory that this process ever had, as the kernel counts it.
fn peak_rss_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
