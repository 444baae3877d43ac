//! What happened, in order: a bounded ring.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use crate::limits::JOURNAL_MAX;
use crate::model::Nanos;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// When, in model time.
    pub(crate) at_ns: Nanos,
    /// Who.
    pub(crate) pid: u32,
    /// What: an entry point's name, or the server's own word for a request.
    pub(crate) call: Arc<str>,
    /// The kernel, the size, the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<Arc<str>>,
    /// Bytes, where it is about bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// `CUresult` or `nvmlReturn_t`.
    pub(crate) status: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    dropped: u64,
}

impl Journal {
    pub(crate) fn note(&mut self, entry: Entry) {
        if self.entries.len() == JOURNAL_MAX {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({"simulated": true, "dropped": self.dropped, "entries": self.entries})
    }
}
