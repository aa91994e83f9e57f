//! How a database comes to have the tables, and what is said where it has not.

use std::time::Duration;

use highwater::{Epoch, ErrorKind, Outcome, Position, Retry, backend::*};
use highwater_postgres::{Postgres, Settings};
use sqlx::AssertSqlSafe;

use crate::{
    store::*,
    support::{Logs, eventually, fresh_postgres_url},
};

/// All there is to know about the tables of a schema.
const IMAGE: &str = "SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, \
     c.reloptions::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
     WHERE n.nspname = 'highwater' AND a.attnum > 0 ORDER BY 1, 3";
const CONSTRAINTS: &str = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE connamespace = 'highwater'::regnamespace ORDER BY 1";
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/0001_checkpoint.sql"),
    include_str!("../../migrations/0002_attempts.sql"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t39_twenty_start_at_once_on_an_empty_database() {
    let url = fresh_postgres_url().await;
    let start = |n: u64| {
        let url = url.clone();
        async move {
            // Each has a pool of its own, as each process would.
            let postgres =
                Postgres::from_pool_with(pool(&url, 2), Settings::default().connections(1)).unwrap();
            postgres.ensure_schema().await.unwrap();
            let request = Acquire::new(orders(), name(&format!("c{n}")), LONG);
            let acquired = postgres.acquire(&request).await.unwrap();
            let shared = highwater::Subscription::new("orders", "shared").unwrap();
            let advance = Advance::new(shared, Epoch(0), Position::at(id(100 + n)), name("me"));
            assert!(postgres.advance(&advance).await.unwrap().watermark >= id(100 + n));
            matches!(acquired, Acquired::Owned(_))
        }
    };
    let tasks: Vec<_> = (0..20).map(|n| tokio::spawn(start(n))).collect();
    let mut owners = 0;
    for task in tasks {
        owners += usize::from(task.await.unwrap());
    }
    assert_eq!(owners, 1);
    let postgres = Postgres::connect(&url).await.unwrap();
    let shared = highwater::Subscription::new("orders", "shared").unwrap();
    assert_eq!(postgres.load(&shared).await.unwrap().unwrap().position.watermark, id(119));
}

#[tokio::test]
async fn the_migration_gives_the_same_tables_as_ensure_schema() {
    let store = Store::new().await;
    store.postgres.ensure_schema().await.unwrap();
    let migrated = fresh_postgres_url().await;
    let by_hand = Store { url: migrated.clone(), pool: pool(&migrated, 8), ..Store::new().await };
    for _ in 0..2 {
        for migration in MIGRATIONS {
            sqlx::raw_sql(migration).execute(&by_hand.pool).await.unwrap();
        }
    }
    for image in [IMAGE, CONSTRAINTS] {
        let expected = store.sql(image).await;
        assert!(expected.contains("checkpoint"), "{expected}");
        assert_eq!(by_hand.sql(image).await, expected);
    }
    let text = Postgres::schema_sql(&Settings::default()).unwrap();
    assert_eq!(text, MIGRATIONS.join("\n"));
}

/// A database as the first version left it, to the letter.
async fn version_1() -> Store {
    let url = fresh_postgres_url().await;
    let store = Store {
        pool: pool(&url, 8),
        postgres: Postgres::connect(&url).await.unwrap(),
        url,
        orders: orders(),
    };
    sqlx::raw_sql(include_str!("version_1.sql")).execute(&store.pool).await.unwrap();
    let record = "INSERT INTO highwater.checkpoint (stream, grp, version, epoch, watermark, ahead, ahead_top, ahead_hole, owner) \
         VALUES ('orders', 'billing', 1, 3, decode('00000000000000070000000000000000', 'hex'), '', '', '', 'me')";
    store.sql(record).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_tables_of_an_earlier_version_are_told_and_upgraded_where_they_are() {
    let store = version_1().await;
    let tried = highwater::Attempts::new(id(8));
    let note = NoteAttempts::new(orders(), Epoch(3), vec![tried.clone()], vec![]);
    let errors = [
        store.postgres.load(&orders()).await.unwrap_err(),
        store.postgres.acquire(&Acquire::new(orders(), name("a"), LONG)).await.unwrap_err(),
        store.postgres.note_attempts(&note).await.unwrap_err(),
        store.postgres.reset(&ResetCheckpoint::pause(orders(), true)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Missing, "{error:?}");
        assert!(error.to_string().contains("earlier version: call `ensure_schema`"), "{error}");
    }
    // Consumers of the version before are at work, and it waits for the one that has the record.
    let mut before = store.pool.begin().await.unwrap();
    let advance =
        "UPDATE highwater.checkpoint SET watermark = decode('00000000000000080000000000000000', 'hex')";
    sqlx::raw_sql(advance).execute(&mut *before).await.unwrap();
    let upgrades: Vec<_> = (0..8)
        .map(|_| {
            let url = store.url.clone();
            tokio::spawn(async move { Postgres::connect(&url).await.unwrap().ensure_schema().await })
        })
        .collect();
    let waiting = "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database \
         WHERE d.datname = current_database() AND NOT l.granted AND l.mode = 'AccessExclusiveLock'";
    eventually("an upgrade waits", Duration::from_secs(10), async || store.sql(waiting).await == "t").await;
    before.commit().await.unwrap();
    for upgrade in upgrades {
        upgrade.await.unwrap().unwrap();
    }
    let loaded = store.postgres.load(&orders()).await.unwrap().unwrap();
    assert_eq!((loaded.position, loaded.epoch, loaded.paused), (Position::at(id(8)), Epoch(3), false));
    store.postgres.note_attempts(&note).await.unwrap();
    assert_eq!(store.postgres.attempts(&LoadAttempts::all(orders())).await.unwrap(), [tried]);
    let fresh = Store::new().await;
    for image in [IMAGE, CONSTRAINTS] {
        assert_eq!(store.sql(image).await, fresh.sql(image).await);
    }
}

#[tokio::test]
async fn an_upgrade_that_a_transaction_keeps_from_the_table_gives_way_to_others() {
    let store = version_1().await;
    let settings = Settings::default()
        .response_timeout(Duration::from_secs(2))
        .commit_timeout(Duration::from_millis(100));
    let postgres = Postgres::connect_with(&store.url, settings).await.unwrap();
    let mut keeper = store.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM highwater.checkpoint").execute(&mut *keeper).await.unwrap();
    let error = postgres.ensure_schema().await.unwrap_err();
    let what = (error.kind(), error.retry(), error.outcome());
    assert_eq!(what, (ErrorKind::Unavailable, Retry::Now, Outcome::NotApplied), "{error:?}");
    assert_eq!(store.sql("SELECT count(*) FROM highwater.checkpoint").await, "1", "nobody is held up");
    keeper.rollback().await.unwrap();
    postgres.ensure_schema().await.unwrap();
    assert_eq!(postgres.load(&orders()).await.unwrap().unwrap().epoch, Epoch(3));
}

#[tokio::test]
async fn names_may_be_chosen_and_are_quoted() {
    let settings = Settings::default()
        .schema("My \"own\" schema; DROP")
        .checkpoint_table("check'points")
        .settled_table("checkpoint")
        .attempts_table("settled");
    let store = Store::with(settings.clone()).await;
    store.handle(&store.each(0, [1, 2])).await.unwrap();
    assert!(store.postgres.advance(&store.advance(0, 1)).await.unwrap().moved);
    let tried = vec![highwater::Attempts::new(id(8))];
    store.postgres.note_attempts(&NoteAttempts::new(orders(), Epoch(0), tried, vec![])).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM \"My \"\"own\"\" schema; DROP\".settled").await, "1");
    assert_eq!(store.sql("SELECT count(*) FROM \"My \"\"own\"\" schema; DROP\".checkpoint").await, "1");
    assert_eq!(
        store
            .sql("SELECT watermark, settled FROM \"My \"\"own\"\" schema; DROP\".\"check'points_view\"")
            .await,
        "1-0|1"
    );
    assert_eq!(store.sql("SELECT to_regnamespace('highwater')::text").await, "");
}

#[tokio::test]
async fn g18_tables_that_are_not_there_are_missing() {
    let url = fresh_postgres_url().await;
    let postgres = Postgres::connect(&url).await.unwrap();
    let missing = |error: highwater::Error| {
        assert_eq!(error.kind(), ErrorKind::Missing, "{error:?}");
        assert!(error.to_string().contains("ensure_schema"), "{error}");
    };
    missing(postgres.load(&orders()).await.unwrap_err());
    missing(postgres.acquire(&Acquire::new(orders(), name("a"), LONG)).await.unwrap_err());
    missing(handle_nothing(&postgres).await.unwrap_err());
    postgres.ensure_schema().await.unwrap();
    assert_eq!(postgres.load(&orders()).await.unwrap(), None);
}

async fn handle_nothing(postgres: &Postgres) -> highwater::Result<Committed> {
    let tx = postgres.begin().await?;
    postgres.commit(tx, &each(&orders(), 0, [1])).await
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_the_tables_is_enough() {
    let store = Store::new().await;
    let role = crate::support::unique("teller").replace('-', "_");
    let database = store.options().get_database().unwrap().to_owned();
    store
        .sql(&format!(
            "CREATE ROLE {role} LOGIN; REVOKE ALL ON DATABASE \"{database}\" FROM PUBLIC; \
             GRANT CONNECT ON DATABASE \"{database}\" TO {role}; GRANT USAGE ON SCHEMA highwater TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON highwater.checkpoint, highwater.settled, \
             highwater.attempts TO {role}; \
             GRANT INSERT ON effects TO {role}"
        ))
        .await;
    let url = format!("postgres://{role}@{}/{database}", store.addr());
    let postgres = Postgres::connect(&url).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    handle(&postgres, &each(&orders(), 0, [1, 2])).await.unwrap();
    assert!(postgres.advance(&store.advance(0, 2)).await.unwrap().moved);
    let acquired = postgres.acquire(&Acquire::new(orders(), name("a"), LONG)).await.unwrap();
    assert_eq!(acquired, Acquired::Owned(Grant::new(Epoch(1), Some(Position::at(id(2))))));
    postgres.renew(&Renew::new(orders(), Epoch(1), LONG)).await.unwrap();
    handle(&postgres, &store.up_to(Epoch(1), 3, 4)).await.unwrap();
    postgres.release(&Release::new(orders(), Epoch(1))).await.unwrap();
    let tried = vec![highwater::Attempts::new(id(8))];
    postgres.note_attempts(&NoteAttempts::new(orders(), Epoch(1), tried, vec![id(9)])).await.unwrap();
    assert_eq!(postgres.attempts(&LoadAttempts::all(orders())).await.unwrap().len(), 1);
    postgres.reset(&ResetCheckpoint::pause(orders(), true)).await.unwrap();
    postgres.reset(&ResetCheckpoint::new(orders(), Position::default())).await.unwrap();
    assert_eq!(postgres.list(&orders().stream).await.unwrap().len(), 1);
    assert_eq!(store.effects().await, "1 2 3 4");
    store.sql(&format!("REVOKE DELETE, UPDATE ON highwater.checkpoint FROM {role}")).await;
    assert_eq!(kind(postgres.advance(&store.advance(3, 3)).await), ErrorKind::Denied);
    store.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn g18_a_url_that_leads_nowhere_is_told_and_a_password_is_never_shown() {
    let logs = Logs::capture();
    let store = Store::new().await;
    let addr = store.addr();
    for (url, kind) in [
        ("".to_owned(), ErrorKind::Invalid),
        ("hunter2".to_owned(), ErrorKind::Invalid),
        (format!("redis://me:hunter2@{addr}/db"), ErrorKind::Invalid),
        (format!("postgres://me:hunter2@{addr}:x/db"), ErrorKind::Invalid),
        (format!("postgres://postgres:hunter2@{addr}/hunterless"), ErrorKind::Invalid),
        (format!("postgres://nobody:hunter2@{addr}/postgres"), ErrorKind::Denied),
        ("postgres://me:hunter2@127.0.0.1:1/db".to_owned(), ErrorKind::Unavailable),
    ] {
        let settings = Settings::default().response_timeout(Duration::from_secs(3));
        let error = Postgres::connect_with(&url, settings).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let options = store.options();
    let url = format!("postgres://postgres:hunter2@{addr}/{}", options.get_database().unwrap());
    let postgres = Postgres::connect(&url).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    postgres.advance(&store.advance(0, 1)).await.unwrap();
    assert!(!format!("{postgres:?}{:?}", postgres.begin().await.unwrap()).contains("hunter2"));
    logs.assert_without("hunter2");
}

#[tokio::test]
async fn g18_a_pool_that_is_too_small_is_refused() {
    let url = fresh_postgres_url().await;
    assert_eq!(kind(Postgres::from_pool(pool(&url, 2))), ErrorKind::Invalid);
    let bad = Settings::default().schema("");
    assert_eq!(kind(Postgres::from_pool_with(pool(&url, 9), bad)), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_users_pool_can_be_closed_and_its_connections_come_back() {
    let store = Store::new().await;
    store.postgres.advance(&store.advance(0, 1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), store.pool.close()).await.expect("nothing holds it up");
    assert_eq!(kind(store.postgres.load(&store.orders).await), ErrorKind::Closed);
    assert_eq!(kind(store.postgres.begin().await), ErrorKind::Closed);

    let store = Store::new().await;
    store.postgres.advance(&store.advance(0, 1)).await.unwrap();
    store.postgres.close().await;
    assert_eq!(kind(store.postgres.load(&store.orders).await), ErrorKind::Closed);
    let alive = sqlx::query_scalar::<_, i32>(AssertSqlSafe("SELECT 1")).fetch_one(&store.pool).await;
    assert_eq!(alive.unwrap(), 1, "the pool is the user's");
}
