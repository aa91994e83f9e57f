//! What a consumer learns before it begins.

use super::{DeadLetters, Ownership, context::Context, machine::Machine};
use crate::{
    Attempts, EntryId, Position, Result,
    backend::{DeadKeys, LoadAttempts, NoteAttempts},
};

/// Stands among the attempts while an owner runs. No entry has this id.
pub(crate) const RUNNING: EntryId = EntryId::ZERO;

/// What a consumer knows when it begins.
#[derive(Debug)]
pub(crate) struct Entered {
    /// Where to go on.
    pub(crate) position: Position,
    /// What is remembered of attempts.
    attempts: Vec<Attempts>,
    /// The keys that have dead letters.
    dead_keys: Vec<u64>,
    /// Exclusive: the owner before did not end in order, and may have started what lies up to there.
    unclean: Option<EntryId>,
    /// What earlier sessions of this process were to be blamed for, had it died.
    outlived: Vec<EntryId>,
}

impl Entered {
    pub(super) async fn recall(context: &Context, position: Position) -> Result<Self> {
        let subscription = context.subscription.clone();
        let mut attempts = context.store.attempts(&LoadAttempts::all(subscription.clone())).await?;
        let running = attempts.extract_if(.., |attempts| attempts.id == RUNNING).count() > 0;
        let last_id = context.state().map(|state| state.last_id);
        let unclean = last_id.filter(|_| running);
        if context.settings.ownership == Ownership::Exclusive && !running {
            // Should this process be killed, the next owner finds it.
            let note = Attempts { crashes: 1, ..Attempts::new(RUNNING) };
            let request = NoteAttempts::new(subscription.clone(), context.epoch(), vec![note], Vec::new());
            context.store.note_attempts(&request).await?;
        }
        let dead_keys = match &context.dead {
            DeadLetters::Stream(from) if context.settings.parked_entries_max > 0 => {
                let request = DeadKeys::new(subscription, from.clone());
                context.stream.dead_keys(&request).await?.into_iter().map(|(key, _)| key).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self { position, attempts, dead_keys, unclean, outlived: context.outlived() })
    }

    /// Tells the machine before anything comes in.
    pub(crate) fn tell(self, machine: &mut Machine) {
        machine.begin(self.attempts, self.dead_keys, self.unclean, self.outlived);
    }
}
