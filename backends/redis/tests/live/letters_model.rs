//! Random sequences about dead letters, attempts and resets: the answers are those of `Memory`.

use std::time::Duration;

use highwater::{
    Attempts, ConsumerName, Entry, EntryId, Epoch, ErrorKind, Fields, Memory, Position, StreamName,
    backend::*, dead_letter_stream,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{Redis, server::*};

const CASES: u32 = 300;
const LAST: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Deliver(bool, usize),
    Ack(u64),
    Bury {
        held: Option<bool>,
        letters: Vec<(u64, Option<u64>, bool)>,
        room: bool,
    },
    Redrive(Vec<(usize, bool)>),
    Note {
        epoch: i64,
        set: Vec<(u64, u32)>,
        clear: Vec<u64>,
    },
    Reset {
        position: Option<u64>,
        paused: Option<bool>,
        expected: Option<u64>,
    },
    Beat(bool, bool),
    /// The group, the stream, or that of the letters goes, and what is gone is made anew.
    Remove(u8),
    /// Letters are trimmed: some or all of them.
    Trim(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ms = || 1..=LAST;
    let letter = (ms(), prop::option::weighted(0.8, 0u64..2), prop::bool::weighted(0.3));
    let bury = (prop::option::weighted(0.7, any::<bool>()), prop::collection::vec(letter, 1..4));
    let step = prop_oneof![
        3 => (any::<bool>(), 1usize..4).prop_map(|(who, limit)| Step::Deliver(who, limit)),
        1 => ms().prop_map(Step::Ack),
        6 => (bury, prop::bool::weighted(0.9))
            .prop_map(|((held, letters), room)| Step::Bury { held, letters, room }),
        3 => prop::collection::vec((0usize..6, any::<bool>()), 1..3).prop_map(Step::Redrive),
        2 => (-1i64..=1, prop::collection::vec((ms(), 1u32..4), 0..3), prop::collection::vec(ms(), 0..3))
            .prop_map(|(epoch, set, clear)| Step::Note { epoch: epoch.min(0) + (epoch / 2), set, clear }),
        1 => (prop::option::of(0u64..3), prop::option::of(any::<bool>()), prop::option::of(0u64..3))
            .prop_map(|(position, paused, expected)| Step::Reset { position, paused, expected }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(who, lives)| Step::Beat(who, lives)),
        1 => (0u8..3).prop_map(Step::Remove),
        1 => (0u64..3).prop_map(Step::Trim),
    ];
    prop::collection::vec(step, 1..25)
}

fn dead() -> StreamName {
    dead_letter_stream(&subscription()).unwrap()
}

fn who(first: bool) -> ConsumerName {
    name(if first { "a" } else { "b" })
}

/// One of the two stores, and what differs between them.
struct Side<'a, B> {
    store: &'a B,
    /// The letters that ever lay there, in order: their ids differ.
    letters: Vec<(EntryId, EntryId, Option<u64>)>,
    life: u64,
}

impl<B: StreamBackend + CheckpointBackend> Side<'_, B> {
    /// Entries that say in which life of their stream they were appended.
    async fn begin(&self) {
        let own = |ms: u64| fields(&format!("{ms} of {}", self.life));
        let entries = (1..=LAST).map(|ms| NewEntry::new(own(ms)).with_id(id(ms))).collect();
        self.store.append(&Append::new(stream("s"), entries)).await.unwrap();
        let group = EnsureGroup::new(subscription(), &Position::default());
        self.store.ensure_group(&group).await.unwrap();
    }

    fn letter(&self, ms: u64, key: Option<u64>, parked: bool) -> NewLetter {
        let own = ("f".to_owned(), format!("{ms} of {}", self.life));
        let about = [("id".to_owned(), ms.to_string()), ("key".to_owned(), format!("{key:?}"))];
        let all: Fields = std::iter::once(own).chain(about).collect();
        NewLetter::new(id(ms), all, 1).with_key(key).parked(parked)
    }

    async fn lying(&self) -> Vec<Entry> {
        self.store.read(&Read::new(dead(), EntryId::ZERO, 1000)).await.unwrap()
    }

    /// Does a step and tells what it answered.
    async fn step(&mut self, step: &Step) -> String {
        let on = subscription;
        match step {
            Step::Deliver(first, limit) => {
                let read = ReadGroup::new(on(), who(*first), *limit);
                let delivered = self.store.read_group(&read).await.unwrap();
                let known = |delivery: &highwater::Delivery| Some(delivery.id().ms).filter(|&ms| ms <= LAST);
                format!("{:?}", delivered.iter().map(known).collect::<Vec<_>>())
            }
            Step::Ack(ms) => {
                format!("{:?}", self.store.ack(&Ack::new(on(), ids([*ms]))).await.unwrap().acked)
            }
            Step::Bury { held, letters, room } => {
                let letters = letters.iter().map(|&(ms, key, parked)| self.letter(ms, key, parked)).collect();
                let request = BuryLetters::new(on(), dead(), letters).held_by(held.map(who));
                let request = request.parked_max(if *room { u64::MAX } else { 0 });
                let fates = self.store.dead_letter(&request).await.unwrap();
                self.note_letters().await;
                format!("{fates:?}")
            }
            Step::Redrive(which) => self.redrive(which).await,
            Step::Note { epoch, set, clear } => {
                let stored = self.store.load(&on()).await.unwrap().map_or(0, |stored| stored.epoch.0);
                let epoch = Epoch(stored.saturating_add_signed(*epoch));
                let attempts = |&(ms, failures): &(u64, u32)| {
                    let mut attempts = Attempts::new(id(ms));
                    attempts.failures = failures;
                    attempts
                };
                let set = set.iter().map(attempts).collect();
                let request = NoteAttempts::new(on(), epoch, set, ids(clear.iter().copied()));
                format!("{:?}", kind(self.store.note_attempts(&request).await))
            }
            Step::Reset { position, paused, expected } => {
                let mut request = ResetCheckpoint::pause(on(), true);
                request.paused = *paused;
                request.position = position.map(|ms| Position::at(id(ms)));
                request.expected_watermark = expected.map(id);
                format!("{:?}", kind(self.store.reset(&request).await))
            }
            Step::Beat(first, lives) => {
                let ttl = Duration::from_secs(if *lives { 600 } else { 0 });
                let request = Heartbeat::new(on(), who(*first), Token(1), ttl);
                format!("{:?}", self.store.heartbeat(&request).await.unwrap())
            }
            Step::Remove(what) => {
                let removal = match what {
                    0 => Removal::Group(on()),
                    1 => Removal::Stream(stream("s")),
                    _ => Removal::Stream(dead()),
                };
                let removed = self.store.remove(&removal).await.unwrap();
                self.life += u64::from(*what == 1);
                if *what > 1 {
                    // New letters may get ids that others had.
                    self.letters.clear();
                }
                self.begin().await;
                removed.to_string()
            }
            Step::Trim(len) => {
                self.store.trim(&Trim::new(dead(), TrimLimit::Len(*len))).await.unwrap().to_string()
            }
        }
    }

    async fn redrive(&self, which: &[(usize, bool)]) -> String {
        let count = self.letters.len();
        let letter = |&(n, append): &(usize, bool)| {
            let &(letter, id, key) = self.letters.get(count.checked_sub(n + 1)?)?;
            Some(RedriveLetter::new(letter, id, key).append(append.then(|| fields("again"))))
        };
        let letters = which.iter().filter_map(letter).collect();
        let redriven = self.store.redrive(&Redrive::new(subscription(), dead(), letters)).await.unwrap();
        let plain = |redriven: &Redriven| match redriven {
            Redriven::Appended(_) => "appended".to_owned(),
            other => format!("{other:?}"),
        };
        format!("{:?}", redriven.iter().map(plain).collect::<Vec<_>>())
    }

    async fn note_letters(&mut self) {
        for entry in self.lying().await {
            if self.letters.iter().any(|(letter, ..)| *letter == entry.id) {
                continue;
            }
            let field = |name| String::from_utf8(entry.fields.get(name).unwrap().to_vec()).unwrap();
            let key = [None, Some(0), Some(1)].into_iter().find(|key| format!("{key:?}") == field("key"));
            self.letters.push((entry.id, id(field("id").parse().unwrap()), key.unwrap()));
        }
    }

    /// All that can be seen. `counts`: also how many letters a key has.
    async fn seen(&self, counts: bool) -> String {
        let fields: Vec<_> = self.lying().await.into_iter().map(|entry| entry.fields).collect();
        let keys = self.store.dead_keys(&DeadKeys::new(subscription(), dead())).await.unwrap();
        let keys: Vec<_> = keys.into_iter().map(|(key, n)| (key, if counts { n } else { 0 })).collect();
        let inspect = Inspect::subscription(&subscription()).count_alive(true);
        let group = self.store.inspect(&inspect).await.unwrap().unwrap().group.unwrap();
        let stored = self.store.load(&subscription()).await.unwrap();
        let stored = stored.map(|c| (c.position, c.epoch, c.owner, c.paused, c.reason));
        let attempts = self.store.attempts(&LoadAttempts::all(subscription())).await.unwrap();
        let first = group.first_pending.map(|id| id.ms).filter(|&ms| ms <= LAST);
        let group = (group.pending, first, group.consumers_alive);
        format!("{fields:?} {keys:?} {group:?} {stored:?} {attempts:?}")
    }
}

fn kind<T>(result: highwater::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}

async fn run(redis: &Redis, raw: &Raw, steps: &[Step]) {
    raw.run::<()>("FLUSHALL").await;
    let memory = Memory::new();
    let mut memory = Side { store: &memory, letters: Vec::new(), life: 0 };
    let mut redis = Side { store: redis, letters: Vec::new(), life: 0 };
    memory.begin().await;
    redis.begin().await;
    let mut counts = true;
    for (n, step) in steps.iter().enumerate() {
        // Of trimmed letters memory says when the last of a key went, and the server when each did.
        counts &= !matches!(step, Step::Trim(1..));
        assert_eq!(redis.step(step).await, memory.step(step).await, "answer {n} of {steps:#?}");
        assert_eq!(redis.seen(counts).await, memory.seen(counts).await, "after {n} of {steps:#?}");
    }
}

#[test]
fn g11_random_sequences_about_letters_and_attempts_go_as_in_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, redis, raw) = runtime.block_on(async {
        let server = Server::start().await;
        let (redis, raw) = (server.backend().await, server.raw().await);
        (server, redis, raw)
    });
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(run(&redis, &raw, &steps));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    drop(server);
}
