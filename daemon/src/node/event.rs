//! What can happen to a node.

use std::sync::Arc;
use std::time::Duration;

use headgate_abi::segment::SeatIndex;
use headgate_abi::wire::{Hello, RefusalReason};
use headgate_quota::loan::Incident;
use headgate_quota::{Bytes, Micros};
use serde::{Deserialize, Serialize};

use super::loans::DeviceLoans;
use super::state::SeatRef;
use crate::config::model::Name;
use crate::config::{Config, model::DeviceUuid};
use crate::space::Standing;

/// A connection to the control socket, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// A request on the admin socket, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub u64);

/// A process for certain: its id and when it started, in clock ticks since boot. Ids are reused, pairs are not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub start_ticks: u64,
}

/// What the kernel says about a process that says hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The process.
    pub process: Process,
    /// Its cgroup below the cgroup2 root; `None` where the kernel has no cgroup2.
    pub cgroup: Option<String>,
    /// Its parent, its parent's parent and so on, nearest first.
    pub ancestors: Vec<Process>,
}

/// What discovery says about a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceFacts {
    /// UUID.
    pub uuid: DeviceUuid,
    /// Product name.
    pub name: String,
    /// Bytes of memory.
    pub memory: Bytes,
}

/// A process that has memory on a device, by the driver's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resident {
    /// The device.
    pub gpu: DeviceUuid,
    /// The process.
    pub peer: Peer,
    /// What the driver says it has there.
    pub bytes: Bytes,
}

/// A seat found in a ledger of an earlier run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdoptedSeat {
    /// Which seat.
    pub seat: SeatIndex,
    /// Which taking of it.
    pub generation: u64,
    /// Who sits there, when that process is alive and has this very ledger mapped.
    pub peer: Option<Peer>,
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A valid configuration was read, at this time since 1970.
    Configured {
        /// The whole configuration.
        config: Arc<Config>,
        /// Identifies its content.
        hash: String,
        /// When.
        at: Duration,
    },
    /// The configuration was read and is wrong; the last good one stays.
    ConfigRejected {
        /// What is wrong with it.
        text: String,
    },
    /// These devices are present.
    Devices(Vec<DeviceFacts>),
    /// Devices cannot be discovered.
    DevicesMissing {
        /// Why, and what to do.
        reason: String,
    },
    /// Who has memory on the devices; `None` while the driver cannot tell.
    Residents(Option<Vec<Resident>>),
    /// A ledger of an earlier run is still in use.
    LedgerFound {
        /// The tenant it was made for.
        tenant: String,
        /// Its seats.
        seats: Vec<AdoptedSeat>,
    },
    /// A process that was placed under an earlier run still lives.
    RootFound {
        /// Which.
        root: Process,
        /// The tenant it was placed in.
        tenant: String,
    },
    /// A hook asks for a seat.
    Hello {
        /// Where to answer.
        connection: ConnectionId,
        /// Who asks.
        peer: Peer,
        /// What it says.
        hello: Hello,
    },
    /// A peer said something that is no hello, or the wrong thing at the wrong time.
    Malformed {
        /// Where to answer.
        connection: ConnectionId,
        /// What is wrong.
        text: String,
    },
    /// A peer's identity could not be found out.
    Unidentified {
        /// Where to answer.
        connection: ConnectionId,
        /// Why.
        text: String,
    },
    /// A peer was refused before it could say anything.
    TurnedAway {
        /// Why.
        reason: RefusalReason,
    },
    /// A connection ended.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// A seat could not be made after all.
    SeatFailed {
        /// Which.
        seat: SeatRef,
        /// Where to answer.
        connection: ConnectionId,
        /// Why, and what to do.
        text: String,
    },
    /// A process ended.
    Exited {
        /// Its seat.
        seat: SeatRef,
    },
    /// A process lives on without its ledger: it called `exec`.
    Unmapped {
        /// Its seat.
        seat: SeatRef,
    },
    /// Someone asks to be moved into a tenant.
    Place {
        /// Where to answer.
        request: RequestId,
        /// Who asks.
        caller: Process,
        /// The tenant's name.
        tenant: String,
    },
    /// The daemon may not move processes into cgroups.
    PlaceUnable {
        /// Where to answer.
        request: RequestId,
        /// Who asked.
        caller: Process,
        /// The tenant's name.
        tenant: String,
        /// Why not.
        why: String,
    },
    /// A device's limits changed, because something of it was lent or came back.
    Lent(DeviceLoans),
    /// How the devices stand that are to be shared by space.
    Space(Vec<Standing>),
    /// An incident was declared, here or elsewhere.
    Incident {
        /// What is left of it counts from here, in time since boot.
        now: Micros,
        /// The incident.
        incident: Incident,
        /// Whether it was ended before its time.
        ended: bool,
    },
    /// So late is it now, in time since boot: incidents may be over.
    Late(Micros),
    /// A guest keeps memory past its loans.
    Overstays {
        /// Its district.
        district: Name,
        /// Its own name.
        tenant: Name,
    },
    /// A process-tree root ended.
    RootExited {
        /// Which.
        root: Process,
    },
}
