//! The index of all traps and scenarios says the truth.

use std::{collections::BTreeSet, fs, path::Path};

use crate::tidy;

/// Those that there are: the missing numbers are about what this library does not do.
const TRAPS: &[u32] = &[
    1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 27, 28, 29, 30, 31,
    32, 33, 34, 35, 36, 37, 39,
];
const SCENARIOS: &[u32] = &[1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SCENARIOS.md")).unwrap()
}

/// The rows of the tables: number, and the names of the tests.
fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let cells = page.lines().filter(|line| line.starts_with("| T-") || line.starts_with("| S-"));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let names = cells[3].split('`').skip(1).step_by(2).map(Into::into).collect();
        (cells[1].to_owned(), names)
    };
    cells.map(row).collect()
}

#[test]
fn every_trap_and_scenario_has_a_row_and_a_test() {
    let rows = rows(&page());
    let numbers: BTreeSet<_> = rows.iter().map(|(number, _)| number.clone()).collect();
    assert_eq!(numbers.len(), rows.len(), "a number has one row");
    let traps = TRAPS.iter().map(|n| format!("T-{n}"));
    let expected: BTreeSet<_> = traps.chain(SCENARIOS.iter().map(|n| format!("S-{n}"))).collect();
    assert_eq!(numbers, expected);
    let without: Vec<_> = rows.iter().filter(|(_, names)| names.is_empty()).collect();
    assert!(without.is_empty(), "no test is named: {without:?}");
}

#[test]
fn every_test_that_the_index_names_exists() {
    let tests = tidy::tests();
    let mut named = rows(&page()).into_iter().flat_map(|(_, names)| names).collect::<BTreeSet<_>>();
    named.retain(|name| !name.starts_with("cargo "));
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "docs/SCENARIOS.md names tests that do not exist: {missing:?}");
}

/// Those of this folder are in the index under their own number.
#[test]
fn every_scenario_that_is_played_is_in_the_index() {
    let rows = rows(&page());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut played = 0;
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix("async fn ")) {
            let name = name.split('(').next().unwrap();
            let Some((number, _)) = name.split_once('_') else { continue };
            let Some(Ok(n)) = number.strip_prefix(['t', 's']).map(str::parse::<u32>) else { continue };
            let number = format!("{}-{n}", number[..1].to_uppercase());
            let row = rows.iter().find(|(row, _)| *row == number);
            let is_named = row.is_some_and(|(_, names)| names.iter().any(|named| named == name));
            assert!(is_named || name.ends_with("_process"), "`{name}` is not in the row of {number}");
            played += 1;
        }
    }
    assert!(played > 40, "looked in the wrong place: {played}");
}
