//! How a service tests its own handler against a real server, in a container that goes when the test ends. Needs Docker:
//! `cargo run -p highwater-containers --example testcontainers`. What `main` does is what a `#[tokio::test]` would do.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use highwater::{
    Consumer, Delivery, EntryId, Fields, Handler, HandlerError, Producer, Subscription, backend::*,
};
use highwater_redis::Redis;
use testcontainers::{
    GenericImage,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};
use tokio::{sync::watch, time::timeout};

const ENTRIES: usize = 2_000;

/// What is tested. An entry may come twice, so what is done about it is kept by its id.
#[derive(Clone, Default)]
struct Billing {
    bills: watch::Sender<BTreeMap<EntryId, u64>>,
}

impl Handler for Billing {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let cents = delivery.fields().get("cents").ok_or("no field `cents`").map_err(HandlerError::reject)?;
        let cents = std::str::from_utf8(cents)?.parse().map_err(HandlerError::reject)?;
        self.bills.send_modify(|bills| {
            bills.insert(delivery.id(), cents);
        });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The version that you run. For the checkpoint in another store, start that as well.
    let image = GenericImage::new("redis", "8.0")
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"));
    let server = image.start().await?;
    let url = format!("redis://{}:{}", server.get_host().await?, server.get_host_port_ipv4(6379).await?);
    let redis = Arc::new(Redis::connect(url).await?);

    let orders = Subscription::new("orders", "billing")?;
    let producer = Producer::new(orders.stream.clone(), Arc::clone(&redis))?;
    let half =
        || (1..=ENTRIES / 2).map(|n| Fields::from_iter([("cents", n.to_string())])).collect::<Vec<_>>();
    producer.append_many(half()).await?.into_iter().collect::<Result<Vec<_>, _>>()?;

    let billing = Billing::default();
    let mut some = billing.bills.subscribe();
    let mut all = billing.bills.subscribe();
    let consumer = Consumer::fused(orders.clone(), Arc::clone(&redis)).build()?;
    let running = tokio::spawn(consumer.run(billing.clone(), async move {
        drop(all.wait_for(|bills| bills.len() == ENTRIES).await);
    }));

    // An outage in the middle of the work: the server is there, and answers nobody.
    some.wait_for(|bills| bills.len() >= 10).await?;
    server.pause().await?;
    assert!(
        timeout(Duration::from_millis(500), redis.load(&orders)).await.is_err(),
        "a frozen server is silent"
    );
    server.unpause().await?;

    let ids = producer.append_many(half()).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let report = running.await??;
    let checkpoint = redis.load(&orders).await?.ok_or("no checkpoint")?;
    assert_eq!(billing.bills.borrow().len(), ENTRIES, "every entry was handled");
    assert_eq!(billing.bills.borrow().values().sum::<u64>(), 1_001_000, "and billed once");
    assert_eq!(Some(checkpoint.position.watermark), ids.last().copied(), "the checkpoint is at the end");
    println!("all {ENTRIES} entries were billed, with an outage in between:\n{report:?}");
    Ok(())
}
