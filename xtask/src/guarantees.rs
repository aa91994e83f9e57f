//! `cargo xtask guarantees N`: runs what `docs/GUARANTEES.md` names as the proof of a guarantee.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{Result, cli, root, support::process::Guarded, test};

const PAGE: &str = "docs/GUARANTEES.md";

/// Runs the tests of one guarantee, and then the tasks that its table names.
pub fn run(args: &cli::Guarantees) -> Result {
    let page = fs::read_to_string(root().join(PAGE))?;
    let Some(proof) = Proof::of(&page, args.number) else {
        return Err(format!("there is no G{} in {PAGE}", args.number).into());
    };
    let sources = sources(root())?;
    let unknown: Vec<_> = proof.tests.iter().filter(|test| !sources.contains(test.as_str())).collect();
    if !unknown.is_empty() {
        return Err(format!("{PAGE} names tests that are not there: {unknown:?}").into());
    }
    println!(
        "G{}: {} tests are named, and all others whose names begin with g{0}_",
        args.number,
        proof.tests.len()
    );
    let mut tests: Vec<String> =
        ["--workspace", "--all-features", "--no-fail-fast", "--"].map(str::to_owned).into();
    tests.push(format!("::g{}_", args.number));
    tests.extend(proof.tests);
    test::run(&cli::Test { args: tests })?;
    for task in proof.tasks {
        println!("\n== cargo xtask {task}");
        let mut command = std::process::Command::new(crate::this_program()?);
        command.current_dir(root()).args(task.split_whitespace());
        if !Guarded::spawn(&mut command)?.wait()?.success() {
            return Err(format!("`cargo xtask {task}` failed").into());
        }
    }
    Ok(())
}

/// What a section names in backquotes.
#[derive(Debug, Default, PartialEq)]
struct Proof {
    tests: BTreeSet<String>,
    tasks: Vec<String>,
}

impl Proof {
    fn of(page: &str, number: u32) -> Option<Self> {
        let begin = format!("## G{number} ");
        let section = page.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
        let rows: Vec<_> = section
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| line.starts_with('|'))
            .collect();
        if rows.is_empty() {
            return None;
        }
        let mut proof = Self::default();
        for quoted in rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
            if let Some(task) = quoted.strip_prefix("cargo xtask ") {
                proof.tasks.push(task.to_owned());
            } else if is_test(quoted) {
                proof.tests.insert(quoted.to_owned());
            }
        }
        Some(proof)
    }
}

/// Names of settings and types have fewer underscores.
fn is_test(name: &str) -> bool {
    name.matches('_').count() >= 2
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// All words of all sources.
fn sources(folder: &Path) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            words.append(&mut sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let split = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.extend(split.filter(|word| is_test(word)).map(str::to_owned));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_a_guarantee_is_read_from_its_table() {
        let page = "## G1 · One\n\n`not_in_a_table`\n\n| `g1_a_test`, `another_long_one` | `Settings` |\n\
                    | `cargo xtask crash --rounds 4` | `on_gap` |\n\n## G10 · Ten\n\n| `g10_of_another_one` | |\n";
        let proof = Proof::of(page, 1).unwrap();
        assert_eq!(proof.tests.iter().collect::<Vec<_>>(), ["another_long_one", "g1_a_test"]);
        assert_eq!(proof.tasks, ["crash --rounds 4"]);
        assert_eq!(Proof::of(page, 2), None);
    }

    #[test]
    fn every_guarantee_names_proofs_that_exist() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let sources = sources(root()).unwrap();
        for number in 1..=18 {
            let proof = Proof::of(&page, number).unwrap_or_else(|| panic!("G{number} has no proof"));
            let unknown: Vec<_> = proof.tests.iter().filter(|test| !sources.contains(*test)).collect();
            assert_eq!(unknown, Vec::<&String>::new(), "G{number}");
        }
    }
}
