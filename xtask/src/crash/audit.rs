//! What the effects and the checkpoints say about a run: pure, so that each finding can be shown to be found.

use std::{collections::HashSet, fmt};

use highwater::{EntryId, Position};

use crate::cli::Ownership;

/// One call of the handler, as it wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Which process.
    pub run: u32,
    /// The number that the producer gave to the entry: 1, 2, 3, …
    pub number: u64,
    pub id: EntryId,
    /// Where its line begins in the file.
    pub at: u64,
}

/// A checkpoint as somebody saw it, when the file of effects was this long.
///
/// It is loaded before the file is measured, so every effect from there on came after this was stored.
#[derive(Debug, Clone)]
pub struct Sighting {
    pub effects_len: u64,
    pub position: Position,
}

/// What may come again after something went wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A process was killed: what it had handled and was still pending for it.
    Pending { run: u32, ids: HashSet<EntryId> },
    /// A process was killed, or its group was lost: what was handled and not in the checkpoint.
    Unsaved {
        seen: Sighting,
        /// How many besides may have been on their way, in a process that lives on.
        in_flight: u64,
    },
}

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub ownership: Ownership,
    pub entries: u64,
    /// In the order of the file.
    pub effects: &'a [Effect],
    /// In the order of time.
    pub sightings: &'a [Sighting],
    pub faults: &'a [Fault],
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Numbers that no process handled.
    pub lost: Vec<u64>,
    /// Numbers that nobody appended.
    pub invented: Vec<u64>,
    /// Calls beyond the first for each entry.
    pub duplicates: u64,
    /// How many there may be: what was handled and not in the checkpoint at the faults, or in flight.
    pub duplicates_max: u64,
    /// How many of them a process handled that had handled the entry itself. A lost group may cause that; a kill cannot.
    pub by_the_same: u64,
    /// Entries that were handled although the checkpoint already said that they were settled.
    pub settled_again: Vec<Again>,
    /// Watermarks that were seen after a higher one.
    pub lower: Vec<EntryId>,
    /// Numbers that came out of their order, where there is one.
    pub disordered: Vec<u64>,
}

/// A call of the handler that must not have been, with the checkpoint that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    pub effect: Effect,
    pub position: Position,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Effect { run, number, id, .. } = &self.effect;
        let Position { watermark, ahead, .. } = &self.position;
        write!(f, "{number} ({id}) by process {run}, at {watermark} and ahead [{}]", ahead.encode())
    }
}

impl Verdict {
    /// Whether the guarantees held.
    pub fn holds(&self) -> bool {
        self.lost.is_empty()
            && self.invented.is_empty()
            && self.duplicates <= self.duplicates_max
            && self.settled_again.is_empty()
            && self.lower.is_empty()
            && self.disordered.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  lost                         {}", some(&self.lost))?;
        writeln!(f, "  never appended               {}", some(&self.invented))?;
        writeln!(f, "  duplicates                   {} (at most {})", self.duplicates, self.duplicates_max)?;
        writeln!(f, "  of these by the same process {}", self.by_the_same)?;
        writeln!(f, "  settled, and handled again   {}", some(&self.settled_again))?;
        writeln!(f, "  watermark seen lower         {}", some(&self.lower))?;
        write!(f, "  out of order                 {}", some(&self.disordered))
    }
}

/// How many, and the first of them.
fn some<T: fmt::Display>(all: &[T]) -> String {
    const SHOWN: usize = 4;
    let first: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    match all.len() {
        0 => "0".to_owned(),
        n => format!("{n}: {}{}", first.join(", "), if n > SHOWN { ", …" } else { "" }),
    }
}

/// Reads the file of effects: a line `run number id` for each call of the handler.
pub fn read_effects(text: &str) -> Result<Vec<Effect>, String> {
    let mut at = 0;
    let mut effects = Vec::new();
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let mut parse = || {
            let run = words.next()?.parse().ok()?;
            let number = words.next()?.parse().ok()?;
            let id = words.next()?.parse().ok()?;
            line.ends_with('\n').then_some(Effect { run, number, id, at })
        };
        effects.push(parse().ok_or_else(|| format!("a torn line in the file of effects: {line:?}"))?);
        at += line.len() as u64;
    }
    Ok(effects)
}

/// Holds the evidence against the guarantees.
pub fn audit(evidence: &Evidence<'_>) -> Verdict {
    let mut handled = HashSet::new();
    let mut handled_by = HashSet::new();
    let (mut duplicates, mut by_the_same) = (0, 0);
    for effect in evidence.effects {
        duplicates += u64::from(!handled.insert(effect.number));
        by_the_same += u64::from(!handled_by.insert((effect.run, effect.number)));
    }
    let known = 1..=evidence.entries;
    let mut invented: Vec<_> = handled.iter().copied().filter(|n| !known.contains(n)).collect();
    invented.sort_unstable();
    Verdict {
        lost: known.filter(|n| !handled.contains(n)).collect(),
        invented,
        duplicates,
        by_the_same,
        duplicates_max: evidence.faults.iter().map(|fault| may_repeat(evidence.effects, fault)).sum(),
        settled_again: settled_again(evidence),
        lower: lower(evidence.sightings),
        disordered: disordered(evidence),
    }
}

/// How many entries may come again after a fault.
fn may_repeat(effects: &[Effect], fault: &Fault) -> u64 {
    let count = |unsaved: &mut dyn Iterator<Item = &Effect>| {
        let distinct: HashSet<_> = unsaved.map(|e| e.number).collect();
        distinct.len() as u64
    };
    match fault {
        Fault::Pending { run, ids } => {
            count(&mut effects.iter().filter(|e| e.run == *run && ids.contains(&e.id)))
        }
        Fault::Unsaved { seen, in_flight } => {
            let before = &effects[..effects.partition_point(|e| e.at < seen.effects_len)];
            count(&mut before.iter().filter(|e| !seen.position.settles(e.id))) + in_flight
        }
    }
}

/// Effects that came after a checkpoint was seen that already settled them. Checkpoints only rise, so the last one that was
/// seen before an effect decides.
fn settled_again(evidence: &Evidence<'_>) -> Vec<Again> {
    let mut sightings = evidence.sightings.iter().peekable();
    let mut last: Option<&Sighting> = None;
    let mut again = Vec::new();
    for effect in evidence.effects {
        while let Some(next) = sightings.next_if(|s| s.effects_len <= effect.at) {
            last = Some(next);
        }
        if let Some(seen) = last.filter(|seen| seen.position.settles(effect.id)) {
            again.push(Again { effect: effect.clone(), position: seen.position.clone() });
        }
    }
    again
}

fn lower(sightings: &[Sighting]) -> Vec<EntryId> {
    let mut highest = EntryId::ZERO;
    let mut lower = Vec::new();
    for Sighting { position, .. } in sightings {
        if position.watermark < highest {
            lower.push(position.watermark);
        }
        highest = highest.max(position.watermark);
    }
    lower
}

/// An exclusive owner handles entry after entry, and begins at latest with the first that nobody has handled. In a shared
/// subscription the entries of a dead consumer come when they are claimed.
fn disordered(evidence: &Evidence<'_>) -> Vec<u64> {
    let mut disordered = Vec::new();
    if evidence.ownership == Ownership::Shared {
        return disordered;
    }
    let mut highest = 0;
    let mut before: Option<&Effect> = None;
    for effect in evidence.effects {
        let in_order = match before {
            Some(before) if before.run == effect.run => effect.number == before.number + 1,
            _ => effect.number <= highest + 1,
        };
        if !in_order {
            disordered.push(effect.number);
        }
        highest = highest.max(effect.number);
        before = Some(effect);
    }
    disordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Effects in the form `run:number`, entry `n` having the id `n-0`; each line takes 10 bytes.
    fn effects(list: &[(u32, u64)]) -> Vec<Effect> {
        let effect = |(i, (run, number)): (usize, &(u32, u64))| Effect {
            run: *run,
            number: *number,
            id: EntryId::new(*number, 0),
            at: i as u64 * 10,
        };
        list.iter().enumerate().map(effect).collect()
    }

    fn sighting(effects: u64, watermark: u64) -> Sighting {
        Sighting { effects_len: effects * 10, position: Position::at(EntryId::new(watermark, 0)) }
    }

    fn verdict(
        ownership: Ownership,
        effects: &[Effect],
        sightings: &[Sighting],
        faults: &[Fault],
    ) -> Verdict {
        audit(&Evidence { ownership, entries: 4, effects, sightings, faults })
    }

    #[test]
    fn a_good_run_holds() {
        // Killed when 1 and 2 were handled and 1 was saved: 2 may come again.
        let effects = effects(&[(1, 1), (1, 2), (2, 2), (2, 3), (2, 4)]);
        let sightings = [sighting(1, 0), sighting(2, 1), sighting(5, 4)];
        let fault = Fault::Unsaved { seen: sighting(2, 1), in_flight: 0 };
        let verdict = verdict(Ownership::Exclusive, &effects, &sightings, &[fault]);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.duplicates, verdict.duplicates_max), (1, 1));
    }

    #[test]
    fn losses_and_inventions_are_found() {
        let effects = effects(&[(1, 1), (1, 2), (1, 4), (1, 9)]);
        let verdict = verdict(Ownership::Shared, &effects, &[], &[]);
        assert_eq!((verdict.lost.as_slice(), verdict.invented.as_slice()), (&[3][..], &[9][..]));
        assert!(!verdict.holds());
    }

    #[test]
    fn a_duplicate_without_a_fault_is_found() {
        let effects = effects(&[(1, 1), (1, 2), (1, 2), (1, 3), (1, 4)]);
        let verdict = verdict(Ownership::Shared, &effects, &[], &[]);
        assert_eq!((verdict.duplicates, verdict.duplicates_max, verdict.holds()), (1, 0, false));
        assert_eq!(verdict.by_the_same, 1);
    }

    #[test]
    fn what_was_pending_at_a_kill_may_come_again() {
        let effects = effects(&[(1, 1), (1, 2), (1, 3), (2, 2), (2, 4), (2, 3)]);
        let ids = HashSet::from([EntryId::new(2, 0), EntryId::new(4, 0)]);
        // 2 was handled and pending; 3 was acked, and 4 was never handled before.
        let verdict = verdict(Ownership::Shared, &effects, &[], &[Fault::Pending { run: 1, ids }]);
        assert_eq!((verdict.duplicates, verdict.duplicates_max, verdict.holds()), (2, 1, false));
    }

    #[test]
    fn what_was_settled_must_not_come_again() {
        let effects = effects(&[(1, 1), (1, 2), (2, 1), (2, 3), (2, 4)]);
        let fault = Fault::Unsaved { seen: sighting(2, 0), in_flight: 0 };
        // The observer saw 1 settled before it came again, although the bound would allow it.
        let found = verdict(Ownership::Shared, &effects, &[sighting(2, 1)], std::slice::from_ref(&fault));
        assert_eq!((found.settled_again[0].effect.number, found.holds()), (1, false));
        assert_eq!(found.settled_again[0].to_string(), "1 (1-0) by process 2, at 1-0 and ahead []");
        // Seen when the file was longer: it may have been settled after it came again.
        let unseen = verdict(Ownership::Shared, &effects, &[sighting(3, 1)], &[fault]);
        assert!(unseen.holds(), "{unseen}");
    }

    #[test]
    fn a_lower_watermark_is_found() {
        let effects = effects(&[(1, 1), (1, 2), (1, 3), (1, 4)]);
        let sightings = [sighting(4, 3), sighting(4, 2), sighting(4, 4)];
        let verdict = verdict(Ownership::Shared, &effects, &sightings, &[]);
        assert_eq!((verdict.lower.as_slice(), verdict.holds()), (&[EntryId::new(2, 0)][..], false));
    }

    #[test]
    fn disorder_is_found_where_there_is_an_order() {
        let swapped = effects(&[(1, 1), (1, 3), (1, 2), (1, 4)]);
        assert_eq!(verdict(Ownership::Exclusive, &swapped, &[], &[]).disordered, [3, 2, 4]);
        assert!(verdict(Ownership::Shared, &swapped, &[], &[]).holds());
        let skipped_at_restart = effects(&[(1, 1), (2, 3), (2, 4), (3, 2)]);
        assert_eq!(verdict(Ownership::Exclusive, &skipped_at_restart, &[], &[]).disordered, [3]);
    }

    #[test]
    fn effects_are_read_with_their_places_and_torn_lines_are_errors() {
        let read = read_effects("1 1 5-0\n12 2 5-1\n").unwrap();
        assert_eq!(read[1], Effect { run: 12, number: 2, id: EntryId::new(5, 1), at: 8 });
        assert!(read_effects("1 1 5-0\n1 2 5-").is_err());
        assert!(read_effects("1 1 5-0\n1 2 5-1").is_err(), "the id may have been longer");
        assert!(read_effects("1 21 1 5-0 \nx\n").is_err());
    }
}
