//! Remote sessions, as daemons carry them: a program of a tenant here, a worker of a guest there.
//!
//! ```text
//! borrower's node                                          lender's node
//! program --remote.sock--> door --------- TLS ----------> host --its own socket--> worker (a guest, under the hook)
//!                          who, which loan,               which guest, which loan,
//!                          what class, how many bytes     what class
//!                          counts, compares, writes down  counts, compares, writes down
//! ```
//!
//! Neither side believes the other: the door knows its tenant from the kernel, the host knows the door from its
//! certificate and the loan from its own ledger, and both count every byte. No byte of a program reaches a driver before
//! that. A program that wants this node's own device gets its worker directly; nothing leaves the node then.
//!
//! Read in this order: [`carry`] (one connection), [`bundle`] (several in its place), [`phase`] (what comes when a loan
//! ends), [`program`] (the program's end of a connection), [`door`] (the borrower's side), [`host`] (the lender's), [`worker`],
//! [`book`], [`budget`], [`tally`] and [`confined`].

mod frames;
mod bundle;
mod program;
mod book;
mod phase;
mod budget;
mod carry;
mod tally;
mod confined;
mod view;
mod worker;
mod door;
mod host;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headgate_loans::desk::{DeskHandle, Input as DeskInput};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::config::model::Tenant;
use crate::control::listener::{ListenError, Socket};
use crate::limits::SESSION_CONNECTIONS_DEFAULT;
use crate::loans::Floor;
use crate::node::Peer;
use crate::run::{Input, Inputs, Question, Trees};

use book::Book;
use budget::Budgets;
use carry::Role;
use tally::Tally;

pub use confined::Confinement;
pub use view::SessionView;

/// Why sessions cannot be carried. The operator is at fault, or the kernel.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] headgate_loans::audit::AuditError),
    /// A directory of its own.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What carrying sessions needs of the daemon.
#[derive(Debug)]
pub struct Setup {
    /// The configuration the daemon started with.
    pub config: Arc<Config>,
    /// What is lent and borrowed.
    pub floor: Arc<Floor>,
    /// The way to other nodes, where there is one.
    pub desk: Option<DeskHandle>,
    /// Where questions go.
    pub inputs: Inputs,
    /// Whether ancestors matter.
    pub trees: Trees,
    /// The hook, for workers.
    pub hook: Option<PathBuf>,
}

/// What all sessions of a node share.
#[derive(Debug)]
struct Node {
    setup: Setup,
    book: Book,
    budgets: Budgets,
    tally: Tally,
    directory: PathBuf,
    door: door::Table,
    host: host::Table,
}

impl Node {
    /// The tenant of a process.
    async fn who(&self, peer: Peer) -> Result<Arc<Tenant>, String> {
        let (reply, answer) = oneshot::channel();
        let ending = || "the daemon is shutting down".to_owned();
        let asked = Input::Asked(Question::Who { peer, reply });
        self.setup.inputs.send(asked).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// How many connections a session may go over.
    fn connections(&self) -> u8 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let said = self.setup.config.loans.as_ref().and_then(|loans| loans.connections);
        said.unwrap_or_else(|| connections_for(processors))
    }

    fn district(&self) -> &str {
        self.setup.config.district.as_str()
    }
}

/// How many connections a session goes over on a node of so many processors: half of them may be busy with it. Where there are two, four
/// connections are slower than one.
fn connections_for(processors: usize) -> u8 {
    u8::try_from(processors / 2).unwrap_or(u8::MAX).clamp(1, SESSION_CONNECTIONS_DEFAULT)
}

/// Running sessions. Dropped, they end.
#[derive(Debug)]
pub struct Remote {
    _tasks: JoinSet<()>,
    node: Arc<Node>,
    place: RemotePlace,
}

/// What a program needs to find a device elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct RemotePlace {
    /// The daemon's socket for sessions.
    pub socket: PathBuf,
    /// The directory with the client under a driver's names; `None` where it is not installed.
    pub libraries: Option<PathBuf>,
    /// The client as it is preloaded beside a driver of the node's own; `None` where it is not installed.
    #[serde(default)]
    pub redirect: Option<PathBuf>,
    /// Where the tenant's next program starts by its `borrow.programs`: the district that lends to it now. `None` for here.
    #[serde(default)]
    pub next: Option<String>,
}

impl Remote {
    /// Opens the socket for programs, and takes up what peers bring.
    pub fn open(setup: Setup) -> Result<Self, RemoteError> {
        let directory = setup.config.state_dir.join("remote");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RemoteError::Directory { path, source }
        };
        std::fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let path = setup.config.sockets.remote();
        // Any user's program may ask: whose it is, the kernel tells.
        let socket = Socket::bind(&path, 0o666)?;
        let libraries = match worker::beside_binary("libheadgate_remote.so") {
            Some(library) => {
                let names = path.with_extension("lib");
                lay_out(&library, &names).map_err(failed(&names))?;
                Some(names)
            }
            None => None,
        };
        let book = Book::open(&directory.join("audit.log"))?;
        let (desk, floor) = (setup.desk.clone(), Arc::clone(&setup.floor));
        let node = Arc::new(Node {
            setup,
            book,
            budgets: Budgets::default(),
            tally: Tally::default(),
            directory,
            door: door::Table::default(),
            host: host::Table::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(door::listen(Arc::clone(&node), socket));
        if let Some(desk) = desk {
            if let Some(sessions) = desk.sessions() {
                tasks.spawn(host::listen(Arc::clone(&node), sessions));
            }
            if let Some(mut drained) = floor.uses().drained() {
                tasks.spawn(async move {
                    while let Some(loan) = drained.recv().await {
                        desk.give(DeskInput::Drained(loan)).await;
                    }
                });
            }
        }
        let redirect = worker::beside_binary("libheadgate_redirect.so");
        Ok(Self { _tasks: tasks, node, place: RemotePlace { socket: path, libraries, redirect, next: None } })
    }

    /// Its sessions, those that begin here first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        let mut views = self.node.door.views();
        views.extend(self.node.host.views());
        views.sort_by(|one, other| {
            (&one.role, &one.tenant, &one.loan).cmp(&(&other.role, &other.tenant, &other.loan))
        });
        views
    }

    /// What was counted of them.
    #[must_use]
    pub fn page(&self) -> headgate_exporter::remote::Remote {
        let mut there = BTreeMap::new();
        for (role, views) in
            [(Role::Borrower, self.node.door.views()), (Role::Lender, self.node.host.views())]
        {
            for view in views {
                let key = (role.word(), view.tenant.clone(), view.peer_district().to_owned());
                *there.entry(key).or_default() += 1;
            }
        }
        self.node.tally.page(there)
    }

    /// What a tenant's programs need.
    #[must_use]
    pub fn place(&self, tenant: Option<&Tenant>) -> RemotePlace {
        let next = tenant.and_then(|tenant| door::next(&self.node, tenant));
        RemotePlace { next, ..self.place.clone() }
    }
}

/// Lays the client out under the names that programs load a driver by.
fn lay_out(library: &Path, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for name in ["libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1"] {
        let link = directory.join(name);
        if std::fs::read_link(&link).is_ok_and(|target| target == library) {
            continue;
        }
        // In one step: a program may be looking.
        let fresh = directory.join(format!("{name}.new"));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(library, &fresh)?;
        std::fs::rename(&fresh, &link)?;
    }
    Ok(())
}

/// Has the kernel notice soon when the other node is gone: a session waits for its connection to be seen to break.
fn watch_over(stream: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    let settings = [
        setsockopt(stream, sockopt::KeepAlive, &true),
        setsockopt(stream, sockopt::TcpKeepIdle, &crate::limits::SESSION_SILENCE_S),
        setsockopt(stream, sockopt::TcpKeepInterval, &1),
        setsockopt(stream, sockopt::TcpKeepCount, &crate::limits::SESSION_SILENCE_S),
        setsockopt(stream, sockopt::TcpUserTimeout, &(2_000 * crate::limits::SESSION_SILENCE_S)),
    ];
    if let Some(errno) = settings.into_iter().find_map(Result::err) {
        tracing::debug!(%errno, "a break of this session's connection may be noticed late");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_node_has_one_connection_for_a_session_and_a_large_one_four() {
        let counts = [1, 2, 3, 4, 6, 8, 16, 1024].map(connections_for);
        assert_eq!(counts, [1, 1, 1, 2, 3, 4, 4, 4]);
    }
}
