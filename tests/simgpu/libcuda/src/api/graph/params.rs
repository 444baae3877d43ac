//! What nodes of graphs, and of graphs made ready, can be asked and told.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::Mutex;

use headgate_abi::cuda::types::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS, CUDA_KERNEL_NODE_PARAMS,
    CUDA_KERNEL_NODE_PARAMS_v1, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS, CUcontext, CUdeviceptr, CUenum,
    CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUgraphNodeParams, CUkernel, CUresult,
};

use super::{find_exec, nodes, owner};
use crate::driver::{Answer, driver};
use crate::graph::{Body, KernelNode, Work};
use crate::objects::lock;
use crate::raw;

/// What a node does.
pub(super) fn work_of(node: CUgraphNode) -> Result<Work, CUresult> {
    let graph = owner(driver()?, node)?;
    let body = lock(&graph.body);
    body.nodes.get(&node.addr()).map(|node| node.work.clone()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Replaces what a node does by something of its kind.
fn replace(body: &Mutex<Body>, node: CUgraphNode, work: Work) -> Answer {
    let replaced = lock(body).change(node.addr(), |known| {
        if known.work.kind() != work.kind() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        known.work = work;
        Ok(())
    });
    replaced.ok_or(CUresult::ERROR_INVALID_VALUE)?
}

fn set(node: CUgraphNode, work: Work) -> Answer {
    replace(&owner(driver()?, node)?.body, node, work)
}

fn set_in(exec: CUgraphExec, node: CUgraphNode, work: Work) -> Answer {
    replace(&find_exec(driver()?, exec)?.body, node, work)
}

pub(crate) fn cuGraphNodeGetType(node: CUgraphNode, kind: *mut CUenum) -> Answer {
    raw::store(kind, work_of(node)?.kind())
}

fn kernel_of(node: CUgraphNode) -> Result<Arc<KernelNode>, CUresult> {
    match work_of(node)? {
        Work::Kernel(kernel) => Ok(kernel),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// The parameters are the node's own copies and valid for as long as the node has them.
fn told(kernel: &KernelNode) -> CUDA_KERNEL_NODE_PARAMS_v1 {
    CUDA_KERNEL_NODE_PARAMS_v1 {
        func: CUfunction::from_addr(kernel.function),
        gridDimX: kernel.launch.grid[0],
        gridDimY: kernel.launch.grid[1],
        gridDimZ: kernel.launch.grid[2],
        blockDimX: kernel.launch.block[0],
        blockDimY: kernel.launch.block[1],
        blockDimZ: kernel.launch.block[2],
        sharedMemBytes: kernel.launch.shared_bytes,
        kernelParams: kernel.pointers.as_ptr().cast_mut().cast(),
        extra: core::ptr::null_mut(),
    }
}

pub(crate) fn cuGraphKernelNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_KERNEL_NODE_PARAMS_v1,
) -> Answer {
    raw::store(params, told(&*kernel_of(node)?))
}

pub(crate) fn cuGraphKernelNodeGetParams_v2(
    node: CUgraphNode,
    params: *mut CUDA_KERNEL_NODE_PARAMS,
) -> Answer {
    let kernel = kernel_of(node)?;
    let (kern, ctx) = (CUkernel::NULL, CUcontext::from_addr(kernel.context));
    raw::store(params, CUDA_KERNEL_NODE_PARAMS { launch: told(&kernel), kern, ctx })
}

/// What was captured is known by its effect only, not by the description a program would have given.
pub(crate) fn cuGraphMemcpyNodeGetParams(node: CUgraphNode, params: *mut CUDA_MEMCPY3D) -> Answer {
    let Work::Copy { told, .. } = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    if told.is_empty() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    raw::store(params, raw::load(told.as_ptr().cast::<CUDA_MEMCPY3D>())?)
}

pub(crate) fn cuGraphMemsetNodeGetParams(node: CUgraphNode, params: *mut CUDA_MEMSET_NODE_PARAMS) -> Answer {
    let Work::Fill { told, .. } = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    raw::store(params, told)
}

pub(crate) fn cuGraphHostNodeGetParams(node: CUgraphNode, params: *mut CUDA_HOST_NODE_PARAMS) -> Answer {
    let Work::Host { call, data } = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    let pointer = core::ptr::with_exposed_provenance_mut::<c_void>;
    raw::store(params, CUDA_HOST_NODE_PARAMS { call: pointer(call), userData: pointer(data) })
}

/// As with copies, operations that were captured have no description.
pub(crate) fn cuGraphBatchMemOpNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Answer {
    let Work::MemoryOperations { told, .. } = work_of(node)? else {
        return Err(CUresult::ERROR_INVALID_VALUE);
    };
    if told.is_empty() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let count = c_uint::try_from(told.len()).unwrap_or(c_uint::MAX);
    let paramArray = told.as_ptr().cast_mut();
    let ctx = CUcontext::NULL;
    raw::store(params, CUDA_BATCH_MEM_OP_NODE_PARAMS { ctx, count, paramArray, flags: 0 })
}

pub(crate) fn cuGraphEventRecordNodeGetEvent(node: CUgraphNode, event: *mut CUevent) -> Answer {
    let Work::Record { handle, .. } = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    raw::store(event, CUevent::from_addr(handle))
}

pub(crate) fn cuGraphEventWaitNodeGetEvent(node: CUgraphNode, event: *mut CUevent) -> Answer {
    let Work::Wait { handle, .. } = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    raw::store(event, CUevent::from_addr(handle))
}

pub(crate) fn cuGraphMemFreeNodeGetParams(node: CUgraphNode, dptr: *mut CUdeviceptr) -> Answer {
    let Work::Free(memory) = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    raw::store(dptr, memory.address)
}

pub(crate) fn cuGraphChildGraphNodeGetGraph(node: CUgraphNode, graph: *mut CUgraph) -> Answer {
    let Work::Child(child) = work_of(node)? else { return Err(CUresult::ERROR_INVALID_VALUE) };
    raw::store(graph, CUgraph::from_addr(child.handle))
}

pub(crate) fn cuGraphKernelNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> Answer {
    set(node, nodes::kernel(&raw::load(params)?)?)
}

pub(crate) fn cuGraphKernelNodeSetParams_v2(
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> Answer {
    set(node, nodes::kernel(&nodes::newer(&raw::load(params)?))?)
}

pub(crate) fn cuGraphMemcpyNodeSetParams(node: CUgraphNode, params: *const CUDA_MEMCPY3D) -> Answer {
    set(node, nodes::copying(driver()?, params)?)
}

pub(crate) fn cuGraphMemsetNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_MEMSET_NODE_PARAMS,
) -> Answer {
    set(node, nodes::memset(driver()?, params)?)
}

pub(crate) fn cuGraphHostNodeSetParams(node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS) -> Answer {
    set(node, nodes::host(params)?)
}

pub(crate) fn cuGraphBatchMemOpNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Answer {
    set(node, nodes::batch(driver()?, params)?)
}

pub(crate) fn cuGraphEventRecordNodeSetEvent(node: CUgraphNode, event: CUevent) -> Answer {
    set(node, nodes::record(driver()?, event)?)
}

pub(crate) fn cuGraphEventWaitNodeSetEvent(node: CUgraphNode, event: CUevent) -> Answer {
    set(node, nodes::wait(driver()?, event)?)
}

/// Memory nodes cannot be changed, and a child graph is changed node by node.
fn changeable(params: *const CUgraphNodeParams) -> Result<Work, CUresult> {
    match raw::load(params)?.kind {
        4 | 10 | 11 => Err(CUresult::ERROR_NOT_SUPPORTED),
        _ => nodes::described(driver()?, params),
    }
}

pub(crate) fn cuGraphNodeSetParams(node: CUgraphNode, params: *mut CUgraphNodeParams) -> Answer {
    set(node, changeable(params)?)
}

pub(crate) fn cuGraphNodeSetParams_v2(node: CUgraphNode, params: *mut CUgraphNodeParams) -> Answer {
    cuGraphNodeSetParams(node, params)
}

pub(crate) fn cuGraphExecNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *mut CUgraphNodeParams,
) -> Answer {
    set_in(exec, node, changeable(params)?)
}

pub(crate) fn cuGraphExecKernelNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> Answer {
    set_in(exec, node, nodes::kernel(&raw::load(params)?)?)
}

pub(crate) fn cuGraphExecKernelNodeSetParams_v2(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> Answer {
    set_in(exec, node, nodes::kernel(&nodes::newer(&raw::load(params)?))?)
}

pub(crate) fn cuGraphExecMemcpyNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_MEMCPY3D,
    _ctx: CUcontext,
) -> Answer {
    set_in(exec, node, nodes::copying(driver()?, params)?)
}

pub(crate) fn cuGraphExecMemsetNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_MEMSET_NODE_PARAMS,
    _ctx: CUcontext,
) -> Answer {
    set_in(exec, node, nodes::memset(driver()?, params)?)
}

pub(crate) fn cuGraphExecHostNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_HOST_NODE_PARAMS,
) -> Answer {
    set_in(exec, node, nodes::host(params)?)
}

pub(crate) fn cuGraphExecBatchMemOpNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Answer {
    set_in(exec, node, nodes::batch(driver()?, params)?)
}

pub(crate) fn cuGraphExecEventRecordNodeSetEvent(
    exec: CUgraphExec,
    node: CUgraphNode,
    event: CUevent,
) -> Answer {
    set_in(exec, node, nodes::record(driver()?, event)?)
}

pub(crate) fn cuGraphExecEventWaitNodeSetEvent(
    exec: CUgraphExec,
    node: CUgraphNode,
    event: CUevent,
) -> Answer {
    set_in(exec, node, nodes::wait(driver()?, event)?)
}

/// The child graph must have the shape of the one in its place.
pub(crate) fn cuGraphExecChildGraphNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    graph: CUgraph,
) -> Answer {
    let driver = driver()?;
    let exec = find_exec(driver, exec)?;
    let new = lock(&super::find(driver, graph)?.body).snapshot();
    let changed = lock(&exec.body).change(node.addr(), |known| match &known.work {
        Work::Child(child) => {
            super::ready::take_over(&mut lock(&child.body), new).map_err(|_| CUresult::ERROR_INVALID_VALUE)
        }
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    });
    changed.ok_or(CUresult::ERROR_INVALID_VALUE)?
}

fn can_be_disabled(work: &Work) -> bool {
    matches!(work, Work::Kernel(_) | Work::Fill { .. } | Work::Copy { .. })
}

pub(crate) fn cuGraphNodeSetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: c_uint) -> Answer {
    let exec = find_exec(driver()?, exec)?;
    let changed = lock(&exec.body).change(node.addr(), |known| {
        known.enabled = enabled != 0;
        can_be_disabled(&known.work)
    });
    changed.filter(|&can| can).map(|_| ()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) fn cuGraphNodeGetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: *mut c_uint) -> Answer {
    let exec = find_exec(driver()?, exec)?;
    let known = lock(&exec.body).change(node.addr(), |known| (can_be_disabled(&known.work), known.enabled));
    match known {
        Some((true, known)) => raw::store(enabled, known.into()),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE` and `_PRIORITY`, the attributes that are simulated.
const COOPERATIVE: CUenum = 2;
const PRIORITY: CUenum = 8;

pub(crate) fn cuGraphKernelNodeGetAttribute(
    node: CUgraphNode,
    attribute: CUenum,
    value: *mut c_void,
) -> Answer {
    let kernel = kernel_of(node)?;
    match attribute {
        COOPERATIVE => raw::store(value.cast(), c_int::from(kernel.launch.cooperative)),
        PRIORITY => raw::store(value.cast(), kernel.priority),
        _ => Err(CUresult::ERROR_NOT_SUPPORTED),
    }
}

pub(crate) fn cuGraphKernelNodeSetAttribute(
    node: CUgraphNode,
    attribute: CUenum,
    value: *const c_void,
) -> Answer {
    let mut kernel = KernelNode::clone(&*kernel_of(node)?);
    let told: c_int = raw::load(value.cast())?;
    match attribute {
        COOPERATIVE => kernel.launch.cooperative = told != 0,
        PRIORITY => kernel.priority = told,
        _ => return Err(CUresult::ERROR_NOT_SUPPORTED),
    }
    set(node, Work::Kernel(Arc::new(kernel.renewed())))
}

pub(crate) fn cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode) -> Answer {
    let (from, mut kernel) = (kernel_of(src)?, KernelNode::clone(&*kernel_of(dst)?));
    kernel.launch.cooperative = from.launch.cooperative;
    kernel.priority = from.priority;
    set(dst, Work::Kernel(Arc::new(kernel.renewed())))
}

pub(crate) fn cuGraphNodeGetContainingGraph(node: CUgraphNode, graph: *mut CUgraph) -> Answer {
    raw::store(graph, CUgraph::from_addr(owner(driver()?, node)?.handle))
}
