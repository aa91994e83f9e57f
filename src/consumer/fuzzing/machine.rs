//! The machine in a random world: what may happen, and that all of it ends well.

use std::time::Duration;

use super::world::{Mishap, World};
use crate::{consumer::machine::Event, fuzzing::Source};

/// Any sequence of what can happen to a consumer loses nothing, does nothing twice in one process, and comes to an end.
pub fn machine(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    while !source.is_empty() {
        step(&mut world, &mut source);
        world.check();
    }
    finish(&mut world);
}

/// One thing that may happen. A new event of the machine needs a line here.
fn step(world: &mut World, source: &mut Source<'_>) {
    match source.below(32) {
        0..3 => world.append(1 + source.below(6)),
        3..8 => world.answer_read(source.below(9), source.one_in(16)),
        8..15 => world.lane_succeeds(source.below(8)),
        15..17 => world.lane_fails(source.below(8), source.one_in(8)),
        17 => world.lane_defers(source.below(8), source.one_in(3)),
        18 => world.lane_gives_back(source.below(8)),
        19..22 => world.save_succeeds(true),
        22 => world.save_succeeds(false),
        23 => world.save_fails(Duration::from_millis(source.below(8) as u64)),
        24..26 => world.pass(Duration::from_millis(1 + source.below(40) as u64)),
        26 => world.redeliver(),
        27 => world.others_take(source.below(4), source.one_in(2)),
        28 => world.claim(source.below(8)),
        29 => match source.below(8) {
            0 => world.crash(),
            1 => world.group_lost(),
            2 => world.stop(),
            3 => world.gone(source.below(8)),
            4 => world.go_wrong(Some(Mishap::NotNoted)),
            5 => world.go_wrong(Some(Mishap::NotBuried)),
            6 => world.go_wrong(Some(Mishap::ReplyLost)),
            _ => world.go_wrong(Some(Mishap::OneTaken)),
        },
        30 => world.lapse(source.below(4)),
        _ => world.feed(Event::Tick),
    }
}

/// Without further mishap a stop ends, and whoever comes next finishes all.
fn finish(world: &mut World) {
    world.go_wrong(None);
    if world.stopped() {
        for _ in 0..10_000 {
            if world.drained() || !world.goes_on() {
                break;
            }
        }
        assert!(world.drained(), "G15: a stop that does not end: {world:?}");
        assert_eq!(world.machine().in_flight(), 0, "{world:?}");
        world.crash();
    }
    for _ in 0..10_000 {
        if !world.goes_on() {
            break;
        }
        world.check();
    }
    world.check_all_is_settled();
}
