//! What a consumer asks of the stores while little happens, and that it still notices what it must.

use super::*;
use crate::{
    ConsumerName,
    layer::{Faults, Layer, Layered, Operation},
};

type Counted = Arc<Layered<Memory, Faults>>;

/// A shared consumer whose calls are counted.
fn counted(memory: &Memory) -> (Faults, Consumer<Counted, Counted>) {
    let faults = Faults::new();
    let both = faults.clone().wrap(memory.clone());
    (faults, Consumer::fused(subscription(), both).build().unwrap())
}

/// How often each of these was called in this time.
async fn calls<const N: usize>(faults: &Faults, operations: [Operation; N], time: Duration) -> [u64; N] {
    let before = operations.map(|operation| faults.calls(operation));
    Clock::new().sleep(time).await;
    std::array::from_fn(|n| faults.calls(operations[n]) - before[n])
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_seldom_looks_for_the_dead() {
    let memory = Memory::new();
    let (faults, consumer) = counted(&memory);
    let run = tokio::spawn(consumer.run(Recorder::until(usize::MAX).0, std::future::pending::<()>()));
    until("it has begun", async || watermark(&memory).await.is_some()).await;
    let [claims, settles] =
        calls(&faults, [Operation::Claim, Operation::Settle], Duration::from_secs(110)).await;
    assert!((5..=15).contains(&claims), "one that died and left nothing is forgotten: {claims}");
    assert!(settles <= 1, "{settles}");
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn one_entry_a_second_takes_one_save_a_second_which_tells_all_that_a_look_at_the_checkpoint_would() {
    let memory = Memory::new();
    let (faults, consumer) = counted(&memory);
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let run = tokio::spawn(consumer.run(recorder.clone(), std::future::pending::<()>()));
    until("it has begun", async || watermark(&memory).await.is_some()).await;
    let producer = tokio::spawn({
        let memory = memory.clone();
        async move {
            for _ in 0..120 {
                append(&memory, 1).await;
                Clock::new().sleep(Duration::from_secs(1)).await;
            }
        }
    });
    until("it is under way", async || recorder.seen().len() == 5).await;
    let [settles, loads] =
        calls(&faults, [Operation::Settle, Operation::Load], Duration::from_secs(100)).await;
    assert!((99..=102).contains(&settles), "{settles} for 100 entries");
    assert!(loads <= 2, "{loads}");
    // With the last save it knows how many entries were added up to there.
    producer.await.unwrap();
    let ordinal = memory.load(&subscription()).await.unwrap().unwrap().position.ordinal;
    assert_eq!(ordinal, Some(120));
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn an_ordinal_that_the_last_save_lacks_is_made_up_for() {
    let memory = Memory::new();
    let (_, consumer) = counted(&memory);
    let run = tokio::spawn(consumer.run(Recorder::until(usize::MAX).0, std::future::pending::<()>()));
    for _ in 0..50 {
        append(&memory, 1).await;
        Clock::new().sleep(Duration::from_millis(110)).await;
    }
    let clock = Clock::started();
    let ordinal = async || memory.load(&subscription()).await.unwrap().unwrap().position.ordinal;
    until("the ordinal is there", async || ordinal().await == Some(50)).await;
    assert!(clock.elapsed() < Duration::from_millis(2_500), "{:?}", clock.elapsed());
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn g13_what_comes_after_a_calm_to_one_that_dies_is_claimed_within_5_s() {
    // Also where a read waits for so long that nobody holds the stream against anything meanwhile.
    for block in [Duration::from_secs(1), Duration::from_secs(60)] {
        for tenths in 0..25 {
            let memory = Memory::new();
            append(&memory, 1).await;
            let (recorder, stop) = Recorder::until(2);
            let consumer =
                builder(&memory, Ownership::Shared).configure(|s| s.block = block).build().unwrap();
            let living = tokio::spawn(consumer.run(recorder.clone(), stop));
            until("all is handled", async || watermark(&memory).await.is_some_and(|w| w.ms == 1)).await;
            Clock::new().sleep(Duration::from_millis(20_000 + 100 * tenths)).await;
            // Another one lives, takes an entry before the living can, and is killed.
            let name = ConsumerName::new("killed").unwrap();
            let beat = Heartbeat::new(subscription(), name.clone(), Token(1), Duration::from_secs(3));
            memory.heartbeat(&beat).await.unwrap();
            let new = NewEntry::new(Fields::from_iter([("n", "2")])).with_id(EntryId::new(2, 0));
            let new = Append::new(subscription().stream, vec![new]);
            let take = ReadGroup::new(subscription(), name, 1);
            let (appended, taken) = tokio::join!(memory.append(&new), memory.read_group(&take));
            appended.unwrap()[0].as_ref().unwrap();
            assert_eq!(taken.unwrap().len(), 1);
            let clock = Clock::started();
            living.await.unwrap().unwrap();
            assert_eq!(recorder.seen(), to(2));
            assert!(clock.elapsed() < Duration::from_secs(5), "{block:?} {tenths}: {:?}", clock.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_noticed_with_saves_and_without() {
    for saves in [false, true] {
        let memory = Memory::new();
        append(&memory, 1).await;
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let consumer = builder(&memory, Ownership::Shared).build().unwrap();
        let run = tokio::spawn(consumer.run(recorder.clone(), std::future::pending::<()>()));
        // Afterwards no save is left to be made, or one is not far.
        let (entries, between) =
            if saves { (50, Duration::from_millis(100)) } else { (2, Duration::from_secs(10)) };
        for n in 2..=entries {
            append(&memory, 1).await;
            until("all are settled", async || watermark(&memory).await.is_some_and(|w| w.ms == n)).await;
            Clock::new().sleep(between).await;
        }
        let pause = ResetCheckpoint::pause(subscription(), true).force(true);
        memory.reset(&pause).await.unwrap();
        let clock = Clock::started();
        let inspect = Inspect::subscription(&subscription()).count_alive(true);
        let alive = async || {
            let group = memory.inspect(&inspect).await.unwrap().unwrap().group;
            group.and_then(|group| group.consumers_alive).unwrap()
        };
        until("it stands by", async || alive().await == 0).await;
        assert!(clock.elapsed() < Duration::from_secs(2), "{saves}: {:?}", clock.elapsed());
        run.abort();
    }
}
