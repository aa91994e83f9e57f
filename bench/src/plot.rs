//! What was measured, as bars: the median, and a line from the least to the most.

use std::fmt::Write;

use crate::{
    campaign::{Measured, Row},
    table::{Spread, number, ratio},
};

const NAME_WIDTH: f64 = 340.0;
const BAR_WIDTH: f64 = 480.0;
const VALUE_WIDTH: f64 = 130.0;
const ROW: f64 = 20.0;
const TOP: f64 = 30.0;

/// A bar for each scenario, of what its group compares, and its ratio to the first.
pub fn svg(measured: &Measured) -> String {
    let rows: Vec<&Row> = measured.rows.iter().filter(|row| !row.runs.is_empty()).collect();
    let spreads: Vec<_> =
        rows.iter().map(|row| Spread::of(&row.runs, |run| measured.shows.of(run))).collect();
    let most = scale(&spreads);
    let (width, height) = (NAME_WIDTH + BAR_WIDTH + VALUE_WIDTH, TOP + ROW * rows.len() as f64 + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{}, {}</text>\n",
        measured.name,
        measured.shows.unit()
    );
    for (n, (row, spread)) in rows.iter().zip(&spreads).enumerate() {
        let (y, x) = (TOP + ROW * n as f64, |value: f64| NAME_WIDTH + (value / most).min(1.0) * BAR_WIDTH);
        let colour = if row.name.starts_with("ours") { "#2b6cb0" } else { "#a0aec0" };
        let (middle, text) = (y + ROW / 2.0, y + ROW / 2.0 + 4.0);
        let (left, right) = (x(spread.min), x(spread.max));
        let lines = [
            format!("<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>", NAME_WIDTH - 8.0, row.name),
            format!(
                "<rect x=\"{NAME_WIDTH}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                y + 3.0,
                x(spread.median) - NAME_WIDTH,
                ROW - 6.0
            ),
            format!("<path d=\"M{left:.1} {middle}H{right:.1}\" stroke=\"black\"/>"),
            format!(
                "<text x=\"{:.1}\" y=\"{text}\">{} ({})</text>",
                right + 6.0,
                number(spread.median),
                ratio(measured, row)
            ),
        ];
        for line in lines {
            // A string takes all that is written to it.
            let _ = writeln!(svg, "{line}");
        }
    }
    svg + "</svg>\n"
}

/// What the longest bar stands for. One that is far above all others is cut, or they could not be told apart.
fn scale(spreads: &[Spread]) -> f64 {
    let mut ends: Vec<_> = spreads.iter().map(|spread| spread.max).collect();
    ends.sort_by(|one, other| other.total_cmp(one));
    match ends[..] {
        [first, second, ..] => first.min(second * 1.5),
        [first] => first,
        [] => 1.0,
    }
    .max(f64::MIN_POSITIVE)
}
