//! Tables and plots of what was measured.

use std::fs;

use crate::{Result, campaign::Row, cli::All, list::Group, measure::Run};

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

/// Rates with their spread, as ratios to the first row, and what they cost.
pub fn markdown(rows: &[Row]) -> String {
    let base = rows.first().map_or(1.0, |row| Spread::of(&row.runs, Run::rate).median);
    let mut text = String::from(
        "| | entries/s | min | max | of the first | client ns | server ns | peak RSS MB | other load |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for row in rows {
        if let (true, Some(failed)) = (row.runs.is_empty(), &row.failed) {
            text += &format!("| {} | failed: {failed} |\n", row.name);
            continue;
        }
        let rate = Spread::of(&row.runs, Run::rate);
        let middle = |value: fn(&Run) -> f64| Spread::of(&row.runs, value).median;
        text += &format!(
            "| {} | {} | {} | {} | {:.2} | {} | {} | {:.1} | {:.2} |\n",
            row.name,
            number(rate.median),
            number(rate.min),
            number(rate.max),
            rate.median / base,
            number(middle(Run::client_each)),
            number(middle(Run::server_each)),
            middle(|run| run.rss_kib as f64 / 1024.0),
            middle(|run| run.foreign_cores),
        );
    }
    text
}

/// Writes all tables into the folder, and into the page between its markers.
pub fn write(args: &All, report: &[(Group, Vec<Row>)]) -> Result {
    let mut text = String::new();
    for (group, rows) in report {
        text += &format!("## {}\n\n{}\n\n{}\n", group.name, group.about, markdown(rows));
    }
    fs::write(args.out.join("report.md"), text)?;
    Ok(())
}

/// By thousands, as people read it.
fn number(value: f64) -> String {
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
