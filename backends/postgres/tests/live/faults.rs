//! Networks that delay and cut, futures that are dropped, servers that go away.

use std::time::Duration;

use highwater::{EntryId, Epoch, ErrorKind, Outcome, Position, Retry, backend::*};
use highwater_postgres::{Postgres, Settings};
use tokio::time::timeout;

use crate::{
    store::*,
    support::{PostgresServer, TcpProxy, eventually},
};

const SOON: Duration = Duration::from_secs(20);

fn impatient() -> Settings {
    Settings::default()
        .response_timeout(Duration::from_millis(600))
        .commit_timeout(Duration::from_millis(200))
}

/// A pool whose connections came back from the user with a transaction that the driver knows nothing of, open or failed: as
/// after a `begin` that was dropped half-way.
async fn dirty(pool: &sqlx::PgPool) {
    let mut conns = Vec::new();
    for n in 0..pool.options().get_max_connections() {
        let mut conn = pool.acquire().await.unwrap();
        let statements = ["BEGIN; INSERT INTO effects VALUES ('leaked')", "BEGIN; SELECT * FROM nope"];
        let _ = sqlx::raw_sql(statements[n as usize % 2]).execute(&mut *conn).await;
        conns.push(conn);
    }
}

#[tokio::test]
async fn g14_what_is_reported_is_committed_though_the_pool_came_with_open_transactions() {
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let pool = pool(&store.url_at(proxy.addr()), 4);
    // The driver's own way to get there.
    pool.acquire().await.unwrap();
    proxy.delay(Duration::from_millis(30));
    for _ in 0..3 {
        timeout(Duration::from_millis(5), pool.begin()).await.expect_err("it is dropped under way");
    }
    proxy.delay(Duration::ZERO);
    for round in 1..=4 {
        if round > 1 {
            dirty(&pool).await;
        }
        let postgres = Postgres::from_pool(pool.clone()).unwrap();
        assert!(postgres.advance(&store.advance(0, round)).await.unwrap().moved);
        assert_eq!(store.watermark().await, Some(id(round)), "another session sees it");
        for entry in [100 + round, 200 + round] {
            handle(&postgres, &store.each(0, [entry])).await.unwrap();
        }
        postgres.close().await;
    }
    assert_eq!(
        store.effects().await,
        "101 102 103 104 201 202 203 204",
        "and nothing that was never committed"
    );
}

#[tokio::test]
async fn g9_the_lost_reply_to_a_commit_is_unknown_and_the_next_acquire_knows() {
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let postgres = Postgres::connect_with(&store.url_at(proxy.addr()), impatient()).await.unwrap();
    let epoch = store.acquire("me").await;
    proxy.lose_reply_to("COMMIT\0");
    let error = handle(&postgres, &store.up_to(epoch, 1, 2)).await.unwrap_err();
    let what = (error.kind(), error.retry(), error.outcome());
    assert_eq!(what, (ErrorKind::Unavailable, Retry::Later, Outcome::Unknown), "{error:?}");
    let request = Acquire::new(store.orders.clone(), name("me"), LONG);
    let position = Some(Position::at(id(2)));
    assert_eq!(
        postgres.acquire(&request).await.unwrap(),
        Acquired::Owned(Grant::new(epoch.next(), position))
    );
    assert_eq!(store.effects().await, "1 2");

    // The same for one that settles each: whoever settles them again is told.
    proxy.lose_reply_to("COMMIT\0");
    let each = store.each(epoch.next().0, [5]);
    assert_eq!(handle(&postgres, &each).await.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(handle(&postgres, &each).await.unwrap(), Committed::AlreadySettled(ids([5])));
    assert_eq!(store.effects().await, "1 2 5");

    // Before the commit is sent nothing is unknown.
    proxy.lose_reply_to("AS c SET");
    let error = handle(&postgres, &store.up_to(epoch.next(), 3, 4)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
    proxy.lose_reply_to("AS c SET");
    let error = postgres.advance(&store.advance(epoch.next().0, 3)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    assert_eq!(postgres.load(&store.orders).await.unwrap().unwrap().position.watermark, id(3));
    assert_eq!(store.effects().await, "1 2 5");
}

/// Each would cost a whole wait, and together more than an outage may take.
#[tokio::test]
async fn g16_of_many_connections_that_lead_nowhere_one_is_found_out_and_all_are_left() {
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let postgres = Postgres::connect_with(&store.url_at(proxy.addr()), impatient()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(postgres.begin().await.unwrap());
    }
    drop(open);
    // They are back in the pool when another connection is not needed.
    eventually("the pool has them", SOON, async || {
        let before = proxy.accepted();
        drop(postgres.begin().await.unwrap());
        proxy.accepted() == before
    })
    .await;
    proxy.half_open();
    let mut failed = 0;
    while let Err(error) = postgres.begin().await {
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied),
            "{error:?}"
        );
        failed += 1;
    }
    assert!(failed <= 1, "{failed} waits");
}

#[tokio::test]
async fn g14_a_dropped_commit_is_resolved_by_the_next_acquire() {
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let postgres = Postgres::connect(&store.url_at(proxy.addr())).await.unwrap();
    let mut at = 0;
    for round in 0..30u64 {
        proxy.delay(Duration::ZERO);
        let request = Acquire::new(store.orders.clone(), name("me"), LONG);
        let Acquired::Owned(grant) = postgres.acquire(&request).await.unwrap() else { panic!("it is ours") };
        let known = grant.position.map_or(0, |position| position.watermark.ms);
        assert!(known == at || known == at + 1, "{known} after {at}");
        at = known;
        let mut tx = postgres.begin().await.unwrap();
        let effect = sqlx::query("INSERT INTO effects VALUES ($1)").bind((at + 1).to_string());
        effect.execute(&mut *tx).await.unwrap();
        proxy.delay(Duration::from_millis(3));
        let settlement = store.up_to(grant.epoch, at + 1, at + 1);
        let commit = postgres.commit(tx, &settlement);
        let _ = timeout(Duration::from_millis(round), commit).await;
    }
    proxy.delay(Duration::ZERO);
    let last = store.acquire("me").await;
    assert_eq!(last, Epoch(31));
    let at = store.watermark().await.map_or(0, |watermark| watermark.ms);
    println!("{at} of 30 commits took place");
    let once = "SELECT count(*), count(DISTINCT entry), coalesce(max(entry::int), 0) FROM effects";
    assert_eq!(store.sql(once).await, format!("{at}|{at}|{at}"));
}

/// What is asked is dropped, delayed and cut at random. What was reported is true, and what is unknown is resolved by the
/// next acquire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_behind_a_network_that_delays_and_cuts_nothing_is_lost_or_invented() {
    const ENTRIES: u64 = 60;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let postgres = Postgres::connect_with(&store.url_at(proxy.addr()), impatient()).await.unwrap();
    let (mut at, mut reported, mut trouble) = (0, EntryId::ZERO, 0);
    while at < ENTRIES {
        let request = Acquire::new(store.orders.clone(), name("me"), LONG);
        let Ok(Acquired::Owned(grant)) = postgres.acquire(&request).await else {
            trouble += 1;
            continue;
        };
        at = grant.position.map_or(0, |position| position.watermark.ms);
        assert!(id(at) >= reported, "{at} after {reported} was reported");
        for _ in 0..6 {
            proxy.delay(Duration::from_millis(random.u64(0..3)));
            match random.u8(0..10) {
                0 => proxy.cut(),
                1 => proxy.lose_reply_to("COMMIT\0"),
                2 => proxy.cut_after_reply_bytes(random.usize(1..200)),
                _ => {}
            }
            let to = (at + random.u64(1..4)).min(ENTRIES);
            let settlement = store.up_to(grant.epoch, at + 1, to);
            let patience = Duration::from_millis(random.u64(1..80));
            match timeout(patience, handle(&postgres, &settlement)).await {
                Ok(Ok(Committed::Done { .. })) => {
                    (at, reported) = (to, id(to));
                    let seen = store.watermark().await;
                    assert_eq!(seen, Some(reported), "another session sees what was reported");
                }
                Ok(Ok(before)) => panic!("nobody else settles: {before:?}"),
                Ok(Err(error)) if error.outcome() == Outcome::NotApplied => trouble += 1,
                Ok(Err(_)) | Err(_) => {
                    trouble += 1;
                    break;
                }
            }
            if at == ENTRIES {
                break;
            }
        }
    }
    println!("{trouble} times something went wrong");
    assert_eq!(
        store.sql("SELECT count(*), count(DISTINCT entry) FROM effects").await,
        format!("{ENTRIES}|{ENTRIES}")
    );
}

/// The same for advances alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_behind_a_network_that_delays_and_cuts_an_advance_that_was_reported_is_there() {
    let mut random = fastrand::Rng::new();
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let postgres = Postgres::connect_with(&store.url_at(proxy.addr()), impatient()).await.unwrap();
    let mut asked = 0;
    for n in 1..=150 {
        proxy.delay(Duration::from_millis(random.u64(0..3)));
        match random.u8(0..12) {
            0 => proxy.cut(),
            1 => proxy.lose_reply_to("AS c SET"),
            _ => {}
        }
        asked = n;
        let advance = store.advance(0, n);
        let patience = Duration::from_millis(random.u64(0..30));
        let answer = timeout(patience, postgres.advance(&advance)).await;
        let seen = store.watermark().await.unwrap_or_default();
        assert!(seen <= id(asked), "{seen} was never asked for");
        match answer {
            Ok(Ok(advanced)) => assert!(seen >= id(n) && advanced.watermark >= id(n), "{seen} after {n}"),
            Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            Err(_) => {}
        }
    }
    proxy.delay(Duration::ZERO);
    eventually("all is well again", SOON, async || {
        postgres.advance(&store.advance(0, asked + 1)).await.is_ok_and(|a| a.watermark == id(asked + 1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_a_silent_network_is_unknown_in_time_and_takes_no_connection_for_ever() {
    let store = Store::new().await;
    let proxy = TcpProxy::start(store.addr()).await;
    let pool = pool(&store.url_at(proxy.addr()), 4);
    let postgres = Postgres::from_pool_with(pool.clone(), impatient().connections(1)).unwrap();
    postgres.advance(&store.advance(0, 1)).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(postgres.begin().await.unwrap());
    }
    proxy.stall(true);
    let (advance, settlement) = (store.advance(0, 2), store.each(0, [7]));
    let commits = open.into_iter().map(|tx| timeout(SOON, postgres.commit(tx, &settlement)));
    let (advanced, committed) =
        tokio::join!(timeout(SOON, postgres.advance(&advance)), futures_util::future::join_all(commits),);
    assert_eq!(advanced.unwrap().unwrap_err().outcome(), Outcome::Unknown);
    for committed in committed {
        assert_eq!(committed.unwrap().unwrap_err().outcome(), Outcome::NotApplied, "its commit was not sent");
    }
    // The old way stays silent. All places of the pool are free again for a new one.
    pool.set_connect_options(store.options());
    let mut open = Vec::new();
    eventually("there is room", SOON, async || {
        open.extend(postgres.begin().await);
        open.len() == 3
    })
    .await;
    let advance = store.advance(0, 3);
    eventually("it advances", SOON, async || postgres.advance(&advance).await.is_ok()).await;
    drop(open);
    handle(&postgres, &settlement).await.unwrap();
    assert_eq!(store.effects().await, "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g16_a_server_that_was_killed_comes_back_with_all_that_was_reported() {
    let mut server = PostgresServer::start_with(&["fsync=on"]);
    server.sql("CREATE TABLE effects (entry text)").unwrap();
    let postgres = Postgres::connect(&server.url()).await.unwrap();
    postgres.ensure_schema().await.unwrap();
    let mut reported = 0;
    for round in 1..=3 {
        let (writer, orders) = (postgres.clone(), orders());
        let writing = tokio::spawn(async move {
            let mut at = reported;
            loop {
                let settlement = each(&orders, 0, [at + 1]).up_to(Position::at(id(at + 1)));
                match handle(&writer, &settlement).await {
                    Ok(Committed::Done { .. }) => at += 1,
                    Ok(before) => panic!("{before:?}"),
                    Err(error) => {
                        // The handler's own statement, or what came after it.
                        let kinds = [ErrorKind::Handler, ErrorKind::Unavailable];
                        assert!(kinds.contains(&error.kind()), "{error:?}");
                        return at;
                    }
                }
            }
        });
        eventually("it works", SOON, async || {
            postgres
                .load(&crate::store::orders())
                .await
                .unwrap()
                .is_some_and(|c| c.position.watermark >= id(20 * round))
        })
        .await;
        server.kill();
        let told = writing.await.unwrap();
        server.restart().unwrap();
        let mut stored = None;
        eventually("the store answers again", SOON, async || {
            stored = postgres.load(&crate::store::orders()).await.ok().flatten();
            stored.is_some()
        })
        .await;
        let stored = stored.unwrap().position.watermark.ms;
        assert!(stored == told || stored == told + 1, "{told} was told, {stored} is stored");
        reported = stored;
        let effects =
            server.sql("SELECT count(*), count(DISTINCT entry), max(entry::int) FROM effects").unwrap();
        assert_eq!(effects, format!("{stored}|{stored}|{stored}"));
    }
}
