//! A consumer process that writes rows: what it says, and its end.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use tokio::sync::mpsc;

use super::transact::{ACQUIRED, LOST};
use crate::{Result, support::process::Guarded};

#[derive(Debug)]
pub struct Consumer {
    pub process: Guarded,
    lines: mpsc::UnboundedReceiver<String>,
    /// When it said last that it owns the subscription.
    pub owner: Option<Instant>,
    lost: u64,
}

impl Consumer {
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut process = Guarded::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().ok_or("no output")?;
        let (send, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(io::Result::ok);
            lines.for_each(|line| drop(send.send(line)));
        });
        Ok(Self { process, lines, owner: None, lost: 0 })
    }

    /// Takes note of what it has said.
    pub fn listen(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.hear(&line);
        }
    }

    /// Kills it. Returns how often it had lost what it owned.
    pub async fn kill(mut self) -> u64 {
        self.process.kill();
        self.drain().await
    }

    /// Stops it as a user would. Returns how often it had lost what it owned.
    pub async fn stop(mut self) -> Result<u64> {
        drop(self.process.child().stdin.take());
        let status = self.process.wait()?;
        if !status.success() {
            return Err(format!("a consumer failed: {status}").into());
        }
        Ok(self.drain().await)
    }

    async fn drain(&mut self) -> u64 {
        while let Some(line) = self.lines.recv().await {
            self.hear(&line);
        }
        self.lost
    }

    fn hear(&mut self, line: &str) {
        match line {
            ACQUIRED => self.owner = Some(Instant::now()),
            LOST => (self.owner, self.lost) = (None, self.lost + 1),
            other => println!("  a consumer                   {other}"),
        }
    }
}
