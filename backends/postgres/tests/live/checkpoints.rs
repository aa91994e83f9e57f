//! The record: every part of it, the rule of an advance, and what cannot be read.

use highwater::{EntryId, Epoch, ErrorKind, Incarnation, Position, SettledAhead, Subscription, backend::*};
use highwater_postgres::{Postgres, Settings};
use sqlx::Row;

use crate::store::*;

#[tokio::test]
async fn every_part_of_a_checkpoint_survives_and_is_shown_readably() {
    let store = Store::new().await;
    assert_eq!(store.position().await, None);
    let position = Position::at(EntryId::new(u64::MAX - 1, u64::MAX))
        .with_ahead(SettledAhead::new(EntryId::MAX, [EntryId::new(u64::MAX, 3)]))
        .with_ordinal(Some(u64::MAX))
        .with_incarnation(Some(Incarnation::new("life'\\").unwrap()));
    let of = Subscription::new("o'rder\\s \"ä\"; --", "b").unwrap();
    let request = Advance::new(of.clone(), Epoch(0), position.clone(), name("me'\\"));
    assert_eq!(store.postgres.advance(&request).await.unwrap(), Advanced::new(true, position.watermark));
    assert_eq!(store.postgres.advance(&request).await.unwrap(), Advanced::new(false, position.watermark));
    let loaded = store.another().await.load(&of).await.unwrap().unwrap();
    assert_eq!((loaded.position, loaded.epoch, loaded.owner), (position, Epoch(0), Some(name("me'\\"))));
    assert!(loaded.updated_at.as_millis() > 1_700_000_000_000);
    let shown = store.sql("SELECT stream, grp, watermark, owner FROM highwater.checkpoint_view").await;
    assert_eq!(shown, "o'rder\\s \"ä\"; --|b|18446744073709551614-18446744073709551615|me'\\");
}

#[tokio::test]
async fn g3_ids_have_the_order_of_their_numbers_up_to_the_last_u64() {
    let store = Store::new().await;
    let edges = [0, 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX];
    for ms in edges {
        for seq in edges {
            let position = Position::at(EntryId::new(ms, seq));
            let request = Advance::new(store.orders.clone(), Epoch(0), position.clone(), name("me"));
            assert!(store.postgres.advance(&request).await.unwrap().moved, "{ms}-{seq}");
            assert_eq!(store.position().await, Some(position));
            let shown = store.sql("SELECT watermark FROM highwater.checkpoint_view").await;
            assert_eq!(shown, format!("{ms}-{seq}"));
        }
    }
}

fn any_position(random: &mut fastrand::Rng) -> Position {
    let mut position = Position::at(id(random.u64(0..12)));
    if random.bool() {
        let first = position.watermark.ms + 1;
        let holes: Vec<_> = (first..20).filter(|_| random.u8(0..4) == 0).map(id).collect();
        position = position.with_ahead(SettledAhead::new(id(random.u64(first..22)), holes));
    }
    if random.bool() {
        position = position.with_ordinal(Some(random.u64(0..3)));
    }
    if random.u8(0..8) == 0 {
        position = position.with_incarnation(Some(Incarnation::new(["a", "b"][random.usize(0..2)]).unwrap()));
    }
    position
}

/// The statement decides as the core does: the two are held against each other over random advances.
#[tokio::test]
async fn g3_an_advance_follows_the_rule_of_every_store() {
    let store = Store::new().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        let of = Subscription::new("s", format!("g{round}")).unwrap();
        let mut stored: Option<Position> = None;
        for _ in 0..12 {
            let given = any_position(&mut random);
            let request = Advance::new(of.clone(), Epoch(0), given.clone(), name("me"));
            let advanced = store.postgres.advance(&request).await.unwrap();
            let merged = match &stored {
                Some(stored) => given.merged_into(stored),
                None => Some(given.clone()),
            };
            // A hole below the watermark may stand in the text: writing without it changes nothing that can be seen.
            assert!(advanced.moved || merged.is_none(), "{given:?} into {stored:?}");
            stored = merged.or(stored);
            let expected = stored.clone().unwrap();
            assert_eq!(advanced.watermark, expected.watermark, "{given:?}");
            let loaded = store.postgres.load(&of).await.unwrap().unwrap().position;
            assert_eq!(loaded, expected, "{given:?}");
            let again = store.postgres.advance(&request).await.unwrap();
            assert_eq!(again, Advanced::new(false, expected.watermark), "again: {given:?}");
        }
    }
}

#[tokio::test]
async fn g18_a_record_that_cannot_be_read_is_left_as_it_is() {
    let garbage = [
        ("version = 2", "upgrade"),
        ("version = -1", "version"),
        ("ahead = '5-0 3-0 >9-0'", "settled-ahead"),
        ("ahead = '5-0 >8-0'", "disagree"),
        ("owner = E'\\n'", "name"),
        ("incarnation = 'a b'", "name"),
        ("reason = E'\\n'", "not valid"),
    ];
    let store = Store::new().await;
    let orders = || store.orders.clone();
    let ahead = Position::at(id(4)).with_ahead(SettledAhead::new(id(9), [id(5)]));
    let ahead = Advance::new(orders(), Epoch(0), ahead, name("me"));
    for (damage, says) in garbage {
        store.sql("DELETE FROM highwater.checkpoint").await;
        store.postgres.advance(&ahead).await.unwrap();
        store.sql(&format!("UPDATE highwater.checkpoint SET {damage}")).await;
        let error = store.postgres.load(&store.orders).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
        assert!(error.to_string().contains(says), "{damage}: {error}");
        assert_eq!(kind(store.postgres.list(&store.orders.stream).await), ErrorKind::Corrupt);
        if damage.starts_with("version") {
            let before = store.sql("SELECT * FROM highwater.checkpoint").await;
            let kinds = [
                kind(store.postgres.advance(&store.advance(0, 6)).await),
                kind(store.postgres.acquire(&Acquire::new(orders(), name("a"), LONG)).await),
                kind(store.postgres.renew(&Renew::new(orders(), Epoch(0), LONG)).await),
                kind(store.postgres.release(&Release::new(orders(), Epoch(0))).await),
                kind(store.postgres.reset(&ResetCheckpoint::new(orders(), Position::default())).await),
                kind(
                    store
                        .postgres
                        .note_attempts(&NoteAttempts::new(orders(), Epoch(0), vec![], vec![]))
                        .await,
                ),
                kind(store.handle(&store.each(0, [6])).await),
                kind(store.handle(&store.up_to(Epoch(0), 6, 7)).await),
            ];
            assert_eq!(kinds, [ErrorKind::Corrupt; 8], "{damage}");
            assert_eq!(store.sql("SELECT * FROM highwater.checkpoint").await, before);
            assert_eq!(store.effects().await, "");
        }
    }
    // What can be told from its form does not get into the table.
    for damage in
        ["ahead = 'garbage'", "watermark = '\\x00'", "epoch = -1", "watermark = NULL", "ordinal = -1"]
    {
        let mut conn = store.pool.acquire().await.unwrap();
        let update = format!("UPDATE highwater.checkpoint SET version = 1, {damage}");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(update)).execute(&mut *conn).await;
        assert_eq!(refused.unwrap_err().as_database_error().unwrap().code().unwrap(), "23514", "{damage}");
    }
}

#[tokio::test]
async fn the_common_advance_is_planned_once_on_its_connection() {
    let store = Store::new().await;
    let pool = pool(&store.url, 2);
    let postgres = Postgres::from_pool_with(pool.clone(), Settings::default().connections(1)).unwrap();
    for ms in 1..=20 {
        assert!(postgres.advance(&store.advance(0, ms)).await.unwrap().moved);
    }
    postgres.close().await;
    // It came back to the pool, and is one of all that this has.
    let mut conns = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let mut found = Vec::new();
    for conn in &mut conns {
        let prepared = "SELECT name FROM pg_prepared_statements";
        found.extend(sqlx::raw_sql(prepared).fetch_all(&mut **conn).await.unwrap());
    }
    let [row] = &*found else { panic!("{found:?}") };
    assert!(row.get_unchecked::<String, _>(0).starts_with("highwater_"));
}
