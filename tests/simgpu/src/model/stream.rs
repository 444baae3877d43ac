//! A stream: operations in order, of which only the first is ever looked at.

use std::collections::VecDeque;

use super::{ContextId, Mark, Part, StreamId, StreamKind, Work};

/// Where the first operation of a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Not looked at, or waiting for other streams.
    Fresh,
    /// With the compute or a copy engine.
    Engine,
    /// A memory wait that does not hold yet.
    Waiting,
    /// A host function that has not returned yet.
    Host,
}

#[derive(Debug)]
pub(super) struct Pending<P> {
    pub(super) work: Work,
    pub(super) after: Vec<Mark>,
    /// Taken when a host function starts; the others keep theirs to the end.
    pub(super) payload: Option<P>,
}

#[derive(Debug)]
pub(super) struct Stream<P> {
    pub(super) context: ContextId,
    pub(super) kind: StreamKind,
    pub(super) priority: i32,
    pub(super) queue: VecDeque<Pending<P>>,
    pub(super) submitted: u64,
    pub(super) completed: u64,
    pub(super) head: Head,
    /// Streams to look at again when this one moves on.
    pub(super) watchers: Vec<StreamId>,
    pub(super) closing: bool,
    /// The SMs its kernels keep to.
    pub(super) part: Option<Part>,
    /// The context's channel its operations go through.
    pub(super) channel: Option<usize>,
}

impl<P> Stream<P> {
    pub(super) fn new(context: ContextId, kind: StreamKind, priority: i32, completed: u64) -> Self {
        Self {
            context,
            kind,
            priority,
            queue: VecDeque::new(),
            submitted: completed,
            completed,
            head: Head::Fresh,
            watchers: Vec::new(),
            closing: false,
            part: None,
            channel: None,
        }
    }
}
