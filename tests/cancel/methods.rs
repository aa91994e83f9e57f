//! That no public async method is without a case.

use std::{collections::BTreeSet, fs, path::Path};

use highwater::layer::Operation;

use super::{checkpoints, letters, streams};

/// The public async functions besides the methods of backends, each with the file whose tests drop it.
const OTHERS: &[(&str, &str)] = &[
    ("append", "consumers"),
    ("append_json", "consumers"),
    ("append_many", "consumers"),
    // As `append_json`, which is this with a codec.
    ("append_typed", "consumers"),
    ("close", "consumers"),
    ("confirm", "clients"),
    ("conn", "transactions"),
    ("connect", "clients"),
    // What `connect` is, with settings.
    ("connect_with", "clients"),
    ("ensure_schema", "clients"),
    ("flush", "consumers"),
    ("open", "clients"),
    ("open_with", "clients"),
    ("run", "consumers"),
    ("run_batches", "consumers"),
    ("run_transactional", "transactions"),
    ("run_transactional_batches", "transactions"),
    ("settle_in", "clients"),
    // A wait and nothing else.
    ("sleep", "mod"),
    ("sleep_together", "mod"),
    ("sleep_until", "mod"),
    ("stop", "consumers"),
    // A wait and nothing else, too.
    ("thawed", "mod"),
];

#[test]
fn g14_each_operation_of_a_backend_has_a_case() {
    let mut cases: BTreeSet<_> =
        [streams::OPERATIONS, checkpoints::OPERATIONS, letters::OPERATIONS].concat().into_iter().collect();
    // In one step over both stores, and in transactions.
    cases.extend([Operation::Settle, Operation::Begin, Operation::Settled, Operation::Commit]);
    let all: BTreeSet<_> = Operation::ALL.iter().copied().collect();
    assert_eq!(cases, all);
}

#[test]
fn g14_each_public_async_function_has_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["src", "backends/redis/src", "backends/postgres/src", "backends/sqlite/src"] {
        functions(&root.join(folder), &mut found);
    }
    let others = OTHERS.iter().map(|(name, _)| *name);
    let listed: BTreeSet<_> = others.chain(letters::OPERATOR.iter().copied()).map(str::to_owned).collect();
    assert_eq!(found, listed, "write a case that drops it at every await");
    for (_, file) in OTHERS {
        assert!(root.join(format!("tests/cancel/{file}.rs")).exists(), "{file}");
    }
}

/// The names of the public async functions in the files below this folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The suite and the tests are for nobody to drop.
        if path.is_dir() && !path.ends_with("conformance") {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let is_async = |head: &&str| head.contains("-> impl Future");
            let heads =
                text.split("pub fn ").skip(1).filter_map(|rest| rest.split('{').next()).filter(is_async);
            let names = text.split("pub async fn ").skip(1).chain(heads);
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            found.extend(names.filter_map(|rest| rest.split(end).next()).map(str::to_owned));
        }
    }
}
