//! Graphs that allocate memory.
//!
//! A graph's allocations are backed with memory when it is first uploaded or launched; until it is trimmed the
//! driver keeps that memory for all graphs of the device. Room is asked for before, by the addresses that the
//! graph's allocations have; afterwards the driver's own figure is charged.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{
    CU_GRAPH_NODE_TYPE_MEM_ALLOC, CUgraph, CUgraphExec, CUgraphNodeParams, CUstream,
};
use headgate_abi::segment::Refusal;

use super::place::{self, Stop};
use crate::driver::{self, Out};
use crate::ledger::graphs::{self, Footprint};
use crate::ledger::pools::{self, Reservation};
use crate::pace::{self, Admission};
use crate::session::Session;
use crate::verdict::{Denial, NoSettlement, Verdict};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD`.
pub(crate) const INSTANTIATE_UPLOAD: u64 = 2;

/// `cuGraphAddMemAllocNode`: takes nothing yet.
pub(crate) fn add_allocation() -> Verdict<NoSettlement> {
    graphs::note_allocation();
    Verdict::Forward
}

/// `cuGraphAddNode`: perhaps an allocation.
pub(crate) fn add_node(params: Option<CUgraphNodeParams>) -> Verdict<NoSettlement> {
    if params.is_some_and(|params| params.kind == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
        graphs::note_allocation();
    }
    Verdict::Forward
}

/// `cuGraphInstantiate`. With `flags` to upload at once, the graph takes its memory now.
pub(crate) fn instantiate(
    exec: Out<CUgraphExec>,
    graph: CUgraph,
    flags: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let prepare = || {
        if !graphs::seen() {
            return Ok((Vec::new(), Vec::new()));
        }
        let session = place::metered()?;
        let footprints = graphs::footprints(driver::graph_allocations(graph));
        let now = if flags & INSTANTIATE_UPLOAD == 0 { &[][..] } else { &footprints };
        let reserved = reserve(session, now).map_err(|_| Stop::NoRoom)?;
        Ok((footprints, reserved))
    };
    let (footprints, reserved) = match prepare() {
        Ok(prepared) => prepared,
        Err(stop) => return Stop::verdict(stop),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        let uploaded = !reserved.is_empty() && status.is_success();
        settle(reserved, status.is_success());
        if let (true, Some(exec)) = (status.is_success(), exec.get()) {
            graphs::instantiated(exec, footprints);
            if uploaded {
                graphs::backed(exec);
            }
        }
        status
    })
}

/// `cuGraphUpload`: backs the graph with memory.
pub(crate) fn upload(exec: CUgraphExec) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let reserved = match room_for(exec) {
        Ok(reserved) => reserved,
        Err(stop) => return stop.verdict(),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        finish(exec, reserved, status);
        status
    })
}

/// `cuGraphLaunch`: as an upload, then as any launch.
pub(crate) fn launch(
    exec: CUgraphExec,
    stream: CUstream,
    per_thread: bool,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let reserved = match room_for(exec) {
        Ok(reserved) => reserved,
        Err(stop) => return stop.verdict(),
    };
    let edge = match pace::admit(stream, per_thread) {
        Admission::Go => false,
        Admission::GoThenEdge => true,
        Admission::Refuse(status) => {
            settle(reserved, false);
            return Verdict::Deny(status, Denial::NoSeat);
        }
    };
    Verdict::ForwardThen(move |status: CUresult| {
        finish(exec, reserved, status);
        if edge {
            pace::after_last();
        }
        status
    })
}

/// `cuGraphExecUpdate`: an executable graph takes on the allocations of another graph of its shape.
pub(crate) fn update(exec: CUgraphExec, graph: CUgraph) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() && graphs::seen() && place::metered().is_ok() {
            graphs::updated(exec, graphs::footprints(driver::graph_allocations(graph)));
        }
        status
    })
}

/// `cuGraphExecDestroy`.
pub(crate) fn destroy(exec: CUgraphExec) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let footprints = graphs::let_go(exec);
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success()
            && let Ok(session) = place::metered()
        {
            for Footprint { device, bytes } in footprints {
                if let Some(row) = session.row(device) {
                    pools::freed(pools::of_graphs(device, row), bytes);
                }
            }
        }
        status
    })
}

fn room_for(exec: CUgraphExec) -> Result<Vec<Reservation>, Stop> {
    if !graphs::seen() {
        return Ok(Vec::new());
    }
    let session = place::metered()?;
    reserve(session, &graphs::needs(exec)).map_err(|_| Stop::NoRoom)
}

/// Makes room on every device, or on none.
fn reserve(session: &Session, footprints: &[Footprint]) -> Result<Vec<Reservation>, Refusal> {
    let mut reserved = Vec::with_capacity(footprints.len());
    for &Footprint { device, bytes } in footprints {
        let Some(row) = session.row(device) else { continue };
        let id = pools::of_graphs(device, row);
        // What graphs use now is not free for this one.
        let room = pools::look(id).and_then(|()| pools::reserve(session, id, row, bytes));
        match room {
            Ok(reservation) => reserved.push(reservation),
            Err(refusal) => {
                settle(reserved, false);
                return Err(refusal);
            }
        }
    }
    Ok(reserved)
}

fn settle(reserved: Vec<Reservation>, succeeded: bool) {
    for reservation in reserved {
        if pools::settle(reservation, succeeded).is_err() {
            // The graph is running: its memory cannot be taken away again.
            pools::concede(reservation.pool);
        }
    }
}

fn finish(exec: CUgraphExec, reserved: Vec<Reservation>, status: CUresult) {
    if !reserved.is_empty() && status.is_success() {
        graphs::backed(exec);
    }
    settle(reserved, status.is_success());
}
