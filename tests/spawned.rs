//! Every way to consume over a store that is chosen at run time can be spawned, by itself and inside a future of the caller's own.

use std::{future::ready, sync::Arc};

use highwater::{Consumer, Delivery, HandlerError, Subscription};
use highwater_redis::{Client, RedisStore};

use crate::support::{shared_redis_url, unique};

type Chosen = Consumer<Arc<Arc<dyn RedisStore>>, Arc<Arc<dyn RedisStore>>>;

async fn consumer() -> Chosen {
    let redis = highwater_redis::connect(shared_redis_url(), Client::RedisRs).await.unwrap();
    Consumer::fused(Subscription::new(unique("spawned"), "g").unwrap(), redis).build().unwrap()
}

#[tokio::test]
async fn a_transactional_consumer_of_a_chosen_store_can_be_spawned() {
    let bare = tokio::spawn(consumer().await.run_transactional(
        |effects, _| {
            effects.incr_by("n", 1);
            Box::pin(ready(Ok::<_, HandlerError>(())))
        },
        ready(()),
    ));
    let inside = tokio::spawn(async {
        let consumer = consumer().await;
        consumer.run_transactional(|_, _| Box::pin(ready(Ok::<_, HandlerError>(()))), ready(())).await
    });
    let batches = tokio::spawn(async {
        let consumer = consumer().await;
        consumer.run_transactional_batches(|_, _| Box::pin(ready(Ok::<_, HandlerError>(()))), ready(())).await
    });
    let plain = tokio::spawn(async {
        let handler = |_: Delivery| ready(Ok::<_, HandlerError>(()));
        consumer().await.run(handler, ready(())).await
    });
    for run in [bare, inside, batches, plain] {
        assert_eq!(run.await.unwrap().unwrap().settled, 0);
    }
}
