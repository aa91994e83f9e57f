//! Random sequences of operations, held against memory.

use std::cell::Cell;

use highwater::{EntryId, Fields, Memory, Position, StreamName, Subscription, backend::*};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    checkpoint_model::{agree, steps},
    support::*,
};

/// Entries, keys and consumers are few, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Append(u64, u8),
    ReadGroup(u8, usize),
    Bury {
        holder: Option<u8>,
        letters: Vec<Parcel>,
        parked_max: u64,
    },
    /// Of the letters that ever were.
    Redrive(Vec<(prop::sample::Index, bool)>),
    RemoveStream,
    RemoveLetters,
}

#[derive(Debug, Clone)]
struct Parcel {
    entry: u64,
    value: u8,
    key: Option<u64>,
    parked: bool,
}

fn sequences() -> impl Strategy<Value = Vec<Step>> {
    let parcel = (1u64..6, 0u8..2, prop::option::of(0u64..3), any::<bool>())
        .prop_map(|(entry, value, key, parked)| Parcel { entry, value, key, parked });
    let holder = prop::option::of(0u8..2);
    let step = prop_oneof![
        4 => (1u64..6, 0u8..2).prop_map(|(ms, value)| Step::Append(ms, value)),
        3 => (0u8..2, 1usize..4).prop_map(|(consumer, limit)| Step::ReadGroup(consumer, limit)),
        6 => (holder, prop::collection::vec(parcel, 1..4), 0u64..5)
            .prop_map(|(holder, letters, parked_max)| Step::Bury { holder, letters, parked_max }),
        3 => prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..3).prop_map(Step::Redrive),
        1 => Just(Step::RemoveStream),
        1 => Just(Step::RemoveLetters),
    ];
    prop::collection::vec(step, 1..20)
}

/// A store, and the letters that ever were in it: their ids differ with the clock.
struct Side {
    store: Box<dyn StreamBackend>,
    orders: Subscription,
    letters: Vec<(EntryId, EntryId, Option<u64>)>,
}

impl Side {
    fn new(store: impl StreamBackend) -> Self {
        Self {
            store: Box::new(store),
            orders: Subscription::new("orders", "billing").unwrap(),
            letters: vec![],
        }
    }

    /// What it answers, without ids that the clock gave.
    async fn take(&mut self, step: &Step) -> String {
        let (store, orders) = (&self.store, self.orders.clone());
        match step {
            Step::Append(ms, value) => {
                let entry = NewEntry::new(of_value(*value)).with_id(id(*ms));
                let appended = store.append(&Append::new(orders.stream.clone(), vec![entry])).await.unwrap();
                store.ensure_group(&EnsureGroup::new(orders, &Position::default())).await.unwrap();
                format!("{:?}", appended[0].as_ref().map_err(|error| error.kind()))
            }
            Step::ReadGroup(consumer, limit) => {
                let request = ReadGroup::new(orders, name(&format!("c{consumer}")), *limit);
                let read = store.read_group(&request).await.map_err(|error| error.kind());
                format!("{:?}", read.map(|read| read.into_iter().map(|d| d.entry.fields).collect::<Vec<_>>()))
            }
            Step::Bury { holder, letters, parked_max } => {
                let new = |parcel: &Parcel| {
                    let fields = [("value", parcel.value), ("dead.key", parcel.key.unwrap_or(9) as u8)];
                    let fields = fields.map(|(name, value)| (name, value.to_string())).into_iter().collect();
                    NewLetter::new(id(parcel.entry), fields, 1).with_key(parcel.key).parked(parcel.parked)
                };
                let holder = holder.map(|holder| name(&format!("c{holder}")));
                let mut fates = Vec::new();
                // One by one as well as together is what the stores do; so each new letter is known by its place.
                for parcel in letters {
                    let before = self.there().await;
                    let request = BuryLetters::new(self.orders.clone(), dead(), vec![new(parcel)]);
                    let request = request.held_by(holder.clone()).parked_max(*parked_max);
                    fates.extend(self.store.dead_letter(&request).await.unwrap());
                    if let Some(&at) = self.there().await.get(before.len()) {
                        self.letters.push((at, id(parcel.entry), parcel.key));
                    }
                }
                format!("{fates:?}")
            }
            Step::Redrive(picks) => {
                if self.letters.is_empty() {
                    return String::new();
                }
                let letter = |(pick, append): &(prop::sample::Index, bool)| {
                    let (letter, entry, key) = *pick.get(&self.letters);
                    RedriveLetter::new(letter, entry, key).append(append.then(|| of_value(3)))
                };
                let request = Redrive::new(orders, dead(), picks.iter().map(letter).collect());
                let redriven = store.redrive(&request).await.unwrap();
                let kind = |redriven| match redriven {
                    Redriven::Appended(_) => "appended".to_owned(),
                    other => format!("{other:?}"),
                };
                redriven.into_iter().map(kind).collect::<Vec<_>>().join(" ")
            }
            Step::RemoveStream => store.remove(&Removal::Stream(orders.stream)).await.unwrap().to_string(),
            Step::RemoveLetters => {
                self.letters.clear();
                store.remove(&Removal::Stream(dead())).await.unwrap().to_string()
            }
        }
    }

    async fn there(&self) -> Vec<EntryId> {
        let read = Read::new(dead(), EntryId::ZERO, 1000);
        self.store.read(&read).await.unwrap().into_iter().map(|entry| entry.id).collect()
    }

    /// What there is in it.
    async fn image(&self) -> String {
        let keys = self.store.dead_keys(&DeadKeys::new(self.orders.clone(), dead())).await.unwrap();
        let letters = self.store.read(&Read::new(dead(), EntryId::ZERO, 1000)).await.unwrap();
        let letters: Vec<_> = letters.into_iter().map(|entry| entry.fields).collect();
        let state = self.store.inspect(&Inspect::subscription(&self.orders)).await.unwrap();
        let state = state.map(|state| (state.len, state.group.map(|group| group.pending)));
        format!("{keys:?} {letters:?} {state:?}")
    }
}

fn dead() -> StreamName {
    StreamName::new("dead").unwrap()
}

fn of_value(value: u8) -> Fields {
    [("value", value.to_string())].into_iter().collect()
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

#[test]
fn g11_letters_are_what_they_are_in_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(config(60));
    let outcome = runner.run(&sequences(), |steps| {
        runtime.block_on(async {
            let store = Store::new().await;
            let (mut memory, mut sqlite) = (Side::new(Memory::new()), Side::new(store.sqlite.clone()));
            for (n, step) in steps.iter().enumerate() {
                let (expected, told) = (memory.take(step).await, sqlite.take(step).await);
                prop_assert_eq!(expected, told, "step {}", n);
                prop_assert_eq!(memory.image().await, sqlite.image().await, "after step {}", n);
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn g4_operations_and_attempts_are_what_they_are_in_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::new());
    let case = Cell::new(0);
    let mut runner = TestRunner::new(config(150));
    let outcome = runner.run(&steps(), |steps| {
        // Each has a stream of its own, also when a failure is made smaller.
        case.set(case.get() + 1);
        let of = Subscription::new(format!("s{}", case.get()), "billing").unwrap();
        runtime.block_on(agree(&store.sqlite, &of, &steps));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
