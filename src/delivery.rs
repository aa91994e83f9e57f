//! One hand-over of an entry.

use crate::{Entry, EntryId, Fields};

/// One hand-over of one entry to a handler.
///
/// Cloning is cheap: the bytes are shared.
///
/// ```
/// use highwater::{Delivery, Entry, EntryId, Fields};
///
/// // As a test of a handler makes one.
/// let entry = Entry::new(EntryId::new(1, 0), Fields::from_iter([("kind", "order")]));
/// assert!(!Delivery::new(entry.clone(), 1).is_redelivery());
/// assert!(Delivery::new(entry, 2).is_redelivery(), "the server has delivered it before");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The entry.
    pub entry: Entry,
    /// How often the entry was delivered, by the server's count where it keeps one. 1 is the first delivery.
    pub deliveries: u64,
    /// Which attempt this is: one more than the handler has failed with the entry, in whatever process, as far as that is known.
    pub attempt: u32,
    /// Whether a transaction for it was begun whose end is not an attempt: it may have taken place.
    pub(crate) begun: bool,
    /// Whether it is started apart from others.
    pub(crate) care: Care,
}

/// How a delivery is to be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Care {
    /// Like all others.
    #[default]
    None,
    /// A process may have died of it, or of one beside it: noted before it starts, and together with its like.
    Suspect,
    /// As a suspect, and by itself.
    Alone,
    /// By itself: its batch has failed, and nobody knows which entry is at fault.
    Isolated,
}

impl Care {
    /// Whether a crash would be its fault.
    pub(crate) fn is_suspect(self) -> bool {
        matches!(self, Self::Suspect | Self::Alone)
    }

    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Alone | Self::Isolated)
    }
}

impl Delivery {
    /// The first attempt at this entry.
    #[must_use]
    pub fn new(entry: Entry, deliveries: u64) -> Self {
        Self { entry, deliveries, attempt: 1, begun: false, care: Care::None }
    }

    /// The id of the entry.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.entry.id
    }

    /// The fields of the entry.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.entry.fields
    }

    /// Whether somebody may have seen the entry before: another delivery of it came first, or another attempt.
    #[must_use]
    pub fn is_redelivery(&self) -> bool {
        self.deliveries > 1 || self.attempt > 1 || self.begun
    }
}
