//! The rules of the house that no lint knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Files longer than this are hard to hold in the head.
const MAX_LINES: usize = 400;

/// Longer files, each with the length that it may not pass. A ratchet: the numbers only fall, and lines only leave.
const LONGER: &[(&str, usize)] = &[];

/// Words for what the project calls something else, and what that is.
const BANNED: &[(&str, &str)] = &[
    ("message", "entry or delivery"),
    ("item", "entry"),
    ("offset", "entry id or watermark"),
    ("queue", "stream"),
    ("channel", "stream"),
    ("worker", "consumer"),
    ("unacked", "pending"),
    ("steal", "claim"),
    ("finalize", "settle"),
    ("bookmark", "checkpoint"),
    ("generation", "epoch"),
    ("shard", "partition"),
];

/// Public names that hold a banned word in its other sense, each with its reason beside it.
const ALLOWED: &[&str] = &[
    // The name of a format.
    "MessagePack",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the repository, as paths from its root, with their text.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> =
        ["src", "backends", "tests", "xtask", "examples", "containers", "fuzz", "bench", "cli"]
            .map(|d| root().join(d))
            .into();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|e| e.unwrap().path()) {
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.contains_key("src/lib.rs"), "looked in the wrong place: {}", root().display());
    found
}

#[test]
fn files_are_short() {
    let longer: BTreeMap<_, _> = LONGER.iter().copied().collect();
    let mut wrong = Vec::new();
    let sources = sources();
    for (file, text) in &sources {
        let lines = text.lines().count();
        match longer.get(file.as_str()) {
            None if lines > MAX_LINES => {
                wrong.push(format!("{file}: {lines} lines, more than {MAX_LINES}: divide it"));
            }
            Some(limit) if lines > *limit => {
                wrong.push(format!("{file}: {lines} lines, and had {limit}: divide it"));
            }
            Some(_) if lines <= MAX_LINES => {
                wrong.push(format!("{file}: {lines} lines: take it off `LONGER`"))
            }
            Some(limit) if lines < *limit => wrong.push(format!("{file}: lower its limit to {lines}")),
            _ => {}
        }
    }
    let gone = longer.keys().filter(|file| !sources.contains_key(**file));
    wrong.extend(gone.map(|file| format!("{file}: gone: take it off `LONGER`")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn public_names_use_the_vocabulary() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if !file.starts_with("src/") && !file.starts_with("backends/") {
            continue;
        }
        for name in text.lines().filter_map(public_name).filter(|name| !ALLOWED.contains(name)) {
            for word in words(name) {
                if let Some((_, instead)) =
                    BANNED.iter().find(|(banned, _)| word.strip_suffix('s').unwrap_or(&word) == *banned)
                {
                    wrong.push(format!("{file}: `{name}`: not `{word}` but {instead}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The name that a line makes public, if it does: of a type, a function, a constant, a module or a field.
fn public_name(line: &str) -> Option<&str> {
    const BEFORE: &[&str] =
        &["async", "unsafe", "const", "fn", "struct", "enum", "trait", "type", "mod", "static", "extern"];
    let mut rest = line.trim_start().strip_prefix("pub ")?;
    if rest.starts_with("use ") {
        return None;
    }
    while let Some((first, tail)) = rest.split_once(' ')
        && BEFORE.contains(&first)
    {
        rest = tail;
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The words of a name, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = 'A';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// The names of all tests, and of all cases of the conformance suite.
pub fn tests() -> BTreeSet<String> {
    let sources = sources();
    let cases = sources["src/conformance/list.rs"].lines().map(|line| line.trim().to_owned());
    sources.values().flat_map(|text| functions(text)).chain(cases).collect()
}

/// Every test that the guarantees name, `g<number>_<what>`, exists.
#[test]
fn guarantees_name_tests_that_exist() {
    let Ok(text) = fs::read_to_string(root().join("docs/GUARANTEES.md")) else { return };
    let tests = tests();
    let named = guarantee_tests(&text);
    assert!(!named.is_empty(), "docs/GUARANTEES.md names no test");
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/GUARANTEES.md names tests that do not exist: {missing:?}");
}

/// The names of the form `g<number>_<what>` in a text.
fn guarantee_tests(text: &str) -> BTreeSet<String> {
    let identifiers = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    identifiers
        .filter(|word| {
            let number = word.strip_prefix('g').and_then(|w| w.split_once('_'));
            number.is_some_and(|(n, what)| !what.is_empty() && n.parse::<u32>().is_ok())
        })
        .map(Into::into)
        .collect()
}

/// The names of the functions that a text defines. Those that a macro defines count where it is told their names.
fn functions(text: &str) -> Vec<String> {
    let defined = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("fn ")?;
        Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?.to_owned())
    });
    let listed = text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(guarantee_tests);
    defined.chain(listed).collect()
}

#[test]
fn the_rules_see_what_they_should() {
    assert_eq!(public_name("    pub async fn read_items(&self)"), Some("read_items"));
    assert_eq!(public_name("pub struct MessageId<T> {"), Some("MessageId"));
    assert_eq!(public_name("    pub len: u64,"), Some("len"));
    assert_eq!(public_name("    pub(crate) fn queue()"), None);
    assert_eq!(words("MessageId"), ["message", "id"]);
    assert_eq!(words("read_items"), ["read", "items"]);
    let named = guarantee_tests("**G3** `resume::g3_never_back`, g10_order, big_g1_x and g_no");
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["g10_order", "g3_never_back"]);
    assert_eq!(functions("async fn g3_never_back() {"), ["g3_never_back"; 2]);
}
