//! Random effects against a model of what they do: all of them, or none.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{EntryId, Epoch, ErrorKind, backend::*};
use highwater_redis::Effects;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{Redis, server::*};

const CASES: u32 = 400;

/// One effect. Keys, fields and members are few, so that effects meet.
#[derive(Clone, Debug)]
enum Step {
    Set(String),
    Del,
    Expire,
    Incr(i64),
    HashSet(u8, String),
    HashIncr(u8, i64),
    HashDel(u8),
    SetAdd(u8),
    SetRemove(u8),
    SortedAdd(u8, i32),
    SortedIncr(u8, i32),
    SortedRemove(u8),
    Left(u8),
    Right(u8),
    Append(Option<u64>),
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    Text(String),
    Hash(BTreeMap<u8, String>),
    Set(BTreeSet<u8>),
    Sorted(BTreeMap<u8, i64>),
    List(Vec<u8>),
    /// How many entries, and the last id, if it was not left to the server.
    Stream(u64, Option<u64>),
}

type Model = BTreeMap<u8, Held>;

fn steps() -> impl Strategy<Value = Vec<(u8, Step)>> {
    let number = || prop_oneof![8 => -5i64..5, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let text = || {
        let odd =
            prop::sample::select(vec!["", "-0", "007", "x", "9223372036854775808", "-9223372036854775808"]);
        prop_oneof![3 => number().prop_map(|n| n.to_string()), 1 => odd.prop_map(str::to_owned)]
    };
    let (field, score) = (0u8..3, -9i32..9);
    let step = prop_oneof![
        1 => text().prop_map(Step::Set),
        2 => Just(Step::Del),
        1 => Just(Step::Expire),
        3 => number().prop_map(Step::Incr),
        1 => (field.clone(), text()).prop_map(|(f, v)| Step::HashSet(f, v)),
        2 => (field.clone(), number()).prop_map(|(f, n)| Step::HashIncr(f, n)),
        1 => field.clone().prop_map(Step::HashDel),
        1 => field.clone().prop_map(Step::SetAdd),
        1 => field.clone().prop_map(Step::SetRemove),
        1 => (field.clone(), score.clone()).prop_map(|(f, s)| Step::SortedAdd(f, s)),
        1 => (field.clone(), score).prop_map(|(f, s)| Step::SortedIncr(f, s)),
        1 => field.clone().prop_map(Step::SortedRemove),
        1 => field.clone().prop_map(Step::Left),
        1 => field.prop_map(Step::Right),
        1 => prop::option::of(0u64..6).prop_map(Step::Append),
    ];
    // Of fifteen kinds of effect, few may meet on one key: so a key mostly sees those of one type.
    prop::collection::vec((0u8..24, step), 1..12).prop_map(|steps| {
        let own = |(key, step): (u8, Step)| if key % 4 == 0 { (0, step) } else { (kind_of(&step), step) };
        steps.into_iter().map(own).collect()
    })
}

fn kind_of(step: &Step) -> u8 {
    match step {
        Step::Set(_) | Step::Del | Step::Incr(_) => 1,
        Step::HashSet(..) | Step::HashIncr(..) | Step::HashDel(_) => 2,
        Step::SetAdd(_) | Step::SetRemove(_) => 3,
        Step::SortedAdd(..) | Step::SortedIncr(..) | Step::SortedRemove(_) => 4,
        Step::Left(_) | Step::Right(_) => 5,
        Step::Append(_) | Step::Expire => 6,
    }
}

fn write(effects: &mut Effects, key: &str, step: &Step) {
    let entry = fields("v");
    match step {
        Step::Set(value) => effects.set(key, value),
        Step::Del => effects.del(key),
        Step::Expire => effects.expire(key, std::time::Duration::from_secs(600)),
        Step::Incr(by) => effects.incr_by(key, *by),
        Step::HashSet(field, value) => effects.hash_set(key, [*field], value),
        Step::HashIncr(field, by) => effects.hash_incr_by(key, [*field], *by),
        Step::HashDel(field) => effects.hash_del(key, [*field]),
        Step::SetAdd(member) => effects.set_add(key, [*member]),
        Step::SetRemove(member) => effects.set_remove(key, [*member]),
        Step::SortedAdd(member, score) => effects.sorted_add(key, [*member], f64::from(*score)),
        Step::SortedIncr(member, by) => effects.sorted_incr_by(key, [*member], f64::from(*by)),
        Step::SortedRemove(member) => effects.sorted_remove(key, [*member]),
        Step::Left(value) => effects.list_push_left(key, [*value]),
        Step::Right(value) => effects.list_push_right(key, [*value]),
        Step::Append(None) => effects.append(key, &entry),
        Step::Append(Some(ms)) => effects.append_with_id(key, EntryId::new(*ms, 0), &entry),
    };
}

/// The sum, if both are integers as a server writes them.
fn add(text: &str, by: i64) -> Option<String> {
    let number: i64 = text.parse().ok().filter(|number: &i64| number.to_string() == text)?;
    number.checked_add(by).map(|sum| sum.to_string())
}

/// Does a step to the model; `None` if it fails.
fn apply(model: &mut Model, key: u8, step: &Step) -> Option<()> {
    use Held::*;
    match step {
        Step::Set(value) => _ = model.insert(key, Text(value.clone())),
        Step::Del => _ = model.remove(&key),
        Step::Expire => {}
        Step::Incr(by) => {
            let Text(text) = model.entry(key).or_insert_with(|| Text("0".to_owned())) else { return None };
            *text = add(text, *by)?;
        }
        Step::HashSet(..) | Step::HashIncr(..) | Step::HashDel(_) => {
            let Hash(hash) = model.entry(key).or_insert_with(|| Hash(BTreeMap::new())) else { return None };
            match step {
                Step::HashSet(field, value) => _ = hash.insert(*field, value.clone()),
                Step::HashIncr(field, by) => {
                    let value = hash.entry(*field).or_insert_with(|| "0".to_owned());
                    *value = add(value, *by)?;
                }
                Step::HashDel(field) => _ = hash.remove(field),
                _ => unreachable!(),
            }
        }
        Step::SetAdd(member) | Step::SetRemove(member) => {
            let Set(set) = model.entry(key).or_insert_with(|| Set(BTreeSet::new())) else { return None };
            if matches!(step, Step::SetAdd(_)) {
                set.insert(*member)
            } else {
                set.remove(member)
            };
        }
        Step::SortedAdd(..) | Step::SortedIncr(..) | Step::SortedRemove(_) => {
            let Sorted(set) = model.entry(key).or_insert_with(|| Sorted(BTreeMap::new())) else {
                return None;
            };
            match step {
                Step::SortedAdd(member, score) => _ = set.insert(*member, i64::from(*score)),
                Step::SortedIncr(member, by) => *set.entry(*member).or_default() += i64::from(*by),
                Step::SortedRemove(member) => _ = set.remove(member),
                _ => unreachable!(),
            }
        }
        Step::Left(value) | Step::Right(value) => {
            let List(list) = model.entry(key).or_insert_with(|| List(Vec::new())) else { return None };
            let at = if matches!(step, Step::Left(_)) { 0 } else { list.len() };
            list.insert(at, *value);
        }
        Step::Append(ms) => {
            let Stream(len, last) = model.entry(key).or_insert(Stream(0, Some(0))) else { return None };
            // An id that the server chose is above all of ours.
            *last = match (ms, *last) {
                (Some(ms), Some(last)) if *ms > last => Some(*ms),
                (Some(_), _) => return None,
                (None, _) => None,
            };
            *len += 1;
        }
    }
    Some(())
}

/// What the server holds, read by the type that the model has.
async fn matches(raw: &Raw, key: &str, held: &Held) {
    let found = match held {
        Held::Text(_) => Held::Text(raw.run(&format!("GET {key}")).await),
        Held::Hash(_) => {
            let map: BTreeMap<Vec<u8>, String> = raw.run(&format!("HGETALL {key}")).await;
            Held::Hash(map.into_iter().map(|(field, value)| (field[0], value)).collect())
        }
        Held::Set(_) => {
            let set: BTreeSet<Vec<u8>> = raw.run(&format!("SMEMBERS {key}")).await;
            Held::Set(set.into_iter().map(|member| member[0]).collect())
        }
        Held::Sorted(_) => {
            let set: Vec<(Vec<u8>, i64)> = raw.run(&format!("ZRANGE {key} 0 -1 WITHSCORES")).await;
            Held::Sorted(set.into_iter().map(|(member, score)| (member[0], score)).collect())
        }
        Held::List(_) => {
            let list: Vec<Vec<u8>> = raw.run(&format!("LRANGE {key} 0 -1")).await;
            Held::List(list.into_iter().map(|value| value[0]).collect())
        }
        Held::Stream(_, last) => Held::Stream(raw.run(&format!("XLEN {key}")).await, *last),
    };
    assert_eq!(found, *held, "{key}");
}

fn is_empty(held: &Held) -> bool {
    match held {
        Held::Hash(hash) => hash.is_empty(),
        Held::Set(set) => set.is_empty(),
        Held::Sorted(set) => set.is_empty(),
        Held::Text(_) | Held::List(_) | Held::Stream(..) => false,
    }
}

/// Buffers one after another; returns how many took place, and how many did not.
async fn run(redis: &Redis, raw: &Raw, buffers: &[Vec<(u8, Step)>]) -> (u32, u32) {
    raw.run::<()>("FLUSHALL").await;
    let (mut model, mut tally) = (Model::new(), (0, 0));
    for (n, buffer) in buffers.iter().enumerate() {
        let mut effects = Effects::default();
        buffer.iter().for_each(|(key, step)| write(&mut effects, &format!("k{key}"), step));
        let mut next = model.clone();
        let wrong = buffer.iter().position(|(key, step)| apply(&mut next, *key, step).is_none());
        let settlement = Settlement::each(subscription(), Epoch(0), name("c"), ids([n as u64 + 1]));
        let result = redis.commit(effects, &settlement).await;
        match wrong {
            None => {
                result.unwrap();
                next.retain(|_, held| !is_empty(held));
                model = next;
                tally.0 += 1;
            }
            Some(wrong) => {
                let error = result.unwrap_err();
                let effect = (wrong + 1).to_string();
                assert_eq!((error.kind(), error.context("effect")), (ErrorKind::Handler, Some(&*effect)));
                assert_eq!(redis.settled(&mut Effects::default(), &settlement).await.unwrap(), []);
                tally.1 += 1;
            }
        }
        let keys: BTreeSet<String> = raw.run("KEYS k*").await;
        assert_eq!(keys, model.keys().map(|key| format!("k{key}")).collect());
        for (key, held) in &model {
            matches(raw, &format!("k{key}"), held).await;
        }
    }
    tally
}

#[test]
fn g9_random_effects_take_place_all_or_not_at_all() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, redis, raw) = runtime.block_on(async {
        let server = Server::start().await;
        let (redis, raw) = (server.backend().await, server.raw().await);
        (server, redis, raw)
    });
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let tally = std::cell::Cell::new((0, 0));
    let buffers = prop::collection::vec(steps(), 1..8);
    TestRunner::new(config)
        .run(&buffers, |buffers| {
            let (done, refused) = runtime.block_on(run(&redis, &raw, &buffers));
            tally.set((tally.get().0 + done, tally.get().1 + refused));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let (done, refused) = tally.get();
    assert!(done > CASES / 2 && refused > CASES / 2, "both were met: {done}, {refused}");
    drop(server);
}
