//! Making graphs ready, uploading, launching and updating them.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_char;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{
    CUDA_GRAPH_INSTANTIATE_PARAMS, CUenum, CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode,
    CUresult, CUstream,
};

use super::{find, find_exec};
use crate::api::twins;
use crate::driver::{Answer, Driver, driver};
use crate::graph::run::{self, AUTO_FREE};
use crate::graph::{Body, Edge, Executable, Graph, Work};
use crate::objects::lock;
use crate::{capture, current, raw};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD`.
const UPLOAD: u64 = 2;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH`: not simulated.
const DEVICE_LAUNCH: u64 = 4;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY`. Nodes of one graph go in turn, so priorities among them change
/// nothing here.
const USE_NODE_PRIORITY: u64 = 8;

/// `CUgraphInstantiateResult`.
const READY: CUenum = 0;
const FAILED: CUenum = 1;
const INVALID_STRUCTURE: CUenum = 2;
const OPERATION_NOT_SUPPORTED: CUenum = 3;

/// Makes a graph ready, or says why not, in both of the API's ways.
fn instantiate(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) -> Result<(), (CUresult, CUenum)> {
    let failed = |status| (status, FAILED);
    let driver = driver().map_err(failed)?;
    let graph = find(driver, graph).map_err(failed)?;
    if exec.is_null() || flags & !(AUTO_FREE | UPLOAD | DEVICE_LAUNCH | USE_NODE_PRIORITY) != 0 {
        return Err(failed(CUresult::ERROR_INVALID_VALUE));
    }
    if flags & DEVICE_LAUNCH != 0 {
        let status = if flags & AUTO_FREE == 0 {
            CUresult::ERROR_NOT_SUPPORTED
        } else {
            CUresult::ERROR_INVALID_VALUE
        };
        return Err((status, OPERATION_NOT_SUPPORTED));
    }
    let body = lock(&graph.body).snapshot();
    if crate::graph::plan::lay_out(&body).is_none() {
        return Err((CUresult::ERROR_INVALID_VALUE, INVALID_STRUCTURE));
    }
    let mut ready = lock(&graph.ready);
    // "Only one instantiation of the graph may exist at any point in time" (`cuGraphAddMemAllocNode`).
    if body.has_memory() && ready.strong_count() > 0 {
        return Err(failed(CUresult::ERROR_NOT_SUPPORTED));
    }
    let made = Arc::new(Executable { body: Mutex::new(body), flags, state: Mutex::default() });
    *ready = Arc::downgrade(&made);
    let handle = driver.executables.reserve();
    driver.executables.insert(handle, made);
    raw::store(exec, CUgraphExec::from_addr(handle)).map_err(failed)
}

pub(crate) fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) -> Answer {
    if flags & UPLOAD != 0 {
        // There is no stream to upload in.
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    instantiate(exec, graph, flags).map_err(|(status, _)| status)
}

fn instantiate_with(
    mode: ThreadMode,
    exec: *mut CUgraphExec,
    graph: CUgraph,
    params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
) -> Answer {
    let mut told = raw::load(params.cast_const())?;
    let made = instantiate(exec, graph, told.flags);
    told.hErrNode_out = CUgraphNode::NULL;
    told.result_out = made.err().map_or(READY, |(_, result)| result);
    raw::store(params, told)?;
    made.map_err(|(status, _)| status)?;
    if told.flags & UPLOAD == 0 {
        return Ok(());
    }
    upload(mode, raw::load(exec.cast_const())?, told.hUploadStream)
}

/// Nothing is found wrong that the error node could tell; the log is empty.
pub(crate) fn cuGraphInstantiate_v2(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_bytes: usize,
) -> Answer {
    raw::store_if(error_node, CUgraphNode::NULL);
    if !log.is_null() && log_bytes > 0 {
        raw::store_text(log, log_bytes, "")?;
    }
    instantiate(exec, graph, 0).map_err(|(status, _)| status)
}

pub(crate) fn cuGraphInstantiate(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_bytes: usize,
) -> Answer {
    cuGraphInstantiate_v2(exec, graph, error_node, log, log_bytes)
}

/// Work of it that runs goes on.
pub(crate) fn cuGraphExecDestroy(exec: CUgraphExec) -> Answer {
    let driver = driver()?;
    let gone = driver.executables.remove(exec.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    lock(&gone.state).end(driver);
    Ok(())
}

pub(crate) fn cuGraphExecGetFlags(exec: CUgraphExec, flags: *mut u64) -> Answer {
    raw::store(flags, find_exec(driver()?, exec)?.flags)
}

fn upload(mode: ThreadMode, exec: CUgraphExec, stream: CUstream) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    let exec = find_exec(driver, exec)?;
    capture::forbid_in(&stream)?;
    let allocations = lock(&exec.body).allocations();
    run::back(driver, &allocations, false)
}

fn launch(mode: ThreadMode, exec: CUgraphExec, stream: CUstream) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let exec = find_exec(driver, exec)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    if let Some(capture) = capture::of(&stream) {
        let body = lock(&exec.body);
        if body.has_memory() {
            capture.invalidate();
            return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        let child = Graph::copied(driver, &Graph::of(0, body.clone()));
        return capture.record(driver, &stream, Work::Child(child));
    }
    capture::forbid_implied(driver, &stream)?;
    run::launch(driver, &context, &stream, &exec)
}

twins! {
    cuGraphLaunch, cuGraphLaunch_ptsz (exec: CUgraphExec, stream: CUstream) = launch;
    cuGraphUpload, cuGraphUpload_ptsz (exec: CUgraphExec, stream: CUstream) = upload;
    cuGraphInstantiateWithParams, cuGraphInstantiateWithParams_ptsz (exec: *mut CUgraphExec, graph: CUgraph, params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS) = instantiate_with;
}

/// Why an update was not made (`CUgraphExecUpdateResult`), with the node at fault and, for an edge, its other end.
#[derive(Debug)]
pub(super) struct Mismatch {
    result: CUenum,
    node: usize,
    from: usize,
}

impl Mismatch {
    const TOPOLOGY_CHANGED: CUenum = 2;
    const TYPE_CHANGED: CUenum = 3;
    const NOT_SUPPORTED: CUenum = 6;
    const ATTRIBUTES_CHANGED: CUenum = 8;

    fn new(result: CUenum, node: usize) -> Self {
        Self { result, node, from: 0 }
    }
}

/// Takes over what the nodes of a graph of the same shape do. Nodes are matched in the order they were made.
pub(super) fn take_over(old: &mut Body, new: Body) -> Result<(), Mismatch> {
    compare(old, &new)?;
    for (old, new) in old.nodes.values_mut().zip(new.nodes.into_values()) {
        if let (Work::Child(old), Work::Child(new)) = (&old.work, &new.work) {
            let new = lock(&new.body).clone();
            take_over(&mut lock(&old.body), new)?;
        } else {
            old.work = new.work;
        }
    }
    Ok(())
}

fn compare(old: &Body, new: &Body) -> Result<(), Mismatch> {
    if new.nodes.len() != old.nodes.len() {
        return Err(Mismatch::new(Mismatch::TOPOLOGY_CHANGED, 0));
    }
    let names: BTreeMap<usize, usize> = new.nodes.keys().copied().zip(old.nodes.keys().copied()).collect();
    for ((&node, new), old) in new.nodes.iter().zip(old.nodes.values()) {
        if new.after.len() != old.after.len() {
            return Err(Mismatch::new(Mismatch::TOPOLOGY_CHANGED, node));
        }
        let known = |(before, edge): (&usize, &Edge)| {
            names.get(before).and_then(|before| old.after.get(before)) == Some(edge)
        };
        if let Some((&from, _)) = new.after.iter().find(|&edge| !known(edge)) {
            return Err(Mismatch { result: Mismatch::TOPOLOGY_CHANGED, node, from });
        }
        match (&new.work, &old.work) {
            (Work::Kernel(new), Work::Kernel(old))
                if new.launch.cooperative != old.launch.cooperative || new.context != old.context =>
            {
                return Err(Mismatch::new(Mismatch::ATTRIBUTES_CHANGED, node));
            }
            (Work::Child(new), Work::Child(old)) => compare(&lock(&old.body), &lock(&new.body))?,
            (Work::Allocate(_) | Work::Free(_), _) => {
                return Err(Mismatch::new(Mismatch::NOT_SUPPORTED, node));
            }
            (new, old) if new.kind() != old.kind() => {
                return Err(Mismatch::new(Mismatch::TYPE_CHANGED, node));
            }
            _ => {}
        }
    }
    Ok(())
}

fn update(driver: &Driver, exec: CUgraphExec, graph: CUgraph) -> Result<Result<(), Mismatch>, CUresult> {
    let exec = find_exec(driver, exec)?;
    let new = lock(&find(driver, graph)?.body).snapshot();
    Ok(take_over(&mut lock(&exec.body), new))
}

pub(crate) fn cuGraphExecUpdate_v2(
    exec: CUgraphExec,
    graph: CUgraph,
    result: *mut CUgraphExecUpdateResultInfo,
) -> Answer {
    let outcome = update(driver()?, exec, graph)?;
    let wrong = outcome.as_ref().err();
    let told = CUgraphExecUpdateResultInfo {
        result: wrong.map_or(0, |wrong| wrong.result),
        errorNode: CUgraphNode::from_addr(wrong.map_or(0, |wrong| wrong.node)),
        errorFromNode: CUgraphNode::from_addr(wrong.map_or(0, |wrong| wrong.from)),
    };
    raw::store(result, told)?;
    outcome.map_err(|_| CUresult::ERROR_GRAPH_EXEC_UPDATE_FAILURE)
}

pub(crate) fn cuGraphExecUpdate(
    exec: CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    result: *mut CUenum,
) -> Answer {
    let outcome = update(driver()?, exec, graph)?;
    let wrong = outcome.as_ref().err();
    raw::store_if(error_node, CUgraphNode::from_addr(wrong.map_or(0, |wrong| wrong.node)));
    raw::store(result, wrong.map_or(0, |wrong| wrong.result))?;
    outcome.map_err(|_| CUresult::ERROR_GRAPH_EXEC_UPDATE_FAILURE)
}
