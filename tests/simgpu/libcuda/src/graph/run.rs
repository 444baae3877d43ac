//! Launching: memory for the allocation nodes, then the steps of the plan into their streams, then all of them joined
//! in the launch stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_abi::cuda::types::CUresult;
use headgate_simgpu::protocol::{Command, Holding};

use super::memory::NodeMemory;
use super::plan::{Plan, lay_out};
use super::{Executable, Work};
use crate::api::{event, stream};
use crate::driver::{Answer, Driver};
use crate::host_functions;
use crate::objects::{Context, Recorded, Stream, StreamKind, lock};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`.
pub(crate) const AUTO_FREE: u64 = 1;

/// What launches of one executable graph share.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Streams for the branches beside the first.
    branches: Vec<Arc<Stream>>,
    /// Where the last launch ends: launches of one executable graph never overlap.
    last: Option<Recorded>,
}

impl State {
    /// Makes sure of so many branches that fit the launch stream.
    fn prepare(&mut self, driver: &Driver, context: &Arc<Context>, like: &Stream, count: usize) -> Answer {
        let fits = |branch: &Arc<Stream>| {
            branch.context_is_alive() && branch.context == like.context && branch.priority == like.priority
        };
        if !self.branches.iter().all(fits) {
            self.end(driver);
        }
        while self.branches.len() < count {
            let made = stream::open(driver, context, StreamKind::NonBlocking, 1, like.priority)?;
            self.branches.push(made);
        }
        Ok(())
    }

    /// Gives the streams back; work in them goes on.
    pub(crate) fn end(&mut self, driver: &Driver) {
        for branch in self.branches.drain(..) {
            stream::close(driver, &branch);
        }
    }
}

/// Gives memory to allocation nodes.
pub(crate) fn back(driver: &Driver, nodes: &[Arc<NodeMemory>], launch: bool) -> Answer {
    let mut by_device: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
    for node in nodes {
        by_device.entry(node.device).or_default().push((node.address, node.bytes));
    }
    for (device, nodes) in by_device {
        let device = u32::try_from(device).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
        driver.hold(Holding::BackGraph { device, nodes, launch })?;
    }
    Ok(())
}

/// Hands a graph to a stream.
///
/// A graph whose allocations are still in use cannot run again, unless it was instantiated to free them by itself.
pub(crate) fn launch(
    driver: &'static Driver,
    context: &Arc<Context>,
    stream: &Arc<Stream>,
    exec: &Executable,
) -> Answer {
    let mut state = lock(&exec.state);
    let (plan, allocations) = {
        let body = lock(&exec.body);
        (lay_out(&body).ok_or(CUresult::ERROR_INVALID_VALUE)?, body.allocations())
    };
    let elsewhere = |work: &Work| matches!(work, Work::Kernel(kernel) if kernel.context != stream.home);
    if plan.steps.iter().any(|step| elsewhere(&step.work)) {
        // A graph over several contexts.
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let live: Vec<u64> = {
        let live = lock(&driver.live_nodes);
        allocations.iter().map(|node| node.address).filter(|address| live.contains_key(address)).collect()
    };
    if !live.is_empty() && exec.flags & AUTO_FREE == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    state.prepare(driver, context, stream, plan.lanes.saturating_sub(1))?;
    back(driver, &allocations, true)?;
    let mut first = Vec::new();
    let before = state.last.take().filter(|last| last.stream.slot != stream.slot);
    if let Some(last) = before.filter(|last| !driver.is_done(last.stream.slot, last.seq)) {
        first.push(Command::After { slot: last.stream.slot, seq: last.seq });
    }
    for address in live {
        lock(&driver.live_nodes).remove(&address);
        first.push(Command::ReturnNode { address });
    }
    if plan.lanes > 1 {
        first.push(Command::Nothing);
    }
    let begun = driver.submit(stream, first)?;
    run(driver, stream, &state.branches, &plan, begun)?;
    state.last = Some(Recorded { stream: Arc::clone(stream), seq: stream.last() });
    Ok(())
}

/// The steps into their streams. Branches begin with command `begun` of the launch stream, which waits for their ends.
fn run(
    driver: &'static Driver,
    stream: &Arc<Stream>,
    branches: &[Arc<Stream>],
    plan: &Plan,
    begun: u64,
) -> Answer {
    let in_lane = |lane: usize| match lane.checked_sub(1) {
        None => stream,
        Some(branch) => &branches[branch],
    };
    let mut done: Vec<(u32, u64)> = Vec::with_capacity(plan.steps.len());
    let mut started = vec![false; plan.lanes];
    for step in &plan.steps {
        let lane = in_lane(step.lane);
        let mut waits: Vec<Command> =
            step.after.iter().map(|&step| Command::After { slot: done[step].0, seq: done[step].1 }).collect();
        if !std::mem::replace(&mut started[step.lane], true) && step.lane > 0 {
            waits.push(Command::After { slot: stream.slot, seq: begun });
        }
        if !waits.is_empty() {
            driver.submit(lane, waits)?;
        }
        done.push((lane.slot, perform(driver, lane, &step.work)?));
    }
    let ends: Vec<Command> = branches
        .iter()
        .take(plan.lanes.saturating_sub(1))
        .map(|branch| Command::After { slot: branch.slot, seq: branch.last() })
        .collect();
    driver.submit(stream, ends).map(|_| ())
}

/// Hands in what one node does. Returns the number of its last command.
fn perform(driver: &'static Driver, stream: &Arc<Stream>, work: &Work) -> Result<u64, CUresult> {
    match work {
        Work::Kernel(kernel) => driver.submit(stream, [Command::Launch(kernel.launch.clone())]),
        Work::Copy { commands, .. } | Work::MemoryOperations { commands, .. } => {
            driver.submit(stream, commands.iter().cloned())
        }
        Work::Fill { command, .. } => driver.submit(stream, [command.clone()]),
        Work::Host { call, data } => {
            let seq = driver.submit(stream, [Command::Nothing, Command::HostFunction])?;
            host_functions::add(driver, Arc::clone(stream), seq, *call, *data)?;
            Ok(seq)
        }
        Work::Empty | Work::Child(_) => driver.submit(stream, [Command::Nothing]),
        Work::Wait { event, .. } => {
            event::wait_in(driver, stream, event)?;
            Ok(stream.last())
        }
        Work::Record { event, .. } => {
            event::record_in(driver, stream, event)?;
            Ok(stream.last())
        }
        Work::Allocate(node) => {
            node.enter(driver);
            lock(&driver.live_nodes).insert(node.address, Arc::clone(node));
            driver.submit(stream, [Command::TakeNode { address: node.address }])
        }
        Work::Free(node) => {
            let freed = lock(&driver.live_nodes).remove(&node.address);
            let seq = driver.submit(stream, [Command::ReturnNode { address: node.address }]);
            drop(freed);
            seq
        }
    }
}
