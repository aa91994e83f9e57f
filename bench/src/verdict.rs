//! What the project asks of itself, held against what was measured.

use crate::{
    campaign::{Measured, Row},
    measure::Run,
    table::Spread,
};

const OURS: &str = "ours/shared/redis-rs/entry/same";

/// A number that must be at least this, or at most.
#[derive(Debug, Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

use Target::{AtLeast, AtMost};

/// What is asked, what it is held to, and what was measured if it was.
type Line = (&'static str, Target, Option<f64>);

/// A line for each target.
pub fn markdown(report: &[Measured]) -> String {
    let found = Found(report);
    let mut text = String::from("| | asked | measured | |\n| --- | --: | --: | --- |\n");
    for (what, target, measured) in found.throughput().into_iter().chain(found.load()) {
        let (asked, is_met) = match target {
            AtLeast(least) => (format!("≥ {least}"), measured.map(|value| value >= least)),
            AtMost(most) => (format!("≤ {most}"), measured.map(|value| value <= most)),
        };
        let measured = measured.map_or(String::new(), |value| format!("{value:.2}"));
        let verdict = is_met.map_or("not measured", |is_met| if is_met { "met" } else { "**not met**" });
        text += &format!("| {what} | {asked} | {measured} | {verdict} |\n");
    }
    text
}

struct Found<'a>(&'a [Measured]);

impl Found<'_> {
    fn row(&self, group: &str, name: &str) -> Option<&Row> {
        let rows = &self.0.iter().find(|measured| measured.name == group)?.rows;
        rows.iter().find(|row| row.name == name && !row.runs.is_empty())
    }

    fn median(&self, group: &str, name: &str, value: impl Fn(&Run) -> f64) -> Option<f64> {
        Some(Spread::of(&self.row(group, name)?.runs, value).median)
    }

    fn rate(&self, name: &str) -> Option<f64> {
        self.median("throughput", name, Run::rate)
    }

    /// One rate as a share of the highest of others.
    fn of_fastest(&self, name: &str, others: &[&str]) -> Option<f64> {
        let fastest = others.iter().filter_map(|other| self.rate(other)).max_by(f64::total_cmp)?;
        Some(self.rate(name)? / fastest)
    }

    fn throughput(&self) -> Vec<Line> {
        let single = [
            "raw/redis-rs/group/typed",
            "raw/redis-rs/group/lean",
            "raw/redis-rs/group/two connections",
            "raw/redis-rs/group/two connections, checkpoint",
        ];
        let manual = ["sea-streamer 0.5/manual 1000", "sea-streamer 1.0-rc/manual 1000"];
        let rolling = ["sea-streamer 0.5/rolling", "sea-streamer 1.0-rc/rolling"];
        let stream = ["ruststream-fred/batch 1000, pipeline", "ruststream-fred/pipeline"];
        let fred = ["raw/fred/group/lean", "raw/fred/group/two clients"];
        let of = |name, others: &[&str]| self.of_fastest(name, others);
        vec![
            (
                "shared, redis-rs, one reader: of the fastest raw single reader",
                AtLeast(0.95),
                of(OURS, &single),
            ),
            ("the same: of sea-streamer's fastest manual mode", AtLeast(1.2), of(OURS, &manual)),
            ("the same: of sea-streamer's rolling mode", AtLeast(1.8), of(OURS, &rolling)),
            ("the same: of ruststream-fred's fastest", AtLeast(1.6), of(OURS, &stream)),
            (
                "shared, redis-rs, `readers(2)`: of the server's limit",
                AtLeast(0.85),
                of("ours/shared/redis-rs/entry/same/2 readers", &["limit/group"]),
            ),
            (
                "shared, fred: of the fastest raw fred loop",
                AtLeast(0.95),
                of("ours/shared/fred/entry/same", &fred),
            ),
            (
                "exclusive, redis-rs: of the fastest raw XREAD loop",
                AtLeast(0.95),
                of("ours/exclusive/redis-rs/entry/same", &["raw/redis-rs/read/checkpoint"]),
            ),
            (
                "shared, redis-rs: times the design that started this",
                AtLeast(60.0),
                of(OURS, &["one by one"]),
            ),
            (
                "Postgres checkpoint: of ours with the Redis checkpoint",
                AtLeast(0.9),
                of("ours/shared/redis-rs/entry/postgres", &[OURS]),
            ),
        ]
    }

    fn load(&self) -> Vec<Line> {
        let p95 = |group: &str, name: &str| self.median(group, name, |run| run.more["p95 us"]);
        let over = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
        let ours = p95("latency", "ours/shared/redis-rs");
        let sea = p95("latency", "sea-streamer 0.5/one");
        let fan = "ours/100 groups/redis-rs";
        let many = "ours/1000 streams, shared";
        let polled = "raw/100 streams, polled every 100 ms";
        let cpu = |value: fn(&Run) -> f64| {
            over(self.median("polling", "ours/100 streams", value), self.median("polling", polled, value))
        };
        let growth = |name: &str| {
            let rates: Vec<_> = (4..=7)
                .filter_map(|exponent| {
                    self.median("growth", &format!("{name}/10^{exponent} entries"), Run::rate)
                })
                .collect();
            let ends = rates
                .iter()
                .copied()
                .min_by(f64::total_cmp)
                .zip(rates.iter().copied().max_by(f64::total_cmp));
            ends.map(|(least, most)| least / most)
        };
        let stuck = |name: &str| self.median("stuck", name, Run::rate);
        vec![
            (
                "p95 at 1,000 entries/s: of the raw loop",
                AtMost(1.3),
                over(ours, p95("latency", "raw/redis-rs")),
            ),
            ("the same: of sea-streamer", AtMost(1.0), over(ours, sea)),
            (
                "100 groups: p95 of the raw loops with a connection each",
                AtMost(1.0),
                over(p95("fan-out", fan), p95("fan-out", "raw/100 groups, a connection each")),
            ),
            ("100 groups: MB", AtMost(25.0), self.median("fan-out", fan, Run::rss_mb)),
            ("1,000 consumers: MB", AtMost(60.0), self.median("consumers", many, Run::rss_mb)),
            ("1,000 consumers: p95 in ms", AtMost(20.0), p95("consumers", many).map(|us| us / 1e3)),
            (
                "1,000 consumers: connections",
                AtMost(49.0),
                self.median("consumers", many, |run| run.more["connections"]),
            ),
            (
                "10,000 subscriptions: runs that work",
                AtLeast(1.0),
                self.row("subscriptions", "ours/10000 streams, shared").map(|row| row.runs.len() as f64),
            ),
            ("client CPU, of polling every 100 ms", AtMost(0.5), cpu(Run::client_each)),
            ("server CPU, of polling every 100 ms", AtMost(0.5), cpu(Run::server_each)),
            ("slowest of the fastest by length of stream, shared", AtLeast(0.9), growth(OURS)),
            ("the same, exclusive", AtLeast(0.9), growth("ours/exclusive/redis-rs/entry/same")),
            (
                "with one stuck entry: of the same without",
                AtLeast(0.9),
                over(stuck("ours/shared/8 handlers, one stuck"), stuck("ours/shared/8 handlers")),
            ),
        ]
    }
}
