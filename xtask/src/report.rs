//! What `cargo test` said, in numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use crate::matrix::Matrix;

/// The tests of several runs of test binaries, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What `cargo test` calls passed.
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// The lines in which tests say that they could not do all of their work, and how many said so.
    skipped: BTreeMap<String, u64>,
    /// How many of those that passed said so.
    hollow: u64,
    /// What the suites said of each combination of stores.
    pub matrix: Matrix,
    /// What each test that failed has to say.
    failures: Vec<VecDeque<String>>,
    part: Part,
}

/// Which part of the output of one test binary a line belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Run,
    Successes,
    Failures,
}

/// How much of what a test says is shown again: its end, which tells why it failed.
const FAILURE_LINES: usize = 60;

impl Tally {
    /// Takes one line of output, and says whether a reader wants to see it.
    ///
    /// Tests run with `--show-output`, since a test that passes would say unheard that it skipped something. What passing
    /// tests print besides is left out, as always.
    pub fn take(&mut self, line: &str) -> bool {
        self.matrix.take(line);
        if line.trim_start().starts_with("skipped:") {
            self.hollow += 1;
            return self.skip(line.trim()) == 1;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.part = Part::Run;
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if line == "successes:" {
            self.part = Part::Successes;
        } else if line == "failures:" {
            self.part = Part::Failures;
        } else if self.part == Part::Failures {
            self.failure(line);
        }
        self.part != Part::Successes
    }

    fn failure(&mut self, line: &str) {
        // Behind all that they say, their names are listed.
        if line.starts_with("---- ") {
            self.failures.push(VecDeque::new());
        }
        if let Some(said) = self.failures.last_mut() {
            // The first line names the test.
            if said.len() == FAILURE_LINES {
                said.remove(1);
            }
            said.push_back(line.to_owned());
        }
    }

    /// What the tests that failed said, once more: in the output of all tests it is far up.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.failures.iter().flatten().map(String::as_str)
    }

    /// Notes what was not tested, and says how often that was said.
    pub fn skip(&mut self, line: &str) -> u64 {
        let times = self.skipped.entry(line.to_owned()).or_default();
        *times += 1;
        *times
    }

    /// What was not tested, and in how many tests.
    pub fn skipped(&self) -> impl Iterator<Item = String> {
        self.skipped.iter().map(|(line, times)| match times {
            1 => line.clone(),
            _ => format!("{line} ({times} tests)"),
        })
    }

    /// How many tests did not do all of their work.
    pub fn skips(&self) -> u64 {
        self.ignored + self.skipped.values().sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.saturating_sub(self.hollow);
        write!(f, "total: {passed} passed, {} failed, {} skipped", self.failed, self.skips())
    }
}

/// The number before a word: 12 in `ok. 12 passed; 0 failed`.
fn count(result: &str, word: &str) -> u64 {
    let words: Vec<_> = result.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
    words.windows(2).find(|w| w[1] == word).and_then(|w| w[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok

successes:

---- a stdout ----
chatter
skipped: a: the server does not count

---- c stdout ----
skipped: a: the server does not count

successes:
    a
    c

failures:

---- b stdout ----
thread 'b' panicked

failures:
    b

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.27s
test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.27s";

    #[test]
    fn runs_are_added_up_and_skips_are_kept() {
        let mut tally = Tally::default();
        let shown: Vec<_> = OUTPUT.lines().filter(|line| tally.take(line)).collect();
        assert_eq!(tally.to_string(), "total: 10 passed, 1 failed, 3 skipped");
        let skipped: Vec<_> = tally.skipped().collect();
        assert_eq!(skipped, ["skipped: a: the server does not count (2 tests)"]);
        tally.skip("skipped: example b: no daemon");
        assert_eq!(tally.to_string(), "total: 10 passed, 1 failed, 4 skipped");
        assert!(shown.contains(&"thread 'b' panicked"), "{shown:?}");
        let said = shown.iter().filter(|line| line.starts_with("skipped:")).count();
        assert_eq!(said, 1, "{shown:?}");
        assert!(!shown.contains(&"chatter"), "{shown:?}");
        let failures: Vec<_> = tally.failures().filter(|line| !line.is_empty()).collect();
        assert_eq!(failures, ["---- b stdout ----", "thread 'b' panicked", "    b"]);
    }

    #[test]
    fn of_a_test_that_says_much_its_name_and_the_end_are_kept() {
        let mut tally = Tally::default();
        let said = (0..1_000).map(|line| line.to_string());
        let lines = ["failures:".to_owned(), "---- a stdout ----".to_owned()].into_iter().chain(said);
        lines.for_each(|line| assert!(tally.take(&line)));
        let failures: Vec<_> = tally.failures().collect();
        assert_eq!(failures.len(), FAILURE_LINES);
        assert_eq!((failures[0], failures[1]), ("---- a stdout ----", "941"));
        assert_eq!(failures.last(), Some(&"999"));
    }
}
