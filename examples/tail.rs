//! Follows a stream and settles each delivery by hand: `cargo run --example tail`, fed by itself, in memory; or
//! `cargo run --example tail <redis://… or file> <stream>` until Ctrl-C, as the group `tail`.

use std::{env, error::Error, sync::Arc};

use futures_util::StreamExt;
use highwater::{
    Consumer, Fields, Memory, Producer, StartAt, StreamName, Subscription, backend::AtomicSettle,
};
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (place, stream) = (env::args().nth(1), env::args().nth(2).unwrap_or_else(|| "orders".into()));
    let subscription = Subscription::new(stream, "tail")?;
    // Which backend it is may be decided at run time.
    let backend: Arc<dyn AtomicSettle> = match &place {
        None => demo(subscription.stream.clone())?,
        Some(url) if url.contains("://") => Arc::new(Redis::connect(url).await?),
        Some(file) => Arc::new(Sqlite::open(file).await?),
    };
    let start = if place.is_none() { StartAt::Beginning } else { StartAt::End };
    let mut deliveries = Consumer::fused(subscription, backend)
        .configure(|settings| settings.start = start)
        .build()?
        .into_stream();

    let mut settled = 0;
    while place.is_some() || settled < 10 {
        // Waiting may be given up at any time: a delivery that was not taken stays in the stream.
        let delivery = tokio::select! {
            next = deliveries.next() => next.ok_or("the stream has ended")??,
            _ = tokio::signal::ctrl_c() => break,
        };
        if place.is_none() && delivery.id().seq == 0 && delivery.attempt == 1 {
            delivery.fail("not at the first attempt");
            continue;
        }
        println!("{} attempt {} {:?}", delivery.id(), delivery.attempt, delivery.fields());
        delivery.settle();
        settled += 1;
    }
    println!("{:?}", deliveries.stop().await?);
    Ok(())
}

/// A stream in memory that another task feeds.
fn demo(stream: StreamName) -> highwater::Result<Arc<dyn AtomicSettle>> {
    let memory = Memory::new();
    let producer = Producer::new(stream, memory.clone())?;
    tokio::spawn(async move {
        for n in 1..=10 {
            producer.append(Fields::from_iter([("order", n.to_string())])).await?;
        }
        highwater::Result::<()>::Ok(())
    });
    Ok(Arc::new(memory))
}
