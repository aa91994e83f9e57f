//! Dead letters: who may have one, and that nothing else becomes of an entry that has.

use super::{
    actor::TTL,
    facts::{Fact, Facts, KEYS, Verdict, number},
    plan::{Ordering, Store},
    world::{World, pick, take, typed},
};
use crate::{
    DeathReason, Entry, EntryId, Fields, HandlerError, Letter, Ownership, StreamName,
    backend::{Read, Redrive, RedriveLetter, Redriven},
    dead_letter_stream,
};

/// No sequence has more.
const LETTERS_MAX: usize = 1_000;

/// A letter that lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grave {
    letter: EntryId,
    key: Option<u64>,
    /// The checkpoint was set back before it since: it comes again.
    pub(super) old: bool,
    /// It may have been under way at a reset. An owner's letter carries no epoch, so it comes all the same, and so does its entry.
    late: bool,
}

/// What an entry carries.
pub(super) fn fields_of(n: u64) -> Fields {
    Fields::from_iter([("n", n.to_string()), ("k", (n % KEYS).to_string())])
}

impl World {
    pub(super) fn graveyard(&self) -> StreamName {
        dead_letter_stream(&self.subscription).expect("the names of the model are short")
    }

    pub(super) fn reject(&mut self, nth: u8) {
        let Some((Some(n), call)) = take(&mut self.out, nth) else { return };
        let fact = self.facts.fact(n);
        (fact.rejected, fact.failures) = (true, fact.failures + 1);
        // Who has gone needs no verdict.
        let _ = call.verdict.send(Err(HandlerError::reject("the model says so")));
    }

    /// Others may have claimed the entry while its consumer was away.
    pub(super) async fn late_reject(&mut self, nth: u8) {
        let who = pick(&mut self.out, nth).map(|(_, call)| call.who);
        let Some(at) = self.actors.iter().position(|actor| Some(actor.witness.who) == who) else { return };
        self.actors[at].away(Store::Both);
        self.sleep(TTL + TTL / 3).await;
        self.reject(nth);
        self.actors[at].back();
    }

    /// Takes in the letters that came since.
    pub(super) async fn read_letters(&mut self) -> Verdict {
        if !self.facts.any_rejected() {
            // Most steps need no call for it. Whether there are any then, is seen at the end.
            return Ok(());
        }
        let letters = self.letters(self.last_letter).await?;
        if !letters.is_empty() {
            // What was committed before them.
            self.read_rows().await?;
        }
        for entry in letters {
            self.last_letter = entry.id;
            let letter = Letter::from_entry(&entry).map_err(|error| format!("G11: {error}"))?;
            let writer =
                self.actors.iter().find(|actor| letter.consumer.as_str() == name_of(actor.witness.who));
            // After a reset, a letter may be of a session that did not know of it yet.
            let is_of_now = writer.is_some() && self.facts.era == 0;
            // An owner of before goes on for its time to live at most.
            let is_late = !self.is_shared() && self.reset_at.is_some_and(|at| self.now() < at + TTL * 3);
            self.facts.buried(entry.id, &letter, is_of_now, is_late)?;
        }
        Ok(())
    }

    /// Letters last: those that lie there are those that are known.
    pub(super) async fn read_all_letters(&mut self) -> Verdict {
        self.read_letters().await?;
        let lying: Vec<_> = self.letters(EntryId::ZERO).await?.iter().map(|entry| entry.id).collect();
        let mut known: Vec<_> = self.facts.graves().map(|(_, grave)| grave.letter).collect();
        known.sort_unstable();
        if lying == known { Ok(()) } else { Err(format!("G11: {lying:?} lie there, and not {known:?}")) }
    }

    async fn letters(&self, after: EntryId) -> Verdict<Vec<Entry>> {
        self.stores.stream.read(&Read::new(self.graveyard(), after, LETTERS_MAX)).await.map_err(typed)
    }

    /// An operator takes a letter out.
    pub(super) async fn redrive(&mut self, nth: u8, append: bool) -> Verdict {
        self.look().await?;
        let mut graves: Vec<_> = self.facts.graves().map(|(n, grave)| (n, grave.clone())).collect();
        let Some((n, grave)) = take(&mut graves, nth) else { return Ok(()) };
        // Longer than the checkpoint says, a new stream looks like the old one where streams have no names.
        let append = append && self.facts.stale.is_none();
        let new = self.facts.entries.len() as u64;
        let letter = RedriveLetter::new(grave.letter, self.facts.fact(n).id, grave.key)
            .append(append.then(|| fields_of(new)));
        let request = Redrive::new(self.subscription.clone(), self.graveyard(), vec![letter]);
        let redriven = self.stores.stream.redrive(&request).await.map_err(typed)?;
        match redriven[..] {
            [Redriven::Appended(id)] if append => {
                self.facts.next_ms = id.ms + 1;
                self.facts.entries.push(Fact::new(id, self.facts.life));
            }
            [Redriven::Dropped] if !append => {}
            _ => return Err(format!("G11: the letter of {n} lies there, and it was {redriven:?}")),
        }
        self.facts.fact(n).lies = None;
        let again = self.stores.stream.redrive(&request).await.map_err(typed)?;
        if again != [Redriven::Gone] {
            return Err(format!("G11: the letter of {n} was out, and then it was {again:?}"));
        }
        Ok(())
    }

    /// A handler is about to succeed with an entry. Where that has a letter, another consumer held it: then this one has lost it.
    pub(super) fn suspect(&mut self, n: u64, who: usize) {
        let (era, in_doubt) = (self.facts.era, self.facts.in_doubt);
        let Some(actor) = self.actors.iter().find(|actor| actor.witness.who == who) else { return };
        let is_known = actor.witness.forgiven || actor.witness.era != era;
        let fact = self.facts.fact(n);
        let is_there = fact.lies.as_ref().is_some_and(|grave| !grave.old && !grave.late);
        // Whether what it did in a transaction is committed, is not known yet.
        if is_there && !is_known && !self.setup.transactional && fact.id > in_doubt {
            self.suspects.push((who, n));
        }
    }

    /// It has ended, and will never learn what it has lost.
    pub(super) fn acquit(&mut self, who: usize) {
        self.suspects.retain(|(suspect, _)| *suspect != who);
    }

    /// G4: who lost an entry to another that buried it, learns that by its next heartbeat.
    pub(super) async fn judge(&mut self) -> Verdict {
        if !self.suspects.is_empty() {
            self.sleep(TTL).await;
            self.observe().await?;
        }
        match self.suspects.first() {
            Some((who, n)) => {
                let id = self.facts.fact(*n).id;
                Err(format!("G4: {id} was dead-lettered while consumer {who} held it"))
            }
            None => Ok(()),
        }
    }
}

fn name_of(who: usize) -> String {
    format!("c{who}")
}

impl Facts {
    pub(super) fn any_rejected(&self) -> bool {
        self.entries.iter().any(|fact| fact.rejected)
    }

    /// The letters that lie there, with the numbers of their entries.
    fn graves(&self) -> impl Iterator<Item = (u64, &Grave)> {
        (0..).zip(&self.entries).filter_map(|(n, fact)| Some((n, fact.lies.as_ref()?)))
    }

    /// A letter has come: G11.
    fn buried(&mut self, at: EntryId, letter: &Letter, is_of_now: bool, late: bool) -> Verdict {
        let number = number(&letter.fields).and_then(|n| usize::try_from(n).ok());
        let known = number.and_then(|n| Some((n as u64, self.entries.get(n)?)));
        let Some((n, fact)) = known else { return Err(format!("G11: a letter of no entry: {letter:?}")) };
        if fact.id != letter.id || letter.fields != fields_of(n) {
            return Err(format!("G11: the letter of {} is {letter:?}", fact.id));
        }
        if let Some(grave) = &fact.lies {
            return Err(format!("G11: {} has a letter at {}, and one at {at}", fact.id, grave.letter));
        }
        let may = match letter.reason {
            DeathReason::Rejected => fact.rejected,
            // Behind another of its key, whatever became of that one since.
            DeathReason::Parked => self.parked_behind(n),
            _ => false,
        };
        if !may {
            return Err(format!("G11: {} did not die of this: {letter:?}", fact.id));
        }
        // What fails in a transaction may not be the handler.
        if letter.attempts > fact.failures && !self.setup.transactional {
            return Err(format!("G11: {} failed {} times: {letter:?}", fact.id, fact.failures));
        }
        if is_of_now && fact.life == self.life {
            self.in_order(n, fact).map_err(|error| format!("{error}, {}", letter.reason))?;
        }
        let is_exclusive = self.setup.ownership == Ownership::Exclusive;
        // A letter carries no epoch. One that was under way at a reset comes all the same, and the entry was handled since.
        if self.setup.transactional && is_exclusive && self.era == 0 && fact.handled > 0 {
            return Err(format!("G9: {} took effect, and was dead-lettered", fact.id));
        }
        let fact = self.fact(n);
        (fact.dead, fact.lies) = (true, Some(Grave { letter: at, key: letter.key, old: false, late }));
        Ok(())
    }

    fn parked_behind(&self, n: u64) -> bool {
        let of_its_key = (0..).zip(&self.entries).filter(|(m, _)| m % KEYS == n % KEYS);
        self.parks() && of_its_key.into_iter().any(|(_, fact)| fact.rejected)
    }

    fn parks(&self) -> bool {
        self.setup.parks && self.setup.ordering == Ordering::Keyed
    }

    /// G10: nothing is handled behind a letter of its key, where that parks.
    pub(super) fn is_free(&self, n: u64, fact: &Fact) -> Verdict {
        if !self.parks() || self.setup.ownership == Ownership::Shared {
            return Ok(());
        }
        match self.graves().find(|(m, grave)| *m < n && m % KEYS == n % KEYS && !grave.late) {
            Some((m, _)) => Err(format!("G10: {} is handled, and {m} before it lies there", fact.id)),
            None => Ok(()),
        }
    }
}
