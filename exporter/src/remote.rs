//! Remote sessions: the part of the snapshot that the daemons which carry them know, and its samples.

use crate::families::{Sink, Value};
use crate::snapshot::Snapshot;

/// What is known of remote sessions. Roles are `borrower` and `lender`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Remote {
    /// Sessions now: role, tenant, the other node's district.
    pub sessions: Vec<(&'static str, String, String, u64)>,
    /// Bytes of frames: role, the other district, direction, kind.
    pub bytes: Vec<(&'static str, String, &'static str, &'static str, u64)>,
    /// Sessions begun, by role.
    pub begun: Vec<(&'static str, u64)>,
    /// Sessions ended: role, how. Every way is listed, zero or not.
    pub ended: Vec<(&'static str, &'static str, u64)>,
    /// Sessions refused: role, reason. Every reason is listed, zero or not.
    pub refused: Vec<(&'static str, &'static str, u64)>,
    /// Connections that broke, by role.
    pub lost: Vec<(&'static str, u64)>,
    /// Sessions that went on over another connection, by role.
    pub resumed: Vec<(&'static str, u64)>,
    /// Sessions whose device was taken back and whose memory was kept, by role.
    pub aside: Vec<(&'static str, u64)>,
    /// Of these, those that went on under another loan, by role.
    pub returned: Vec<(&'static str, u64)>,
}

fn each(snapshot: &Snapshot, sample: impl FnOnce(&Remote)) {
    if let Some(remote) = &snapshot.remote {
        sample(remote);
    }
}

pub(crate) fn sessions(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |remote| {
        for (role, tenant, peer, count) in &remote.sessions {
            sink(&[role, tenant, peer], Value::Whole(*count));
        }
    });
}

pub(crate) fn bytes(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |remote| {
        for (role, peer, direction, kind, count) in &remote.bytes {
            sink(&[role, peer, direction, kind], Value::Whole(*count));
        }
    });
}

pub(crate) fn by_role(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Remote) -> &[(&'static str, u64)]) {
    each(snapshot, |remote| of(remote).iter().for_each(|(role, count)| sink(&[role], Value::Whole(*count))));
}

pub(crate) fn by_word(
    snapshot: &Snapshot,
    sink: &mut Sink<'_>,
    of: fn(&Remote) -> &[(&'static str, &'static str, u64)],
) {
    each(snapshot, |remote| {
        of(remote).iter().for_each(|(role, word, count)| sink(&[role, word], Value::Whole(*count)));
    });
}
