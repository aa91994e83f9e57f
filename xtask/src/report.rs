//! What `cargo test` said, in numbers.

use std::fmt;

use crate::matrix::Matrix;

/// The tests of several runs of test binaries, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// The lines in which a test says that it could not do all of its work.
    pub skipped: Vec<String>,
    /// What the suites said of each combination of stores.
    pub matrix: Matrix,
    quiet: bool,
}

impl Tally {
    /// Takes one line of output, and says whether a reader wants to see it.
    ///
    /// Tests run with `--show-output`, since a test that passes would say unheard that it skipped something. What passing
    /// tests print besides is left out, as always.
    pub fn take(&mut self, line: &str) -> bool {
        self.matrix.take(line);
        if line.trim_start().starts_with("skipped:") {
            self.skipped.push(line.trim().to_owned());
            return true;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.quiet = false;
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if line == "successes:" {
            self.quiet = true;
        } else if line == "failures:" {
            self.quiet = false;
        }
        !self.quiet
    }

    /// How many tests did not do all of their work.
    pub fn skips(&self) -> u64 {
        self.ignored + self.skipped.len() as u64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "total: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skips())
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

successes:
    a

failures:

---- b stdout ----
thread 'b' panicked

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.27s
test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.27s";

    #[test]
    fn runs_are_added_up_and_skips_are_kept() {
        let mut tally = Tally::default();
        let shown: Vec<_> = OUTPUT.lines().filter(|line| tally.take(line)).collect();
        assert_eq!(tally.to_string(), "total: 12 passed, 1 failed, 2 skipped");
        assert_eq!(tally.skipped, ["skipped: a: the server does not count"]);
        assert!(shown.contains(&"thread 'b' panicked"), "{shown:?}");
        assert!(shown.contains(&"skipped: a: the server does not count"), "{shown:?}");
        assert!(!shown.contains(&"chatter"), "{shown:?}");
    }
}
