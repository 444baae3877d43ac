//! What comes to the node, and what is asked of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use headgate_exporter::Snapshot;
use headgate_loans::desk::DeskHandle;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{EventsDocument, Place, StartEvent};
use crate::config::model::Tenant;
use crate::control::session::Opened;
use crate::devices::DriverLimit;
use crate::devices::xids::XidCounts;
use crate::effects::Placed;
use crate::enforcement::ioctls;
use crate::node::{Event, Peer, Process, RequestId};
use crate::page::Keys;
use crate::view::StatusDocument;

/// Where inputs go.
pub type Inputs = mpsc::Sender<Input>;

/// Whether any process is known by its tree, so that a hello's ancestors matter. Set before whoever was placed
/// is told so.
pub type Trees = Arc<AtomicBool>;

/// What comes to the node.
#[derive(Debug)]
pub enum Input {
    /// Something happened.
    Node(Event),
    /// Something happened on a connection that the node has not seen yet.
    Opened(Opened, Event),
    /// A process was moved into a cgroup, or not.
    Placed(RequestId, Result<Placed, String>),
    /// Limits changed because of loans; told when they hold.
    Lent(Event, oneshot::Sender<()>),
    /// The driver holds these limits itself, and no others of ours.
    DriverLimits(Vec<DriverLimit>),
    /// Critical errors of the devices since the daemon started.
    Xids(XidCounts),
    /// Somebody asks.
    Asked(Question),
}

/// What can be asked.
#[derive(Debug)]
pub enum Question {
    /// The status document.
    Status(oneshot::Sender<Box<StatusDocument>>),
    /// The metrics snapshot, and its tenants' serials.
    Snapshot(oneshot::Sender<(Snapshot, Keys)>),
    /// The way to the desk, where there is one.
    Desk(oneshot::Sender<Option<DeskHandle>>),
    /// Whose a process is.
    Who {
        /// What the kernel says about it.
        peer: Peer,
        /// Where to answer.
        reply: oneshot::Sender<Result<Arc<Tenant>, String>>,
    },
    /// Why the node is not ready.
    Unready(oneshot::Sender<Vec<String>>),
    /// To watch the GPU driver's ioctls for a while.
    AuditIoctls {
        /// For how long.
        span: Duration,
        /// Where to answer, when it is over.
        reply: ioctls::Reply,
    },
    /// To declare an incident.
    StartEvent {
        /// What is asked for.
        asked: StartEvent,
        /// Where to answer: all that hold then, or why not.
        reply: oneshot::Sender<Result<EventsDocument, String>>,
    },
    /// To end one of this district before its time.
    EndEvent {
        /// Its name.
        name: String,
        /// Where to answer.
        reply: oneshot::Sender<Result<EventsDocument, String>>,
    },
    /// Incidents that hold.
    Events(oneshot::Sender<EventsDocument>),
    /// To be moved into a tenant.
    Place {
        /// Who asks.
        caller: Process,
        /// The tenant's name.
        tenant: String,
        /// The device to be on, of several that are shared by space.
        gpu: Option<String>,
        /// Where to answer.
        reply: oneshot::Sender<Result<Place, String>>,
    },
}
