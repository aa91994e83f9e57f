//! Dead letters: what lies in their streams is an entry like another; this is what is known of it beside.

use std::collections::{BTreeMap, BTreeSet};

use super::state::State;
use crate::{
    EntryId, Error, Fields, Result, StreamName, Subscription,
    backend::{BuryLetters, Fate, NewEntry, NewLetter, Redrive, RedriveLetter, Redriven},
};

/// The dead letters of a subscription in one stream.
#[derive(Debug, Default)]
pub(super) struct Graves {
    /// The letter of an entry.
    letters: BTreeMap<EntryId, EntryId>,
    /// The letters of a key.
    keys: BTreeMap<u64, BTreeSet<EntryId>>,
}

/// The dead letters of a stream are not in the stream itself.
pub(super) fn apart(subscription: &Subscription, letters: &StreamName) -> Result<()> {
    if subscription.stream == *letters {
        let message = "the dead letters of a stream cannot be in the stream itself: name another one";
        return Err(Error::invalid(message).with("stream", letters));
    }
    Ok(())
}

impl State {
    pub(super) fn bury(&mut self, request: &BuryLetters, now_ms: u64) -> Result<Vec<Fate>> {
        let fates = request.letters.iter().map(|letter| self.bury_one(request, letter, now_ms)).collect();
        self.notify(&request.into);
        fates
    }

    fn bury_one(&mut self, request: &BuryLetters, letter: &NewLetter, now_ms: u64) -> Result<Fate> {
        let BuryLetters { subscription, into, holder, parked_max, .. } = request;
        if self.lies(request, letter) {
            self.ack(subscription, letter.id);
            return Ok(Fate::Buried);
        }
        if let Some(holder) = holder {
            let group = self.group_mut(subscription).ok();
            if group.and_then(|group| group.pending.get(&letter.id)).is_none_or(|p| p.owner != *holder) {
                return Ok(Fate::NotHeld);
            }
        }
        if letter.parked {
            let keys = self.dead_keys(subscription, into);
            if !keys.iter().any(|(key, _)| Some(*key) == letter.key) {
                return Ok(Fate::Unparked);
            }
            if keys.iter().map(|(_, letters)| letters).sum::<u64>() >= *parked_max {
                return Ok(Fate::Full);
            }
        }
        let at = self.create(into).append(&NewEntry::new(letter.fields.clone()), now_ms)?;
        let graves = self.graves.entry((subscription.clone(), into.clone())).or_default();
        graves.letters.insert(letter.id, at);
        if let Some(key) = letter.key {
            graves.keys.entry(key).or_default().insert(at);
        }
        self.ack(subscription, letter.id);
        Ok(Fate::Buried)
    }

    /// Whether there is a letter of this very entry. One of another life of the stream may have had its id.
    fn lies(&self, request: &BuryLetters, letter: &NewLetter) -> bool {
        let graves = self.graves.get(&(request.subscription.clone(), request.into.clone()));
        let at = graves.and_then(|graves| graves.letters.get(&letter.id));
        let own = |fields: &Fields| fields.iter().take(letter.own).cloned().collect::<Vec<_>>();
        at.and_then(|&at| self.log(&request.into)?.fields(at))
            .is_some_and(|fields| fields.len() == letter.fields.len() && own(fields) == own(&letter.fields))
    }

    fn ack(&mut self, subscription: &Subscription, id: EntryId) {
        if let Ok(group) = self.group_mut(subscription) {
            group.pending.remove(&id);
        }
    }

    pub(super) fn dead_keys(&mut self, subscription: &Subscription, from: &StreamName) -> Vec<(u64, u64)> {
        let place = (subscription.clone(), from.clone());
        let Some(mut graves) = self.graves.remove(&place) else { return Vec::new() };
        let lies = |id| self.log(from).is_some_and(|log| log.fields(id).is_some());
        graves.keys.retain(|_, letters| {
            letters.retain(|&letter| lies(letter));
            !letters.is_empty()
        });
        let keys = graves.keys.iter().map(|(&key, letters)| (key, letters.len() as u64)).collect();
        self.graves.insert(place, graves);
        keys
    }

    pub(super) fn redrive(&mut self, request: &Redrive, now_ms: u64) -> Result<Vec<Redriven>> {
        let redriven =
            request.letters.iter().map(|letter| self.redrive_one(request, letter, now_ms)).collect();
        self.notify(&request.subscription.stream);
        redriven
    }

    fn redrive_one(&mut self, request: &Redrive, letter: &RedriveLetter, now_ms: u64) -> Result<Redriven> {
        let is_there = self.log(&request.from).is_some_and(|log| log.fields(letter.letter).is_some());
        if !is_there {
            return Ok(Redriven::Gone);
        }
        let appended = match &letter.append {
            Some(fields) => {
                let stream = self.create(&request.subscription.stream);
                Redriven::Appended(stream.append(&NewEntry::new(fields.clone()), now_ms)?)
            }
            None => Redriven::Dropped,
        };
        if let Some(log) = self.log_mut(&request.from) {
            log.delete(letter.letter);
        }
        if let Some(graves) = self.graves.get_mut(&(request.subscription.clone(), request.from.clone())) {
            graves.forget(letter);
        }
        Ok(appended)
    }
}

impl Graves {
    fn forget(&mut self, letter: &RedriveLetter) {
        if self.letters.get(&letter.id) == Some(&letter.letter) {
            self.letters.remove(&letter.id);
        }
        self.keys.retain(|_, letters| {
            letters.remove(&letter.letter);
            !letters.is_empty()
        });
    }
}
