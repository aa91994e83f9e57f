//! Random operations on one checkpoint, held against memory: what each answers, and what is stored after it.

use std::{fmt::Debug, time::Duration};

use highwater::{
    Attempts, Checkpoint, ConsumerName, DeathReason, Doom, EntryId, Epoch, ErrorKind, Memory, Position,
    Result, Subscription, backend::*, clock::Timestamp,
};
use proptest::prelude::*;

/// Epochs are given as what they differ from the one that stands; ids are few, so that they meet.
#[derive(Debug, Clone)]
pub enum Step {
    Acquire {
        owner: u8,
        stands: bool,
    },
    Release(i64),
    Advance {
        epoch: i64,
        to: u64,
    },
    Reset {
        position: Option<u64>,
        paused: Option<bool>,
        reason: Option<u8>,
        expected: Option<(i64, u64)>,
        force: bool,
    },
    Note {
        epoch: i64,
        set: Vec<(u64, u32)>,
        clear: Vec<u64>,
    },
    Attempts(Vec<u64>),
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let epoch = || prop_oneof![6 => Just(0i64), 1 => Just(-1i64), 1 => Just(1i64)];
    let few = || 0u64..5;
    let reset = (
        prop::option::of(few()),
        prop::option::of(any::<bool>()),
        prop::option::of(0u8..4),
        prop::option::of((epoch(), few())),
        any::<bool>(),
    );
    let step = prop_oneof![
        2 => (0u8..2, any::<bool>()).prop_map(|(owner, stands)| Step::Acquire { owner, stands }),
        1 => epoch().prop_map(Step::Release),
        3 => (epoch(), few()).prop_map(|(epoch, to)| Step::Advance { epoch, to }),
        3 => reset.prop_map(|(position, paused, reason, expected, force)| Step::Reset { position, paused, reason, expected, force }),
        4 => (epoch(), prop::collection::vec((few(), 0u32..9), 0..4), prop::collection::vec(few(), 0..3))
            .prop_map(|(epoch, set, clear)| Step::Note { epoch, set, clear }),
        1 => prop::collection::vec(few(), 0..4).prop_map(Step::Attempts),
    ];
    prop::collection::vec(step, 1..12)
}

/// Takes the steps on a store and on memory, which say the same of each.
pub async fn agree(store: &dyn CheckpointBackend, of: &Subscription, steps: &[Step]) {
    let memory = Memory::new();
    let mut epoch = 0;
    for (n, step) in steps.iter().enumerate() {
        let expected = take(&memory, of, epoch, step).await;
        assert_eq!(take(store, of, epoch, step).await, expected, "step {n} of {steps:?}");
        assert_eq!(stored(store, of).await, stored(&memory, of).await, "after step {n} of {steps:?}");
        // What was issued is in the answer.
        if let Ok((_, Some(issued))) = expected {
            epoch = issued;
        }
    }
}

/// What the answer says, without what differs with the clock, and the epoch that was issued.
async fn take(
    store: &dyn CheckpointBackend,
    of: &Subscription,
    epoch: u64,
    step: &Step,
) -> Result<(String, Option<u64>), ErrorKind> {
    let at = |difference: i64| Epoch(epoch.saturating_add_signed(difference));
    match step {
        Step::Acquire { owner, stands } => {
            let ttl = if *stands { Duration::from_secs(600) } else { Duration::ZERO };
            match store.acquire(&Acquire::new(of.clone(), name(*owner), ttl)).await.map_err(|e| e.kind())? {
                Acquired::Owned(grant) => Ok((format!("{grant:?}"), Some(grant.epoch.0))),
                Acquired::Held { owner, .. } => Ok((format!("{owner:?}"), None)),
                other => panic!("{other:?}"),
            }
        }
        Step::Release(epoch) => told(store.release(&Release::new(of.clone(), at(*epoch))).await),
        Step::Advance { epoch, to } => {
            let position = Position::at(EntryId::new(*to, 0));
            told(store.advance(&Advance::new(of.clone(), at(*epoch), position, name(7))).await)
        }
        Step::Reset { position, paused, reason, expected, force } => {
            let mut request = ResetCheckpoint::pause(of.clone(), false).force(*force);
            request.position = position.map(|ms| Position::at(EntryId::new(ms, 0)));
            request.paused = *paused;
            if let Some(reason) = reason {
                request = request.because(format!("because of 'n\\{reason}")).expect("a reason");
            }
            if let Some((epoch, watermark)) = expected {
                request = request.expect(at(*epoch)).expect_watermark(EntryId::new(*watermark, 0));
            }
            let issued = store.reset(&request).await.map_err(|error| error.kind())?;
            Ok((String::new(), Some(issued.0)))
        }
        Step::Note { epoch, set, clear } => {
            let set = set.iter().map(|&(ms, failures)| attempts(ms, failures)).collect();
            let clear = clear.iter().map(|&ms| EntryId::new(ms, 0)).collect();
            told(store.note_attempts(&NoteAttempts::new(of.clone(), at(*epoch), set, clear)).await)
        }
        Step::Attempts(ids) => {
            let ids = ids.iter().map(|&ms| EntryId::new(ms, 0)).collect();
            told(store.attempts(&LoadAttempts::of(of.clone(), ids)).await)
        }
    }
}

fn told<T: Debug>(result: Result<T>) -> Result<(String, Option<u64>), ErrorKind> {
    result.map(|answer| (format!("{answer:?}"), None)).map_err(|error| error.kind())
}

fn name(owner: u8) -> ConsumerName {
    ConsumerName::new(format!("c{owner}")).unwrap()
}

fn attempts(ms: u64, failures: u32) -> Attempts {
    let mut attempts = Attempts::new(EntryId::new(ms, 0));
    (attempts.failures, attempts.crashes) = (failures, failures / 2);
    attempts.first_at = (failures > 2).then(|| Timestamp::from_millis(7));
    attempts.doom = (failures > 5).then(|| Doom::new(DeathReason::Exhausted, "it's \\gone\\'"));
    attempts
}

/// All that is stored.
async fn stored(
    store: &dyn CheckpointBackend,
    of: &Subscription,
) -> (Option<Checkpoint>, usize, Vec<Attempts>) {
    let timeless = |mut checkpoint: Checkpoint| {
        checkpoint.updated_at = Timestamp::default();
        checkpoint
    };
    let loaded = store.load(of).await.unwrap().map(timeless);
    let listed = store.list(&of.stream).await.unwrap();
    let of_group = listed.iter().find(|(group, _)| *group == of.group);
    assert_eq!(of_group.map(|(_, checkpoint)| timeless(checkpoint.clone())), loaded);
    (loaded, listed.len().min(1), store.attempts(&LoadAttempts::all(of.clone())).await.unwrap())
}
