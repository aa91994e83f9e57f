//! What happened in a run: a hash of all of it, and the last lines.

use std::{collections::VecDeque, fmt, time::Duration};

/// Lines that are kept for a failure.
const TAIL: usize = 60;

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    /// Prints each line as it comes.
    loud: bool,
}

impl Trace {
    pub fn new(loud: bool) -> Self {
        // FNV-1a: the same in every process and version.
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: 0, tail: VecDeque::new(), loud }
    }

    pub fn line(&mut self, now: Duration, text: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {text}", now.as_secs_f64() * 1000.0);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.lines += 1;
        if self.loud {
            println!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn tail(&self) -> String {
        self.tail.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}
