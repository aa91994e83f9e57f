//! One thing at a time: the size of batches and payloads, the length of the stream, and the producer.

use highwater::{CheckpointPolicy, Ownership};
use highwater_redis::Client;

use crate::{
    list::{Group, Scenario, Shape, Shows},
    ours::{self, Ours, Store, Way},
    produce, raw,
};

/// What a sweep over payloads appends at most.
const BYTES_MAX: usize = 200_000_000;

/// The defaults.
pub const SHARED: Ours = Ours {
    ownership: Ownership::Shared,
    client: Client::RedisRs,
    way: Way::Entry,
    store: Store::Same,
    readers: 1,
    checkpoint: CheckpointPolicy::Coalesced,
};
const EXCLUSIVE: Ours = Ours { ownership: Ownership::Exclusive, ..SHARED };

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            name: "batch",
            about: "By how many entries a read asks for.",
            shows: Shows::Rate,
            scenarios: batches(),
        },
        Group {
            name: "payload",
            about: "By the bytes of an entry.",
            shows: Shows::Rate,
            scenarios: payloads(),
        },
        Group {
            name: "coalescing",
            about: "By how often the checkpoint is written.",
            shows: Shows::Rate,
            scenarios: coalescing(),
        },
        Group {
            name: "producer",
            about: "Appending 100 bytes, by entries in a call.",
            shows: Shows::Rate,
            scenarios: produce::scenarios(),
        },
        Group {
            name: "growth",
            about: "By the length of the stream, read to its end.",
            shows: Shows::Rate,
            scenarios: growth(),
        },
        Group {
            name: "stuck",
            about: "Eight handlers at once, and the first entry handled last of all.",
            shows: Shows::Rate,
            scenarios: vec![
                Scenario::new("ours/shared/8 handlers", |env| ours::stuck(env, false)),
                Scenario::new("ours/shared/8 handlers, one stuck", |env| ours::stuck(env, true)),
            ],
        },
    ]
}

fn batches() -> Vec<Scenario> {
    let sizes = [10, 30, 100, 300, 1_000, 3_000, 10_000];
    let each = |batch: usize| {
        let name = format!("{batch}");
        let shape = |scenario: Scenario| {
            scenario.shaped(&name, |shape| {
                (shape.batch, shape.share) = (batch, if batch < 100 { 10 } else { 1 });
            })
        };
        let list =
            [Scenario::new("raw/redis-rs/group/lean", raw::group_lean), SHARED.into(), EXCLUSIVE.into()];
        list.map(shape)
    };
    sizes.into_iter().flat_map(each).collect()
}

fn payloads() -> Vec<Scenario> {
    let each = |payload: usize| {
        let name = format!("{payload} B");
        let entries = (BYTES_MAX / payload).clamp(2_000, 200_000) as u64;
        let shape = |scenario: Scenario| {
            scenario.shaped(&name, |shape| {
                (shape.payload, shape.entries) = (payload, Some(entries));
                // A read of this many is a hundred megabytes else.
                shape.batch = (10_000_000 / payload).clamp(10, 1_000);
            })
        };
        let fred = |ours: Ours| Scenario::from(Ours { client: Client::Fred, ..ours });
        let list = [
            Scenario::new("limit/group", raw::limit_group),
            Scenario::new("raw/redis-rs/group/lean", raw::group_lean),
            Scenario::new("raw/fred/group/lean", raw::fred_seq),
            SHARED.into(),
            fred(SHARED),
            EXCLUSIVE.into(),
            fred(EXCLUSIVE),
        ];
        list.map(shape)
    };
    [100, 1_000, 10_000, 100_000].into_iter().flat_map(each).collect()
}

fn coalescing() -> Vec<Scenario> {
    let policies = [
        ("coalesced", CheckpointPolicy::Coalesced, 1),
        ("every 100 entries", CheckpointPolicy::Entries(100), 5),
        ("every ack", CheckpointPolicy::EveryAck, 100),
    ];
    let each = |store: Store, (name, checkpoint, share)| {
        let ours = Ours { store, checkpoint, ..SHARED };
        Scenario::from(ours).shaped(name, |shape: &mut Shape| shape.share = share).beside(&ours.to_string())
    };
    [Store::Same, Store::Postgres, Store::Sqlite]
        .into_iter()
        .flat_map(|store| policies.map(|policy| each(store, policy)))
        .collect()
}

fn growth() -> Vec<Scenario> {
    let each = |ours: Ours, exponent: u32| {
        let scenario = Scenario::new(&ours.to_string(), move |env| ours.again_and_again(env));
        let shape = |shape: &mut Shape| {
            (shape.entries, shape.long) = (Some(10_u64.pow(exponent)), exponent > 6);
            // The shortest stream must be many reads.
            shape.batch = 100;
        };
        scenario.shaped(&format!("10^{exponent} entries"), shape).beside(&ours.to_string())
    };
    [SHARED, EXCLUSIVE]
        .into_iter()
        .flat_map(|ours| (4..=7).map(move |exponent| each(ours, exponent)))
        .collect()
}
