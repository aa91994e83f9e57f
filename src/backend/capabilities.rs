//! What a stream backend can do, as it found out when it connected.

/// What a stream backend can do. Probed by command at connect, never read from a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCapabilities {
    /// What was appended survives the process.
    pub durable: bool,
    /// [`StreamState::entries_added`](super::StreamState::entries_added) is known, so that losses can be counted.
    pub counts_entries: bool,
    /// [`StreamState::incarnation`](super::StreamState::incarnation) is known.
    pub names_incarnations: bool,
}

impl StreamCapabilities {
    /// Nothing beyond the contract of the trait.
    #[must_use]
    pub const fn none() -> Self {
        Self { durable: false, counts_entries: false, names_incarnations: false }
    }

    /// With these answers.
    #[must_use]
    pub const fn with(mut self, durable: bool, counts_entries: bool, names_incarnations: bool) -> Self {
        self.durable = durable;
        self.counts_entries = counts_entries;
        self.names_incarnations = names_incarnations;
        self
    }
}
