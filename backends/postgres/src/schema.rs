//! The tables: their names, and how a database comes to have them.

use crate::{Settings, codec};

/// What leads to each version of the tables from the one before, under their default names.
const MIGRATIONS: [&str; 2] =
    [include_str!("../migrations/0001_checkpoint.sql"), include_str!("../migrations/0002_attempts.sql")];

/// Names as statements use them.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) checkpoint: String,
    pub(crate) settled: String,
    pub(crate) attempts: String,
    pub(crate) ddl: String,
}

impl Names {
    /// The names of settings that have been validated.
    pub(crate) fn new(settings: &Settings) -> Self {
        let schema = codec::identifier(&settings.schema);
        let qualified = |name: &str| format!("{schema}.{}", codec::identifier(name));
        let view = format!("{}_view", settings.checkpoint_table);
        let renamed = [
            ("\"highwater\".\"checkpoint_view\"", qualified(&view)),
            ("\"highwater\".\"checkpoint\"", qualified(&settings.checkpoint_table)),
            ("\"highwater\".\"settled\"", qualified(&settings.settled_table)),
            ("\"highwater\".\"attempts\"", qualified(&settings.attempts_table)),
            ("\"highwater\"", schema.clone()),
        ];
        Self {
            checkpoint: qualified(&settings.checkpoint_table),
            settled: qualified(&settings.settled_table),
            attempts: qualified(&settings.attempts_table),
            ddl: rename(&MIGRATIONS.join("\n"), &renamed),
        }
    }

    /// Tells whether the tables of this version are there. A role that may not look is told so by the first statement.
    pub(crate) fn exists(&self) -> String {
        let table = |name: &str| format!("to_regclass({})", codec::text(name));
        let [checkpoint, settled, attempts] =
            [&self.checkpoint, &self.settled, &self.attempts].map(|name| table(name));
        format!(
            "SELECT ({settled} IS NOT NULL AND {attempts} IS NOT NULL AND EXISTS (SELECT FROM pg_attribute \
             WHERE attrelid = {checkpoint} AND attname = 'reason' AND NOT attisdropped))::text"
        )
    }

    /// Creates the tables, and brings those of an earlier version up to date. `IF NOT EXISTS` alone fails where two do so at
    /// once.
    pub(crate) fn create(&self, limits: &str) -> String {
        // One lock for all names: schemas are shared, and it is held for milliseconds. A change of a table waits for those who
        // use it, and all others wait behind it: so it must not wait for long.
        format!("BEGIN; {limits}SELECT pg_advisory_xact_lock(4921093716500123718); {}; COMMIT", self.ddl)
    }
}

/// Replaces in one pass, so that no new name is replaced again.
fn rename(text: &str, renamed: &[(&str, String)]) -> String {
    let mut rest = text;
    let mut done = String::with_capacity(text.len());
    'next: while let Some(at) = rest.find('"') {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        for (from, to) in renamed {
            if let Some(after) = rest.strip_prefix(from) {
                done.push_str(to);
                rest = after;
                continue 'next;
            }
        }
        done.push('"');
        rest = &rest[1..];
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_migration_is_replaced_once() {
        let settings = Settings::default()
            .schema("\"highwater\"")
            .checkpoint_table("settled")
            .settled_table("attempts")
            .attempts_table("c");
        let names = Names::new(&settings);
        let ddl = names.create("");
        assert!(ddl.contains("TABLE IF NOT EXISTS \"\"\"highwater\"\"\".\"settled\" ("), "{ddl}");
        assert!(ddl.contains("TABLE IF NOT EXISTS \"\"\"highwater\"\"\".\"attempts\" ("), "{ddl}");
        assert!(ddl.contains("TABLE IF NOT EXISTS \"\"\"highwater\"\"\".\"c\" ("), "{ddl}");
        assert!(ddl.contains("CREATE SCHEMA IF NOT EXISTS \"\"\"highwater\"\"\";"), "{ddl}");
        assert!(ddl.contains("VIEW \"\"\"highwater\"\"\".\"settled_view\" AS"), "{ddl}");
        assert_eq!(Names::new(&Settings::default()).ddl, MIGRATIONS.join("\n"));
    }
}
