//! What was measured, as tables.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use crate::{
    Result,
    campaign::{Measured, Row},
    cli::All,
    measure::Run,
    plot, verdict,
};

/// The folder of the plots beside the page.
const PLOTS: &str = "plots";

/// What the rounds of a scenario have of one value.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(runs: &[Run], value: impl Fn(&Run) -> f64) -> Self {
        let mut values: Vec<_> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let median = match values.len() {
            0 => 0.0,
            n if n % 2 == 1 => values[n / 2],
            n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or_default();
        Self { median, min: end(values.first()), max: end(values.last()) }
    }
}

/// Writes all tables and plots into the folder.
pub fn write(args: &All, report: &[Measured], took: Duration) -> Result {
    let parts = parts(args, report, took);
    let text: String = parts.iter().map(|(name, text)| format!("## {name}\n\n{text}\n")).collect();
    fs::write(args.out.join("report.md"), text)?;
    plots(&args.out, report)
}

/// Puts the tables into the page, between its markers, and the plots beside it.
pub fn rewrite(page: &Path, args: &All, report: &[Measured], took: Duration) -> Result {
    let mut text = fs::read_to_string(page)?;
    for (name, mut part) in parts(args, report, took) {
        if report.iter().any(|measured| measured.name == name) {
            part += &format!("\n![{name}, as a plot]({PLOTS}/{name}.svg)\n");
        } else if !args.only.is_empty() {
            // What is said of all groups is not to be said of some.
            continue;
        }
        text = between(&text, &name, &part)?;
    }
    fs::write(page, text)?;
    let folder = page.with_file_name(PLOTS);
    fs::create_dir_all(&folder)?;
    plots(&folder, report)
}

fn parts(args: &All, report: &[Measured], took: Duration) -> Vec<(String, String)> {
    let mut parts =
        vec![("machine".to_owned(), machine(args, took)), ("verdict".to_owned(), verdict::markdown(report))];
    parts.extend(report.iter().map(|measured| (measured.name.to_owned(), markdown(measured))));
    parts
}

fn plots(folder: &Path, report: &[Measured]) -> Result {
    for measured in report {
        fs::write(folder.join(format!("{}.svg", measured.name)), plot::svg(measured))?;
    }
    Ok(())
}

/// Puts a part of a page in the place of what was there.
fn between(page: &str, name: &str, part: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), "<!-- end -->");
    let Some((before, rest)) = page.split_once(&begin) else { return Ok(page.to_owned()) };
    let (_, after) = rest.split_once(end).ok_or_else(|| format!("the page has no end of `{name}`"))?;
    Ok(format!("{before}{begin}{part}{end}{after}"))
}

/// What the group compares, with its spread and its ratio to the first, and what it cost.
pub fn markdown(measured: &Measured) -> String {
    let rows = &measured.rows;
    let mut more: BTreeSet<_> =
        rows.iter().flat_map(|row| &row.runs).flat_map(|run| run.more.keys()).map(|name| &**name).collect();
    let unit = measured.shows.unit();
    more.remove(unit);
    let mut text =
        format!("| | {unit} | min | max | ratio | client ns | server ns | peak RSS MB | other load |");
    more.iter().for_each(|name| text += &format!(" {name} |"));
    text += &format!("\n| --- |{}\n", " --: |".repeat(8 + more.len()));
    for row in rows {
        text += &line(measured, row, &more);
    }
    text
}

fn line(measured: &Measured, row: &Row, more: &BTreeSet<&str>) -> String {
    if let (true, Some(failed)) = (row.runs.is_empty(), &row.failed) {
        return format!("| {} | failed: {failed} |{}\n", row.name, " |".repeat(7 + more.len()));
    }
    let shown = Spread::of(&row.runs, |run| measured.shows.of(run));
    let middle = |value: fn(&Run) -> f64| Spread::of(&row.runs, value).median;
    let mut text = format!(
        "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.2} |",
        row.name,
        number(shown.median),
        number(shown.min),
        number(shown.max),
        ratio(measured, row),
        number(middle(Run::client_each)),
        number(middle(Run::server_each)),
        middle(Run::rss_mb),
        middle(|run| run.foreign_cores),
    );
    for name in more {
        let has = row.runs.iter().any(|run| run.more.contains_key(*name));
        let value = Spread::of(&row.runs, |run| run.more.get(*name).copied().unwrap_or_default()).median;
        text += &if has { format!(" {} |", number(value)) } else { " |".to_owned() };
    }
    text + "\n"
}

/// To the first row that it is compared with.
pub fn ratio(measured: &Measured, row: &Row) -> String {
    let first = measured.rows.iter().find(|other| other.beside == row.beside).unwrap_or(row);
    if first.runs.is_empty() {
        return String::new();
    }
    let median = |row: &Row| Spread::of(&row.runs, |run| measured.shows.of(run)).median;
    let ratio = median(row) / median(first);
    // A design of a hundredth is not one of nothing.
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

/// By thousands, as people read it.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where and how it was measured.
fn machine(args: &All, took: Duration) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores of {}, Linux {}; {}; {}. {} entries, {} rounds of {} seconds where the rate is given{}: {:.0} minutes.\n",
        value("model name").unwrap_or_default(),
        kernel.trim(),
        version(&args.redis_server),
        version(&args.postgres_bin.join("postgres")),
        number(args.entries as f64),
        args.rounds,
        args.seconds,
        if args.quiet { ", noisy runs repeated" } else { "" },
        took.as_secs_f64() / 60.0,
    )
}

fn version(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split(" sha=").next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Shows;

    #[test]
    fn only_what_is_between_its_markers_changes() {
        let page = "a\n<!-- bench x -->\nold\n<!-- end -->\nb\n<!-- bench y -->\nkept\n<!-- end -->\n";
        let changed = between(page, "x", "new\n").unwrap();
        assert_eq!(changed, page.replace("old", "new"));
        assert_eq!(between(page, "z", "new").unwrap(), page);
        assert!(between("<!-- bench x -->\nold", "x", "new").is_err());
    }

    #[test]
    fn a_row_is_compared_with_the_first_of_its_kind() {
        let row = |name: &str, beside: &str, wall_ns| {
            let run = Run { entries: 1_000, wall_ns, ..Run::default() };
            Row { name: name.to_owned(), beside: beside.to_owned(), runs: vec![run], failed: None }
        };
        let rows = vec![
            row("a/1", "1", 1_000),
            row("a/2", "2", 500),
            row("b/1", "1", 4_000),
            row("b/2", "2", 50_000),
        ];
        let measured = Measured { name: "x", shows: Shows::Rate, rows };
        let ratios = measured.rows.iter().map(|row| ratio(&measured, row));
        assert_eq!(ratios.collect::<Vec<_>>(), ["1.00", "1.00", "0.25", "0.010"]);
        assert!(markdown(&measured).contains("| b/2 | 20,000,000 | 20,000,000 | 20,000,000 | 0.010 |"));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let runs = |walls: &[u64]| {
            walls.iter().map(|wall| Run { wall_ns: *wall, ..Run::default() }).collect::<Vec<_>>()
        };
        let median = |walls| Spread::of(&runs(walls), |run| run.wall_ns as f64).median;
        assert_eq!(median(&[3, 1, 2]).to_string(), "2");
        assert_eq!(median(&[4, 1, 2, 3]).to_string(), "2.5");
        assert_eq!(number(1_234_567.4), "1,234,567");
    }
}
