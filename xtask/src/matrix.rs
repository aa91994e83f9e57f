//! What the suites said of each combination of a stream store and a checkpoint store, as one table.

use std::{collections::BTreeMap, fmt};

/// A stream store: its name in the table, in `tests/matrix.rs`, and in the modules of its conformance tests.
const STREAMS: &[(&str, &str, &str)] = &[
    ("redis-rs", "redis_rs", "redis"),
    ("fred", "fred", "fred"),
    ("sqlite", "sqlite", "sqlite"),
    ("memory", "memory", "memory"),
];

/// A checkpoint store, in the same way. That of the first is the stream's own.
const CHECKPOINTS: &[(&str, &str, &str)] = &[
    ("the same", "the_same", ""),
    ("another redis", "another_redis", "redis"),
    ("postgres", "postgres", "postgres"),
    ("another sqlite", "another_sqlite", "sqlite"),
    ("another memory", "another_memory", "memory"),
];

/// What a checkpoint store is tested for by itself, and what one that is both stores is.
const ALONE: &[&str] = &["checkpoint", "transactional"];
const BOTH: &[&str] = &["settle", "fused"];

/// The results of all combinations.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Random sequences: stream and checkpoint store.
    sequences: BTreeMap<(String, String), Count>,
    /// Conformance: the module.
    conformance: BTreeMap<String, Count>,
    /// The test whose output comes.
    test: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Count {
    run: u64,
    passed: u64,
    skipped: u64,
    notes: Vec<String>,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.run += other.run;
        self.passed += other.passed;
        self.skipped += other.skipped;
        for note in other.notes.iter().filter(|note| !self.notes.contains(note)).cloned().collect::<Vec<_>>()
        {
            self.notes.push(note);
        }
    }
}

impl Matrix {
    /// Takes one line of what `cargo test` prints.
    pub fn take(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("matrix: ") {
            self.take_sequences(result);
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            if let Some(module) = module(name) {
                let count = self.conformance.entry(module).or_default();
                count.run += 1;
                count.passed += u64::from(verdict == "ok");
            }
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = module(name);
        } else if let (Some(module), Some(rest)) = (&self.test, line.strip_prefix("not applicable: "))
            && let Some((_, reason)) = rest.split_once(": ")
        {
            // The test has ended well, and without its case.
            let skipped = Count { skipped: 1, notes: vec![reason.to_owned()], ..Count::default() };
            let count = self.conformance.entry(module.clone()).or_default();
            count.add(&skipped);
            count.passed = count.passed.saturating_sub(1);
        }
    }

    fn take_sequences(&mut self, result: &str) {
        let parts: Vec<_> = result.split(" | ").collect();
        let [stream, checkpoints, _, run, passed, _, steps] = parts[..] else { return };
        let (Ok(run), Ok(passed)) = (run.parse(), passed.parse()) else { return };
        let count = Count { run, passed, skipped: 0, notes: vec![steps.to_owned()] };
        self.sequences.entry((stream.to_owned(), checkpoints.to_owned())).or_default().add(&count);
    }

    /// Whether anything of it was run.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The combinations that were not run, or did not pass.
    pub fn missing(&self) -> Vec<String> {
        let rows = combinations().map(|(stream, checkpoints)| {
            let key = (stream.1.to_owned(), checkpoints.1.to_owned());
            let passed =
                self.sequences.get(&key).is_some_and(|count| count.run > 0 && count.passed == count.run);
            (passed, format!("{} with {}", stream.0, checkpoints.0))
        });
        rows.filter(|(passed, _)| !passed).map(|(_, name)| name).collect()
    }

    /// The suites of both stores, or of the one that is both.
    fn conformance(&self, stream: &str, checkpoints: &str) -> Count {
        let mut sum = Count::default();
        let store = if checkpoints.is_empty() { stream } else { checkpoints };
        let both = BOTH.iter().filter(|_| checkpoints.is_empty());
        let of_checkpoints = ALONE.iter().chain(both).map(|suite| format!("{store}_{suite}"));
        for module in [format!("{stream}_stream")].into_iter().chain(of_checkpoints) {
            if let Some(count) = self.conformance.get(&module) {
                sum.add(count);
            }
        }
        sum
    }
}

/// All of them.
fn combinations() -> impl Iterator<
    Item = (
        &'static (&'static str, &'static str, &'static str),
        &'static (&'static str, &'static str, &'static str),
    ),
> {
    STREAMS.iter().flat_map(|stream| CHECKPOINTS.iter().map(move |checkpoints| (stream, checkpoints)))
}

/// The module of a conformance test: `redis_stream`.
fn module(name: &str) -> Option<String> {
    let rest = name.strip_prefix("conformance::")?;
    match rest.strip_prefix("tests::memory::") {
        Some(rest) => Some(format!("memory_{}", rest.split("::").next()?)),
        None => rest.split("::").next().map(Into::into),
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<9} {:<15} {:<12} {:>7} {:>7} {:>7}  notes",
            "stream", "checkpoint", "suite", "run", "passed", "skipped"
        )?;
        for (stream, checkpoints) in combinations() {
            let conformance = self.conformance(stream.2, checkpoints.2);
            let key = (stream.1.to_owned(), checkpoints.1.to_owned());
            let sequences = self.sequences.get(&key).cloned().unwrap_or_default();
            for (suite, count) in [("conformance", conformance), ("sequences", sequences)] {
                let Count { run, passed, skipped, notes } = count;
                let notes = if run == 0 { "not run".to_owned() } else { notes.join("; ") };
                writeln!(
                    f,
                    "{:<9} {:<15} {suite:<12} {run:>7} {passed:>7} {skipped:>7}  {notes}",
                    stream.0, checkpoints.0
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
test conformance::redis_stream::append::keeps_bytes ... ok
test conformance::redis_stream::inspect::g8_incarnation ... ok
test conformance::postgres_checkpoint::lease::held ... FAILED
---- conformance::redis_stream::inspect::g8_incarnation stdout ----
not applicable: inspect::g8_incarnation: the backend does not name the lives of a stream
matrix: redis_rs | postgres | sequences | 104 | 103 | 1 | 4700 steps";

    #[test]
    fn a_combination_has_the_suites_of_both_stores() {
        let mut matrix = Matrix::default();
        OUTPUT.lines().for_each(|line| matrix.take(line));
        let count = matrix.conformance("redis", "postgres");
        assert_eq!((count.run, count.passed, count.skipped), (3, 1, 1), "{count:?}");
        let table = matrix.to_string();
        let row = table.lines().find(|line| line.starts_with("redis-rs  postgres        sequences"));
        assert!(row.is_some_and(|row| row.contains("104     103       0  4700 steps")), "{table}");
        assert_eq!(matrix.missing().len(), 20);
        matrix.take("matrix: fred | the_same | sequences | 7 | 7 | 0 | 1 steps");
        assert!(!matrix.missing().contains(&"fred with the same".to_owned()), "{table}");
    }
}
