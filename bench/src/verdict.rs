//! What the project asks of itself, held against what was measured.

use crate::{
    campaign::{Measured, Row},
    list::Shows,
    measure::Run,
    table::Spread,
};

const OURS: &str = "ours/shared/redis-rs/entry/same";

const EXCLUSIVE: &str = "ours/exclusive/redis-rs/entry/same";
const TWO_READERS: &str = "ours/shared/redis-rs/entry/same/2 readers";

/// A number that must be at least this, or at most.
#[derive(Debug, Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

use Target::{AtLeast, AtMost};

/// What is asked, what it is held to, and what was measured if it was.
type Line = (String, Target, Option<f64>);

/// A line for each target.
pub fn markdown(report: &[Measured]) -> String {
    let found = Found(report);
    let mut text = String::from("| | asked | measured | |\n| --- | --: | --: | --- |\n");
    for (what, target, measured) in found.throughput().into_iter().chain(found.load()) {
        let (asked, is_met) = match target {
            AtLeast(least) => (format!("≥ {least}"), measured.map(|value| value >= least)),
            AtMost(most) => (format!("≤ {most}"), measured.map(|value| value <= most)),
        };
        let digits = measured.map_or(0, |value| if value < 10.0 { 3 } else { 1 });
        let measured = measured.map_or(String::new(), |value| format!("{value:.digits$}"));
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
        let read = ["raw/redis-rs/read/lean", "raw/redis-rs/read/checkpoint"];
        let fred = ["raw/fred/group/lean", "raw/fred/group/two clients"];
        let of = |name, others: &[&str]| self.of_fastest(name, others);
        let line = |what: &str, least, measured| (what.to_owned(), AtLeast(least), measured);
        vec![
            line("shared, redis-rs, one reader: of the fastest raw single reader", 0.95, of(OURS, &single)),
            line("the same: of sea-streamer's fastest manual mode", 1.2, of(OURS, &manual)),
            line("the same: of sea-streamer's rolling mode", 1.8, of(OURS, &rolling)),
            line("the same: of ruststream-fred's fastest", 1.6, of(OURS, &stream)),
            line(
                "shared, redis-rs, `readers(2)`: of the server's limit",
                0.85,
                of(TWO_READERS, &["limit/group"]),
            ),
            line(
                "shared, fred: of the fastest raw fred loop",
                0.95,
                of("ours/shared/fred/entry/same", &fred),
            ),
            line("exclusive, redis-rs: of the fastest raw XREAD loop", 0.95, of(EXCLUSIVE, &read)),
            line("shared, redis-rs: times the design that started this", 60.0, of(OURS, &["one by one"])),
            line(
                "Postgres checkpoint: of ours with the Redis checkpoint",
                0.9,
                of("ours/shared/redis-rs/entry/postgres", &[OURS]),
            ),
            line("producer, 1,000 a call: of a raw pipeline", 0.9, self.producer()),
        ]
    }

    fn producer(&self) -> Option<f64> {
        let rate = |name| self.median("producer", name, Run::rate);
        Some(rate("ours/append_many/redis-rs/1000")? / rate("raw/redis-rs/pipelined XADD/1000")?)
    }

    fn load(&self) -> Vec<Line> {
        let p95 = |group: &str, name: &str| self.median(group, name, |run| Shows::Late.of(run));
        let over = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
        let line = |what: &str, target, measured| (what.to_owned(), target, measured);
        let least =
            |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).min_by(f64::total_cmp);
        let sea = |group, name| {
            let of = |version| p95(group, &format!("sea-streamer {version}/{name}"));
            least(of("0.5"), of("1.0-rc"))
        };
        let ours = p95("latency", "ours/shared/redis-rs");
        let (fan, crowd) = ("ours/100 groups/redis-rs", "ours/100 consumers/redis-rs");
        let many = "ours/1000 streams, shared";
        let cpu = |polled: &str, rate: u32, value: fn(&Run) -> f64| {
            let of = |name: &str| self.median("polling", &format!("{name}/{rate} entries/s"), value);
            over(of("ours/100 streams"), of(&format!("raw/100 streams, polled {polled}")))
        };
        let ways = [("every 100 ms", "all at once"), ("by a connection each", "one by one")];
        let polling = ways.into_iter().flat_map(|(polled, how)| {
            [100, 10].into_iter().flat_map(move |rate| {
                let line = move |who: &str, value| {
                    let what = format!("{who} CPU at {rate} entries/s, of polling {how} every 100 ms");
                    (what, AtMost(0.5), cpu(polled, rate, value))
                };
                [line("client", Run::client_each as fn(&Run) -> f64), line("server", Run::server_each)]
            })
        });
        let stuck = |name: &str| self.median("stuck", name, Run::rate);
        let connections = self.median("consumers", many, |run| run.more["connections"]);
        // A scenario that has failed was measured, and has no run that worked.
        let runs = |name: &str| {
            let rows = self.0.iter().find(|measured| measured.name == "subscriptions")?.rows.iter();
            rows.filter(|row| row.name == name).map(|row| row.runs.len() as f64).next()
        };
        let lines = vec![
            line(
                "p95 at 1,000 entries/s: of the raw loop",
                AtMost(1.3),
                over(ours, p95("latency", "raw/redis-rs")),
            ),
            line("the same: of sea-streamer", AtMost(1.0), over(ours, sea("latency", "one"))),
            line(
                "100 groups: p95 of the raw loops with a connection each",
                AtMost(1.0),
                over(p95("fan-out", fan), p95("fan-out", "raw/100 groups, a connection each")),
            ),
            line("100 groups: MB", AtMost(25.0), self.median("fan-out", fan, Run::rss_mb)),
            line("100 consumers of one group: MB", AtMost(100.0), self.median("crowd", crowd, Run::rss_mb)),
            line("1,000 consumers: MB", AtMost(60.0), self.median("consumers", many, Run::rss_mb)),
            line("1,000 consumers: p95 in ms", AtMost(20.0), p95("consumers", many).map(|us| us / 1e3)),
            line("1,000 consumers: connections", AtMost(49.0), connections),
            line(
                "10,000 subscriptions: runs that start and work",
                AtLeast(1.0),
                runs("ours/10000 streams, shared"),
            ),
            line("the same, calm", AtLeast(1.0), runs("ours/10000 streams, shared, calm")),
            self.growth("shared", OURS),
            self.growth("exclusive", EXCLUSIVE),
            line(
                "with one stuck entry: of the same without",
                AtLeast(0.9),
                over(stuck("ours/shared/8 handlers, one stuck"), stuck("ours/shared/8 handlers")),
            ),
        ];
        lines.into_iter().chain(polling).collect()
    }

    /// The slowest length of a stream beside the fastest. Only who asks for long runs sees the longest.
    fn growth(&self, what: &str, name: &str) -> Line {
        let rate =
            |exponent: &u32| self.median("growth", &format!("{name}/10^{exponent} entries"), Run::rate);
        let rates: Vec<_> = (4..=7).map_while(|exponent| rate(&exponent)).collect();
        let ends =
            rates.iter().copied().min_by(f64::total_cmp).zip(rates.iter().copied().max_by(f64::total_cmp));
        let longest = 3 + rates.len().max(1);
        let what = format!("{what}: slowest of the fastest, from 10^4 to 10^{longest} entries in the stream");
        (what, AtLeast(0.9), ends.map(|(slowest, fastest)| slowest / fastest))
    }
}
