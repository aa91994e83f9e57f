//! Runs all scenarios in turn, each in a process of its own, so that whatever else the machine does falls on all of them.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    Result,
    cli::All,
    env::Env,
    list::{self, Group, Scenario, Shows},
    measure::{Run, busy},
    stage::Stage,
    support::process::Guarded,
    table,
};

/// More than this of other processes makes a run noisy.
const FOREIGN_CORES_MAX: f64 = 0.25;
const TRIES_MAX: u32 = 3;
/// How long a run waits for the machine to be quiet.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(10);
const QUIET_STEP: Duration = Duration::from_millis(333);
/// A run that takes longer hangs.
const RUN_MAX: Duration = Duration::from_secs(180);

/// What the rounds of one scenario have shown.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    /// It is compared with the first row that has the same here.
    pub beside: String,
    pub runs: Vec<Run>,
    /// Why it has fewer runs than others.
    pub failed: Option<String>,
}

/// A group that was measured.
#[derive(Debug)]
pub struct Measured {
    pub name: &'static str,
    pub shows: Shows,
    pub rows: Vec<Row>,
}

/// A line of the file of all runs.
#[derive(Serialize)]
struct Line<'a> {
    group: &'a str,
    scenario: &'a str,
    round: u32,
    #[serde(flatten)]
    run: &'a Run,
}

/// Runs what was asked for, and writes tables and plots.
pub fn run(args: &All) -> Result {
    if !args.entries.is_multiple_of(10_000) {
        return Err("--entries must be a multiple of 10,000".into());
    }
    fs::create_dir_all(&args.out)?;
    let mut lines = File::create(args.out.join("runs.jsonl"))?;
    let mut stage = Stage::open(args)?;
    let mut report = Vec::new();
    let start = Instant::now();
    let groups = list::groups();
    let names: Vec<_> = groups.iter().map(|group| group.name).collect();
    for group in groups {
        let group = chosen(group, &names, &args.only, args.long);
        if group.scenarios.is_empty() {
            continue;
        }
        println!("\n== {}: {}", group.name, group.about);
        let rows = measure(&mut stage, &group, args, &mut lines)?;
        stage.drop_streams()?;
        let measured = Measured { name: group.name, shows: group.shows, rows };
        println!("\n{}", table::markdown(&measured));
        report.push(measured);
        // After each group, so that a run that is cut short has left something.
        table::write(args, &report, start.elapsed())?;
    }
    if let Some(page) = &args.page {
        table::rewrite(page, args, &report, start.elapsed())?;
    }
    println!(
        "{:.1} minutes; tables and plots are in {}",
        start.elapsed().as_secs_f64() / 60.0,
        args.out.display()
    );
    let rows = report.iter().flat_map(|measured| &measured.rows);
    let failed: Vec<_> = rows.filter(|row| row.failed.is_some()).map(|row| &*row.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join("; ")).into()) }
}

fn chosen(mut group: Group, groups: &[&str], only: &[String], long: bool) -> Group {
    group.scenarios.retain(|scenario| long || !scenario.shape.long);
    if !only.is_empty() && !only.iter().any(|name| name == group.name) {
        // The name of a group says which one, also where names of scenarios contain it.
        let parts: Vec<_> = only.iter().filter(|part| !groups.contains(&&***part)).collect();
        group.scenarios.retain(|scenario| parts.iter().any(|part| scenario.name.contains(&***part)));
    }
    group
}

fn measure(stage: &mut Stage, group: &Group, args: &All, lines: &mut File) -> Result<Vec<Row>> {
    let new = |scenario: &Scenario| {
        let (name, beside) = (scenario.name.clone(), scenario.beside.clone());
        Row { name, beside, runs: Vec::new(), failed: None }
    };
    let mut rows: Vec<_> = group.scenarios.iter().map(new).collect();
    for round in 1..=args.rounds {
        for (scenario, row) in group.scenarios.iter().zip(&mut rows) {
            if row.failed.is_some() {
                continue;
            }
            match once(stage, scenario, args) {
                Ok(run) => {
                    println!(
                        "{round} {:<50} {:>10.0} {} {:>6.0} {:>6.0} ns",
                        row.name,
                        group.shows.of(&run),
                        group.shows.unit(),
                        run.client_each(),
                        run.server_each()
                    );
                    let line = Line { group: group.name, scenario: &row.name, round, run: &run };
                    writeln!(lines, "{}", serde_json::to_string(&line)?)?;
                    row.runs.push(run);
                }
                Err(error) => {
                    println!("{round} {:<50} FAILED: {error}", row.name);
                    row.failed = Some(error.to_string());
                }
            }
        }
    }
    Ok(rows)
}

/// One run; again, if it was noisy and that was asked for. The least noisy one counts.
fn once(stage: &mut Stage, scenario: &Scenario, args: &All) -> Result<Run> {
    let mut best: Option<Run> = None;
    for _ in 0..if args.quiet { TRIES_MAX } else { 1 } {
        let env = stage.env(scenario.needs, scenario.shape, args)?;
        if args.quiet {
            wait_for_quiet()?;
        }
        let run = child(scenario, &env, &args.out);
        stage.tidy(&env)?;
        let run = run?;
        let is_quiet = run.foreign_cores <= FOREIGN_CORES_MAX;
        if best.as_ref().is_none_or(|best| run.foreign_cores < best.foreign_cores) {
            best = Some(run);
        }
        if is_quiet {
            break;
        }
    }
    Ok(best.ok_or("no run")?)
}

fn child(scenario: &Scenario, env: &Env, out: &Path) -> Result<Run> {
    let errors = out.join("stderr.txt");
    let mut command = Command::new("/proc/self/exe");
    command.args(["run", &scenario.name, &serde_json::to_string(env)?]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors)?);
    let mut child = Guarded::spawn(&mut command)?;
    let output = child.child().stdout.take().ok_or("no output")?;
    let reader = thread::spawn(move || std::io::read_to_string(output));
    let deadline = Instant::now() + RUN_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            return Err(format!("not done after {RUN_MAX:?}").into());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let output = reader.join().map_err(|_| "the reader panicked")??;
    if !status.success() {
        let errors = fs::read_to_string(errors)?;
        let last = errors.lines().last().unwrap_or("it said nothing");
        return Err(last.trim_start_matches("error: ").into());
    }
    Ok(serde_json::from_str(output.lines().last().ok_or("it printed nothing")?)?)
}

/// Waits until nobody else uses the machine for a third of a second, or for long enough.
fn wait_for_quiet() -> Result {
    let start = Instant::now();
    while start.elapsed() < QUIET_WAIT_MAX {
        let (before, step) = (busy()?, Instant::now());
        thread::sleep(QUIET_STEP);
        if (busy()? - before).as_secs_f64() / step.elapsed().as_secs_f64() < FOREIGN_CORES_MAX {
            return Ok(());
        }
    }
    Ok(())
}
