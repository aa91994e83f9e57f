//! Time, processor time and memory: measured here, and nowhere else.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::Result;

/// What one run took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    pub entries: u64,
    pub wall_ns: u64,
    pub client_ns: u64,
    pub server_ns: u64,
    /// The most memory that the process ever had.
    pub rss_kib: u64,
    /// How many cores other processes kept busy meanwhile.
    pub foreign_cores: f64,
    /// What only some scenarios have: quantiles, connections.
    #[serde(default)]
    pub more: BTreeMap<String, f64>,
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.entries as f64 * 1e9 / self.wall_ns.max(1) as f64
    }

    pub fn client_each(&self) -> f64 {
        self.client_ns as f64 / self.entries.max(1) as f64
    }

    pub fn rss_mb(&self) -> f64 {
        self.rss_kib as f64 / 1024.0
    }

    pub fn server_each(&self) -> f64 {
        self.server_ns as f64 / self.entries.max(1) as f64
    }
}

/// Measures from its making to its stop.
#[derive(Debug)]
pub struct Meter {
    servers: Vec<u32>,
    /// Who else is a part of the run: its time is neither the client's nor foreign.
    beside: Option<u32>,
    entries: u64,
    start: Instant,
    client: Duration,
    server: Duration,
    busy: Duration,
}

impl Meter {
    pub fn start(servers: Vec<u32>, entries: u64) -> Result<Self> {
        let server = servers.iter().map(|pid| process_time(*pid)).sum();
        let (client, busy) = (own_time(), busy()?);
        Ok(Self { server, servers, beside: None, entries, client, busy, start: Instant::now() })
    }

    /// This process, which has just begun, is a part of the run.
    pub fn beside(&mut self, pid: u32) {
        self.beside = Some(pid);
    }

    pub fn stop(self) -> Result<Run> {
        let wall = self.start.elapsed();
        let client = own_time() - self.client;
        let server: Duration = self.servers.iter().map(|pid| process_time(*pid)).sum();
        let server = server.saturating_sub(self.server);
        let beside = self.beside.map(process_time).unwrap_or_default();
        let foreign = (busy()? - self.busy).as_secs_f64() - (client + server + beside).as_secs_f64();
        Ok(Run {
            entries: self.entries,
            wall_ns: nanos(wall),
            client_ns: nanos(client),
            server_ns: nanos(server),
            rss_kib: peak_rss_kib()?,
            foreign_cores: foreign / wall.as_secs_f64(),
            more: BTreeMap::new(),
        })
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock that all processes of the machine read alike.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn own_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// The time that all threads of a process and its children have run, by nanoseconds: its `stat` knows hundredths.
fn process_time(pid: u32) -> Duration {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(folder).into_iter().flatten().flatten();
    let own: Duration = threads.map(|thread| thread_time(&thread.path().join("schedstat"))).sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + children.split_whitespace().filter_map(|c| c.parse().ok()).map(process_time).sum::<Duration>()
}

fn thread_time(schedstat: &std::path::Path) -> Duration {
    // A thread may end between the list and here.
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// The time that all cores were busy.
pub fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("an empty /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum();
    Ok(Duration::from_millis(busy * 10))
}

fn peak_rss_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
