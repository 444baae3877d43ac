//! The connection, counted by `nvmlInit` and `nvmlShutdown`.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_abi::cuda::CUresult;
use headgate_abi::nvml::NvmlReturn;
use headgate_simgpu::client::Connection;
use headgate_simgpu::protocol::{LOG_ENV, Reply, Request, Role, SOCKET_ENV};

/// What a call comes to.
pub(crate) type Answer = Result<(), NvmlReturn>;

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

struct Session {
    connection: Arc<Connection>,
    opened: u32,
    /// The process that connected. A forked child has no session: the connection is its parent's.
    pid: u32,
}

fn session() -> MutexGuard<'static, Option<Session>> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hint(why: &dyn std::fmt::Display) {
    if std::env::var_os(LOG_ENV).is_some() {
        // A closed stderr is no reason to fail.
        drop(writeln!(std::io::stderr(), "headgate simulated libnvidia-ml: {why}"));
    }
}

fn connect() -> Result<Connection, NvmlReturn> {
    let path = std::env::var_os(SOCKET_ENV).map(PathBuf::from).ok_or_else(|| {
        hint(&format_args!("no device: {SOCKET_ENV} is not set"));
        NvmlReturn::ERROR_DRIVER_NOT_LOADED
    })?;
    Connection::open(&path, Role::Nvml).map_err(|error| {
        hint(&format_args!("no device: {}: {error}", path.display()));
        NvmlReturn::ERROR_DRIVER_NOT_LOADED
    })
}

pub(crate) fn open() -> Answer {
    let mut session = session();
    let pid = std::process::id();
    match session.as_mut().filter(|session| session.pid == pid && !session.connection.is_lost()) {
        Some(session) => session.opened += 1,
        None => *session = Some(Session { connection: Arc::new(connect()?), opened: 1, pid }),
    }
    Ok(())
}

pub(crate) fn close() -> Answer {
    let mut session = session();
    let open = session.as_mut().ok_or(NvmlReturn::ERROR_UNINITIALIZED)?;
    open.opened -= 1;
    if open.opened == 0 {
        *session = None;
    }
    Ok(())
}

/// The connection of an initialised library.
pub(crate) fn connection() -> Result<Arc<Connection>, NvmlReturn> {
    let session = session();
    let open = session.as_ref().filter(|session| session.pid == std::process::id());
    open.map(|session| Arc::clone(&session.connection)).ok_or(NvmlReturn::ERROR_UNINITIALIZED)
}

/// Asks the server, and translates a refusal.
pub(crate) fn ask(request: &Request) -> Result<Reply, NvmlReturn> {
    match connection()?.ask(request) {
        Ok(Reply::Refused { status, .. }) => Err(match CUresult(status) {
            CUresult::ERROR_NOT_FOUND => NvmlReturn::ERROR_NOT_FOUND,
            CUresult::ERROR_NOT_SUPPORTED => NvmlReturn::ERROR_NOT_SUPPORTED,
            CUresult::ERROR_INVALID_DEVICE | CUresult::ERROR_INVALID_VALUE => {
                NvmlReturn::ERROR_INVALID_ARGUMENT
            }
            _ => NvmlReturn::ERROR_UNKNOWN,
        }),
        Ok(reply) => Ok(reply),
        Err(_) => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

/// What every exported function does around its own work.
pub(crate) fn shell(call: &'static str, work: impl FnOnce() -> Answer) -> NvmlReturn {
    let Ok(open) = connection() else { return guarded(work) };
    let status = match open.page().faults_armed() {
        true => injected_fault(&open, call),
        false => None,
    };
    let status = status.unwrap_or_else(|| guarded(work));
    if open.page().journals_all() {
        open.tell(&Request::Note { call: call.to_owned(), status: status.0 });
    }
    status
}

fn injected_fault(connection: &Connection, call: &str) -> Option<NvmlReturn> {
    match connection.ask(&Request::TakeFault { call: call.to_owned() }) {
        Ok(Reply::Fault(status)) => status.map(NvmlReturn),
        _ => None,
    }
}

/// A panic must not reach the caller, who is C.
fn guarded(work: impl FnOnce() -> Answer) -> NvmlReturn {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => NvmlReturn::SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => NvmlReturn::ERROR_UNKNOWN,
    }
}

/// The answer of a row that has no function of its own.
pub(crate) fn not_supported(call: &'static str) -> Answer {
    let connection = connection()?;
    if !connection.page().journals_all() {
        let status = NvmlReturn::ERROR_NOT_SUPPORTED.0;
        connection.tell(&Request::Note { call: call.to_owned(), status });
    }
    Err(NvmlReturn::ERROR_NOT_SUPPORTED)
}
