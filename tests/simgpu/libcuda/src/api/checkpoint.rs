//! Checkpoints: a process's device memory is taken off the devices and comes back later.
//!
//! The server keeps the states and the memory; this room keeps calls out of a process that is locked ([`crate::driver`] asks at
//! each call) and waits until what it had submitted is done.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use headgate_abi::cuda::types::{CUenum, CUresult};
use headgate_simgpu::protocol::{CheckpointStep, Reply, Request};

use crate::driver::{Answer, driver};
use crate::raw;

/// How often to look whether everything is done.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// `CUcheckpointLockArgs`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LockArgs {
    timeout_ms: u32,
    reserved0: u32,
    reserved1: [u64; 7],
}
const _: () = assert!(size_of::<LockArgs>() == 64);

fn step(pid: c_int, step: CheckpointStep) -> Result<Reply, CUresult> {
    let driver = driver()?;
    let pid = u32::try_from(pid).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    // A process in a namespace of its own knows its own number there, and nobody else's in the server's.
    let pid = (pid != std::process::id()).then_some(pid);
    driver.ask(&Request::Checkpoint { pid, step })
}

pub(crate) fn cuCheckpointProcessGetState(pid: c_int, state: *mut CUenum) -> Answer {
    match step(pid, CheckpointStep::State)? {
        Reply::Value(number) => raw::store(state, CUenum::try_from(number).unwrap_or(CUenum::MAX)),
        _ => Err(CUresult::ERROR_UNKNOWN),
    }
}

pub(crate) fn cuCheckpointProcessGetRestoreThreadId(pid: c_int, tid: *mut c_int) -> Answer {
    step(pid, CheckpointStep::State)?;
    // No thread of the process has to do anything here; its first one has the process's number.
    raw::store(tid, pid)
}

#[expect(clippy::disallowed_methods, reason = "a lock is tried for as long as the program says")]
pub(crate) fn cuCheckpointProcessLock(pid: c_int, args: *mut c_void) -> Answer {
    let args = if args.is_null() { None } else { Some(raw::load(args.cast::<LockArgs>())?) };
    if args.is_some_and(|args| args.reserved0 != 0 || args.reserved1 != [0; 7]) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let within = args.map(|args| args.timeout_ms).filter(|&timeout_ms| timeout_ms > 0);
    let until = within.map(|timeout_ms| Instant::now() + Duration::from_millis(timeout_ms.into()));
    while step(pid, CheckpointStep::Lock)? != Reply::Value(1) {
        if until.is_some_and(|until| until <= Instant::now()) {
            step(pid, CheckpointStep::GiveUp)?;
            return Err(CUresult::ERROR_NOT_READY);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Steps whose arguments are reserved: none, or all zero.
fn plain(pid: c_int, args: *mut c_void, which: CheckpointStep) -> Answer {
    if !args.is_null() && raw::load(args.cast::<[u64; 8]>())? != [0; 8] {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    step(pid, which).map(|_| ())
}

pub(crate) fn cuCheckpointProcessCheckpoint(pid: c_int, args: *mut c_void) -> Answer {
    plain(pid, args, CheckpointStep::Checkpoint)
}

pub(crate) fn cuCheckpointProcessRestore(pid: c_int, args: *mut c_void) -> Answer {
    plain(pid, args, CheckpointStep::Restore)
}

pub(crate) fn cuCheckpointProcessUnlock(pid: c_int, args: *mut c_void) -> Answer {
    plain(pid, args, CheckpointStep::Unlock)
}
