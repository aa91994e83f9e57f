//! Handlers whose connection leads nowhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use highwater::{Backoff, Consumer, Fields, HandlerError, Memory, backend::*};
use highwater_postgres::{Postgres, Settings};
use tokio::sync::oneshot;

use crate::{
    store::*,
    support::{TcpProxy, eventually},
};

#[tokio::test]
async fn g16_a_handler_whose_connection_is_half_open_is_ended_by_its_timeout_and_called_again() {
    for exclusive in [true, false] {
        let store = Store::new().await;
        let proxy = Arc::new(TcpProxy::start(store.addr()).await);
        let settings = Settings::default()
            .response_timeout(Duration::from_millis(600))
            .commit_timeout(Duration::from_millis(200));
        let postgres = Postgres::connect_with(&store.url_at(proxy.addr()), settings).await.unwrap();
        let memory = Memory::new();
        let entry = NewEntry::new(Fields::from_iter([("n", "1")])).with_id(id(1));
        memory.append(&Append::new(store.orders.stream.clone(), vec![entry])).await.unwrap();
        let builder = Consumer::builder(store.orders.clone(), memory, postgres).configure(|settings| {
            settings.handler_timeout = Some(Duration::from_secs(1));
            settings.retry = Backoff {
                first: Duration::from_millis(50),
                max: Duration::from_millis(50),
                ..Backoff::default()
            };
        });
        let builder = if exclusive { builder.exclusive() } else { builder };
        let (calls, breaks) = (Arc::new(AtomicU32::new(0)), Arc::clone(&proxy));
        let counted = Arc::clone(&calls);
        let (stop, stopped) = oneshot::channel::<()>();
        let consumer = builder.build().unwrap();
        let run = tokio::spawn(consumer.run_transactional(
            move |tx, delivery| {
                if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    breaks.half_open();
                }
                Box::pin(async move {
                    let n = delivery.id().ms.to_string();
                    // Without a limit of its own.
                    sqlx::query("INSERT INTO effects VALUES ($1)").bind(n).execute(&mut **tx).await?;
                    Ok::<_, HandlerError>(())
                })
            },
            async { drop(stopped.await) },
        ));
        eventually("the row is there", Duration::from_secs(20), async || store.effects().await == "1").await;
        eventually("so is the checkpoint", Duration::from_secs(20), async || {
            store.watermark().await == Some(id(1))
        })
        .await;
        stop.send(()).unwrap();
        let report = run.await.unwrap().unwrap();
        assert_eq!((report.settled, store.effects().await.as_str()), (1, "1"), "{report:?}");
        assert!(calls.load(Ordering::Relaxed) >= 2, "the first call came to nothing");
    }
}
