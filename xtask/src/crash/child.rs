//! The processes of the run: one appends, one consumes until it is killed.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, Write},
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use highwater::{
    Consumer, Delivery, Error, Fields, Observation, Subscription, backend::AtomicSettle, producer::Producer,
};
use tokio::{sync::mpsc, time};

use crate::{
    Result,
    cli::{Backend, Consume, Ownership, Produce},
    place,
};

/// Before the consumer's name, in a line of its output.
pub const NAME: &str = "name ";
/// The line that says that the first entry is settled.
pub const SETTLED: &str = "settled";
/// The most entries of one append.
const BATCH_MAX: u64 = 200;
/// After so many effects the handler waits a little, so that a kill finds work under way.
const PACE: u64 = 16;

/// Appends entries with the numbers 1, 2, 3, …, as many more as each line of the standard input says, in batches of random
/// sizes at random instants. Answers each line with the number of entries so far.
pub async fn produce(args: &Produce) -> Result {
    let opened = place::open(&args.place).await?;
    let producer = Producer::new(args.place.stream.parse()?, opened.stream)?;
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut lines = stdin_lines();
    let mut number = 0;
    while let Some(line) = lines.recv().await {
        let last = number + line.trim().parse::<u64>()?;
        while number < last {
            let first = number + 1;
            number = last.min(number + random.u64(1..=BATCH_MAX));
            let entries = (first..=number).map(|n| Fields::from_iter([("n", n.to_string())])).collect();
            for appended in producer.append_many(entries).await? {
                // A lost reply could mean an entry that is there twice: the audit would take it for a duplicate.
                appended?;
            }
            time::sleep(Duration::from_millis(random.u64(0..20))).await;
        }
        println!("{number}");
    }
    producer.close().await?;
    Ok(())
}

/// Consumes with the default settings, and writes a line for each call of its handler, until the standard input closes.
pub async fn consume(args: &Consume) -> Result {
    match args.place.backend {
        Backend::Redis => consume_from(args, highwater_redis::Redis::connect(&args.place.at).await?).await,
        Backend::Sqlite => consume_from(args, highwater_sqlite::Sqlite::open(&args.place.at).await?).await,
    }
}

async fn consume_from<B: AtomicSettle>(args: &Consume, backend: B) -> Result {
    let subscription = Subscription::new(&args.place.stream, &args.group)?;
    let builder = Consumer::fused(subscription, Arc::new(backend));
    let builder = match args.ownership {
        Ownership::Shared => builder.shared(),
        Ownership::Exclusive => builder.exclusive(),
    };
    let effects = Arc::new(OpenOptions::new().append(true).create(true).open(&args.effects)?);
    let run = args.run;
    let handler = move |delivery: Delivery| {
        let effects = Arc::clone(&effects);
        async move { handle(run, &effects, &delivery).await }
    };
    let mut lines = stdin_lines();
    let stop = async move { while lines.recv().await.is_some() {} };
    let settled = Once::new();
    let builder = builder.observer(move |_: &Subscription, seen: &Observation<'_>| {
        // After the save, so the entry is settled whatever happens now.
        if let Observation::Advanced { .. } = seen {
            settled.call_once(|| println!("{SETTLED}"));
        }
    });
    let consumer = builder.build()?;
    println!("{NAME}{}", consumer.name());
    let report = consumer.run(handler, stop).await?;
    println!("{report:?}");
    Ok(())
}

/// Records the effect in one write, so that a kill leaves all of the line or nothing.
async fn handle(run: u32, mut effects: &File, delivery: &Delivery) -> Result {
    let number = delivery.fields().get("n").ok_or_else(|| Error::invalid("an entry without a number"))?;
    let number: u64 = std::str::from_utf8(number)?.parse()?;
    effects.write_all(format!("{run} {number} {}\n", delivery.id()).as_bytes())?;
    if number.is_multiple_of(PACE) {
        time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The lines of the standard input. A thread of its own reads them: a runtime would wait for a read that it started.
pub(super) fn stdin_lines() -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(io::Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
