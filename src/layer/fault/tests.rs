use super::*;
use crate::{
    ConsumerName, Delivery, EntryId, Epoch, Fields, Position, Subscription,
    backend::{
        Ack, Advance, Append, CheckpointBackend, Committed, EnsureGroup, NewEntry, Read, ReadGroup,
        ReadPending, Settlement, StreamBackend, TransactionalCheckpoint,
    },
    memory::Memory,
};

fn advance(ms: u64) -> Advance {
    let subscription = Subscription::new("s", "g").unwrap();
    let position = Position::at(EntryId::new(ms, 0));
    Advance::new(subscription, Epoch(0), position, ConsumerName::new("o").unwrap())
}

async fn watermark(backend: &impl CheckpointBackend) -> Option<u64> {
    let checkpoint = backend.load(&advance(0).subscription).await.unwrap();
    checkpoint.map(|checkpoint| checkpoint.position.watermark.ms)
}

#[tokio::test]
async fn before_takes_no_effect_and_after_does() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    faults.next(Operation::Advance, Fault::Before);
    faults.next(Operation::Advance, Fault::After);
    let error = backend.advance(&advance(1)).await.unwrap_err();
    assert_eq!((error.outcome(), watermark(&backend).await), (Outcome::NotApplied, None));
    let error = backend.advance(&advance(1)).await.unwrap_err();
    assert_eq!((error.outcome(), watermark(&backend).await), (Outcome::Unknown, Some(1)));
    assert!(backend.advance(&advance(2)).await.unwrap().moved);
    assert_eq!(faults.calls(Operation::Advance), 3);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_before_the_effect_and_lateness_behind_it() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    let hour = Duration::from_secs(3600);
    for (fault, stored) in [(Fault::Delay(hour), None), (Fault::Late(hour), Some(1))] {
        faults.next(Operation::Advance, fault);
        let dropped = tokio::time::timeout(hour / 2, backend.advance(&advance(1))).await;
        assert!(dropped.is_err());
        assert_eq!(watermark(&backend).await, stored, "{fault:?}");
    }
}

#[tokio::test]
async fn an_outage_ends_when_it_is_cleared() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    faults.all(Fault::Before);
    for _ in 0..3 {
        backend.advance(&advance(1)).await.unwrap_err();
    }
    faults.clear();
    backend.advance(&advance(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_its_faults() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let backend = Faults::seeded(seed, 0.5, Duration::from_millis(5)).wrap(Memory::new());
        let mut run = Vec::new();
        for ms in 0..200 {
            run.push(backend.advance(&advance(ms)).await.map_err(|error| error.outcome()));
        }
        runs.push(run.iter().map(|result| result.as_ref().err().copied()).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    let failed = runs[0].iter().flatten().count();
    assert!((25..75).contains(&failed), "half go wrong, and half of those are only late: {failed}");
}

fn fields(nth: u64) -> Fields {
    Fields::from_iter([("nth", nth.to_string())])
}

fn append(count: u64) -> Append {
    let entries = (1..=count).map(|nth| NewEntry::new(fields(nth))).collect();
    Append::new(advance(0).subscription.stream, entries)
}

fn read() -> Read {
    Read::new(advance(0).subscription.stream, EntryId::ZERO, 100)
}

async fn appended(backend: &impl StreamBackend) -> Vec<Fields> {
    backend.read(&read()).await.unwrap().into_iter().map(|entry| entry.fields).collect()
}

#[tokio::test]
async fn twice_is_carried_out_twice_and_the_second_answer_counts() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    faults.next(Operation::Append, Fault::Twice);
    backend.append(&append(1)).await.unwrap();
    assert_eq!(appended(&backend).await, [fields(1), fields(1)]);

    faults.next(Operation::Advance, Fault::Twice);
    assert!(!backend.advance(&advance(1)).await.unwrap().moved, "it had taken place already");
    assert_eq!(faults.calls(Operation::Advance), 1);
}

#[tokio::test]
async fn a_transaction_is_ended_once() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    faults.all(Fault::Twice);
    let Advance { subscription, epoch, owner, position } = advance(1);
    let settlement = Settlement::each(subscription, epoch, owner, vec![position.watermark]);
    let mut tx = backend.begin().await.unwrap();
    assert_eq!(backend.settled(&mut tx, &settlement).await.unwrap(), []);
    assert!(matches!(backend.commit(tx, &settlement).await.unwrap(), Committed::Done { .. }));
}

#[tokio::test]
async fn a_part_is_a_prefix() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    faults.next(Operation::Append, Fault::Part(2));
    let results = backend.append(&append(5)).await.unwrap();
    let outcomes: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::outcome)).collect();
    let not = Some(Outcome::NotApplied);
    assert_eq!(outcomes, [None, None, not, not, not]);
    assert_eq!(appended(&backend).await, [fields(1), fields(2)]);

    for result in backend.append(&append(5)).await.unwrap() {
        result.unwrap();
    }
    faults.always(Operation::Read, Fault::Part(3));
    assert_eq!(appended(&backend).await, [fields(1), fields(2), fields(1)]);
    // None at all would say that there is nothing.
    faults.always(Operation::Read, Fault::Part(0));
    assert_eq!(appended(&backend).await.len(), 1);
}

#[tokio::test]
async fn a_group_is_read_in_parts_to_its_end() {
    let faults = Faults::new();
    let backend = faults.clone().wrap(Memory::new());
    let subscription = advance(0).subscription;
    backend.append(&append(7)).await.unwrap();
    backend.ensure_group(&EnsureGroup::new(subscription.clone(), &Position::default())).await.unwrap();
    faults.all(Fault::Part(2));
    let owner = advance(0).owner;
    let mut delivered = Vec::new();
    loop {
        let part =
            backend.read_group(&ReadGroup::new(subscription.clone(), owner.clone(), 100)).await.unwrap();
        assert!(part.len() <= 2);
        if part.is_empty() {
            break;
        }
        delivered.extend(part.iter().map(Delivery::id));
    }
    assert_eq!(delivered.len(), 7);
    let pending = ReadPending::new(subscription.clone(), owner, EntryId::ZERO, 100);
    assert_eq!(backend.read_pending(&pending).await.unwrap().len(), 2);
    // What is atomic is whole.
    assert_eq!(backend.ack(&Ack::new(subscription, delivered)).await.unwrap().acked, 7);
}

#[tokio::test(start_paused = true)]
async fn each_operation_has_its_own_rate() {
    let faults = Faults::seeded(7, 0.0, Duration::from_millis(5)).rate(Operation::Load, 1.0);
    let backend = faults.wrap(Memory::new());
    for ms in 0..100 {
        assert!(backend.advance(&advance(ms)).await.unwrap().moved || ms == 0);
    }
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(backend.load(&advance(0).subscription).await.is_err());
    }
    assert!((20..70).contains(&failed), "two of five kinds fail: {failed}");
}

#[tokio::test(start_paused = true)]
async fn chance_repeats_what_may_be_repeated_and_cuts_batches() {
    let faults = Faults::seeded(7, 0.5, Duration::from_millis(5));
    let backend = faults.wrap(Memory::new());
    let (mut parts, mut known) = (0, 0);
    for ms in 1..=300 {
        let results = backend.append(&append(6)).await;
        parts += u32::from(results.is_ok_and(|results| results.iter().any(Result::is_err)));
        known += u32::from(backend.advance(&advance(ms)).await.is_ok_and(|advanced| !advanced.moved));
    }
    assert!(parts > 50, "batches that were cut: {parts}");
    assert!(known > 10, "advances that took place twice: {known}");
    for appended in backend.inner().read(&read()).await.unwrap().windows(2) {
        assert!(appended[0].id < appended[1].id);
    }
}
