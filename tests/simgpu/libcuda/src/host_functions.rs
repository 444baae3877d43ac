//! Host functions in streams (`cuLaunchHostFunc`): one helper thread runs them, each when its stream has come to it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use headgate_abi::cuda::types::CUresult;
use headgate_simgpu::protocol::Request;

use crate::driver::{Answer, Driver, driver};
use crate::objects::{Stream, lock};
use crate::raw;

/// How often the helper looks at the other streams while it waits for one.
const TURN: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(crate) struct HostFunctions {
    pending: Mutex<Pending>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    calls: VecDeque<Call>,
    helper_runs: bool,
}

#[derive(Debug)]
struct Call {
    stream: Arc<Stream>,
    seq: u64,
    function: usize,
    data: usize,
}

/// Puts a host function into a stream as command `seq`, and has it run when the one before is done.
pub(crate) fn add(
    driver: &'static Driver,
    stream: Arc<Stream>,
    seq: u64,
    function: usize,
    data: usize,
) -> Answer {
    let queue = &driver.host_functions;
    let mut pending = lock(&queue.pending);
    if !pending.helper_runs {
        let helper = std::thread::Builder::new().name("cuda-host-funcs".into()).spawn(|| {
            if let Ok(driver) = self::driver() {
                help(driver);
            }
        });
        helper.map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
        pending.helper_runs = true;
    }
    pending.calls.push_back(Call { stream, seq, function, data });
    queue.more.notify_one();
    Ok(())
}

fn help(driver: &Driver) {
    let queue = &driver.host_functions;
    let mut pending = lock(&queue.pending);
    loop {
        // A function whose own number is done was dropped with its context; it is never called.
        pending
            .calls
            .retain(|call| call.stream.context_is_alive() && !driver.is_done(call.stream.slot, call.seq));
        let due = |call: &Call| driver.is_done(call.stream.slot, call.seq - 1);
        if let Some(call) = pending.calls.iter().position(due).and_then(|index| pending.calls.remove(index)) {
            drop(pending);
            raw::call_host_function(call.function, call.data);
            let done = Request::HostDone { slot: call.stream.slot, seq: call.seq };
            if driver.connection.post(&done).is_err() {
                return;
            }
            pending = lock(&queue.pending);
        } else if let Some(first) = pending.calls.front() {
            let (slot, seq) = (first.stream.slot, first.seq);
            drop(pending);
            driver.connection.page().wait(slot as usize, seq - 1, TURN);
            pending = lock(&queue.pending);
        } else {
            pending = queue.more.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
