//! What was appended, what was handled, and what that says: the oracle, which does not ask the library.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    ops::Range,
    time::Instant,
};

use highwater::{EntryId, Observation};

/// How many of the latest notes are kept.
const NOTES_MAX: usize = 400;

/// What the producer knows of an entry. Each number is appended at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// On its way, or nobody can tell.
    Unknown,
    /// The server gave it an id.
    Confirmed,
    /// The server did not take it.
    Refused,
}

/// All that is known of a run, in a few bytes for each entry.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    /// By number, which begin at 1.
    fates: Vec<Fate>,
    handled: Vec<u8>,
    /// Asks for the id of the first entry from this number on.
    awaited: Option<u64>,
    found: Option<(u64, EntryId)>,
    /// Entries with these numbers may have gone with a server that lost them, or because they were deleted.
    destroyed: Vec<Range<u64>>,
    pub seen: Seen,
    notes: VecDeque<String>,
}

/// What the consumers said.
#[derive(Debug, Default)]
pub struct Seen {
    pub reconnects: u64,
    pub gaps: u64,
    pub resets: u64,
    /// Groups that were created, the first one too.
    pub groups: u64,
    pub claimed: u64,
    pub leases_lost: u64,
    /// By the kind of its error: consumers that ended, and were started again as whoever runs processes would.
    pub ended: BTreeMap<String, u64>,
}

impl Seen {
    /// How often consumers said that the stream is not what it was.
    pub fn told(&self) -> u64 {
        self.gaps + self.resets + self.ended.values().sum::<u64>()
    }
}

/// What became of all entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// That the server confirmed.
    pub appended: u64,
    /// That had to come, and did not.
    pub lost: u64,
    /// That nobody could handle any more: the server lost them, or they were deleted.
    pub gone: u64,
    /// Calls beyond the first for each entry.
    pub duplicates: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            fates: Vec::new(),
            handled: Vec::new(),
            awaited: None,
            found: None,
            destroyed: Vec::new(),
            seen: Seen::default(),
            notes: VecDeque::new(),
        }
    }
}

impl Ledger {
    /// So many entries are about to be appended. The number of the first of them.
    pub fn begin(&mut self, count: usize) -> u64 {
        let first = self.next();
        self.fates.resize(self.fates.len() + count, Fate::Unknown);
        first
    }

    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.fates.len() as u64 + 1
    }

    pub fn confirmed(&mut self, number: u64, id: EntryId) {
        self.fates[index(number)] = Fate::Confirmed;
        if self.found.is_none() && self.awaited.is_some_and(|from| number >= from) {
            self.found = Some((number, id));
        }
    }

    pub fn refused(&mut self, number: u64) {
        self.fates[index(number)] = Fate::Refused;
    }

    pub fn handled(&mut self, number: u64) {
        self.handled_times(number, 1);
    }

    pub fn handled_times(&mut self, number: u64, times: u8) {
        let index = index(number);
        if index >= self.handled.len() {
            self.handled.resize(index + 1, 0);
        }
        self.handled[index] = self.handled[index].saturating_add(times);
    }

    /// Asks for the first entry that is appended from now on, behind so many others.
    pub fn await_next(&mut self, others: u64) {
        (self.awaited, self.found) = (Some(self.next() + others), None);
    }

    /// Its number and id, once the server has confirmed it.
    pub fn found(&self) -> Option<(u64, EntryId)> {
        self.found
    }

    /// What was appended from this number on until now may be gone, and nobody is to blame.
    pub fn destroyed(&mut self, from: u64) {
        self.destroyed.push(from..self.next());
    }

    pub fn note(&mut self, what: impl fmt::Display) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(format!("{:8.3} {what}", self.began.elapsed().as_secs_f64()));
    }

    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    /// A consumer ended with an error.
    pub fn ended(&mut self, consumer: usize, error: &highwater::Error) {
        *self.seen.ended.entry(format!("{:?}", error.kind())).or_default() += 1;
        self.note(format_args!("consumer {consumer} ended: {error}"));
    }

    pub fn observe(&mut self, consumer: usize, observation: &Observation<'_>) {
        let seen = &mut self.seen;
        match observation {
            Observation::Unavailable { .. } => seen.reconnects += 1,
            Observation::Gap(_) => seen.gaps += 1,
            Observation::Reset(_) => seen.resets += 1,
            Observation::GroupCreated { .. } => seen.groups += 1,
            Observation::Lost(_) => seen.leases_lost += 1,
            Observation::Claimed(count) => seen.claimed += count,
            Observation::Lapsed | Observation::Acquired | Observation::StandingBy { .. } => {}
            _ => return,
        }
        self.note(format_args!("consumer {consumer}: {observation:?}"));
    }

    /// Holds all against what the stream still has.
    ///
    /// What must have been handled: what the stream has at the end, and what was confirmed and neither deleted nor lost by
    /// the server itself.
    pub fn count(&self, in_stream: &HashSet<u64>) -> Count {
        let mut count = Count::default();
        for (number, fate) in (1..).zip(&self.fates) {
            let confirmed = *fate == Fate::Confirmed;
            let handled = u64::from(self.handled.get(index(number)).copied().unwrap_or(0));
            let there = in_stream.contains(&number);
            count.appended += u64::from(confirmed);
            count.duplicates += handled.saturating_sub(1);
            if self.is_missing(number, there) {
                count.lost += 1;
            } else if handled == 0 && confirmed {
                count.gone += 1;
            }
        }
        count
    }

    /// The first entries that had to come and did not.
    pub fn missing(&self, in_stream: &HashSet<u64>) -> Vec<u64> {
        let must = |number: &u64| self.is_missing(*number, in_stream.contains(number));
        (1..self.next()).filter(must).take(8).collect()
    }

    fn is_missing(&self, number: u64, is_in_stream: bool) -> bool {
        let confirmed = self.fates[index(number)] == Fate::Confirmed;
        let handled = self.handled.get(index(number)).is_some_and(|times| *times > 0);
        let excused = || self.destroyed.iter().any(|numbers| numbers.contains(&number));
        !handled && (is_in_stream || (confirmed && !excused()))
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number - 1).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// Numbers 1 to 5: 3 has an unknown fate, and 5 was refused.
    fn five() -> Ledger {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(5), 1);
        [1, 2, 4].into_iter().for_each(|number| ledger.confirmed(number, id(number)));
        ledger.refused(5);
        ledger
    }

    #[test]
    fn what_was_confirmed_or_is_there_must_have_been_handled() {
        let mut ledger = five();
        ledger.handled(1);
        ledger.handled(1);
        let count = |ledger: &Ledger, there: &[u64]| ledger.count(&there.iter().copied().collect());
        let expected = Count { appended: 3, lost: 2, gone: 0, duplicates: 1 };
        assert_eq!(count(&ledger, &[]), expected, "2 and 4, whether trimmed or not");
        assert_eq!(count(&ledger, &[3]).lost, 3, "3 was taken after all");
        assert_eq!(ledger.missing(&[3].into()), [2, 3, 4]);
        [2, 3, 4].into_iter().for_each(|number| ledger.handled(number));
        assert_eq!(count(&ledger, &[1, 2, 3, 4]).lost, 0);
    }

    #[test]
    fn what_was_destroyed_is_gone_and_what_survived_is_not() {
        let mut ledger = five();
        ledger.destroyed(2);
        assert_eq!(ledger.begin(1), 6);
        ledger.confirmed(6, id(6));
        let count = ledger.count(&[2].into());
        assert_eq!((count.lost, count.gone), (3, 1), "1 was settled, 2 is there, 6 came later; 4 is gone");
    }

    #[test]
    fn the_first_of_the_next_is_found() {
        let mut ledger = five();
        ledger.await_next(0);
        ledger.begin(2);
        ledger.confirmed(4, id(4));
        assert_eq!(ledger.found(), None, "it was appended before");
        ledger.confirmed(7, id(7));
        ledger.confirmed(6, id(6));
        assert_eq!(ledger.found(), Some((7, id(7))), "the first that the server confirmed");
    }
}
