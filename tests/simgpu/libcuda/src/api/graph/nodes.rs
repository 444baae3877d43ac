//! Nodes of every kind, from the parameters a program gives.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_int;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::types::{
    CU_MEM_LOCATION_TYPE_DEVICE, CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS,
    CUDA_KERNEL_NODE_PARAMS, CUDA_KERNEL_NODE_PARAMS_v1, CUDA_MEM_ALLOC_NODE_PARAMS, CUDA_MEMCPY3D,
    CUDA_MEMSET_NODE_PARAMS, CUcontext, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphEdgeData,
    CUgraphNode, CUgraphNodeParams, CUresult,
};
use headgate_simgpu::protocol::Command;

use super::build::{add, insert};
use super::find;
use crate::api::{copy, device, event, launch, memop, memory as device_memory};
use crate::driver::{Answer, Driver, driver};
use crate::graph::memory::NodeMemory;
use crate::graph::{Graph, Work};
use crate::objects::lock;
use crate::{current, raw};

/// Where a new node goes: the graph, and what it comes after.
type Place = (CUgraph, *const CUgraphNode, usize);

fn add_plain(
    to: *mut CUgraphNode,
    (graph, dependencies, count): Place,
    work: impl FnOnce(&'static Driver) -> Result<Work, CUresult>,
) -> Answer {
    let driver = driver()?;
    add(driver, to, graph, (dependencies, core::ptr::null(), count), || work(driver))
}

pub(super) fn kernel(params: &CUDA_KERNEL_NODE_PARAMS_v1) -> Result<Work, CUresult> {
    let driver = driver()?;
    let context = current::context(driver)?;
    launch::prepare(driver, &context, params).map(|kernel| Work::Kernel(Arc::new(kernel)))
}

/// From CUDA 12 on the kernel may be named without a context.
pub(super) fn newer(params: &CUDA_KERNEL_NODE_PARAMS) -> CUDA_KERNEL_NODE_PARAMS_v1 {
    let mut launch = params.launch;
    if launch.func.is_null() {
        launch.func = CUfunction::from_addr(params.kern.addr());
    }
    launch
}

pub(super) fn copying(driver: &Driver, params: *const CUDA_MEMCPY3D) -> Result<Work, CUresult> {
    let commands = copy::commands_3d(driver, params)?;
    let told = raw::bytes(params.cast(), size_of::<CUDA_MEMCPY3D>())?;
    Ok(Work::Copy { commands, told: told.into() })
}

pub(super) fn memset(driver: &Driver, params: *const CUDA_MEMSET_NODE_PARAMS) -> Result<Work, CUresult> {
    let told = raw::load(params)?;
    let (width, height) = (told.width as u64, told.height as u64);
    let row = width.checked_mul(told.elementSize.into()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let pitch = if height == 1 { row } else { told.pitch as u64 };
    if !matches!(told.elementSize, 1 | 2 | 4)
        || width == 0
        || height == 0
        || pitch < row
        || !told.dst.is_multiple_of(told.elementSize.into())
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let span = pitch.checked_mul(height - 1).and_then(|rows| rows.checked_add(row));
    device_memory::device_range(driver, told.dst, span.ok_or(CUresult::ERROR_INVALID_VALUE)?)?;
    let (value, element) = (told.value, told.elementSize);
    Ok(Work::Fill { command: Command::Fill { at: told.dst, pitch, value, element, width, height }, told })
}

pub(super) fn host(params: *const CUDA_HOST_NODE_PARAMS) -> Result<Work, CUresult> {
    let told = raw::load(params)?;
    if told.call.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(Work::Host { call: told.call.expose_provenance(), data: told.userData.expose_provenance() })
}

pub(super) fn batch(driver: &Driver, params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS) -> Result<Work, CUresult> {
    let told = raw::load(params)?;
    let commands = memop::commands(driver, told.count, told.paramArray, told.flags)?;
    let operations: Result<_, CUresult> =
        (0..told.count as usize).map(|index| raw::load_at(told.paramArray.cast_const(), index)).collect();
    Ok(Work::MemoryOperations { commands, told: operations? })
}

pub(super) fn record(driver: &Driver, handle: CUevent) -> Result<Work, CUresult> {
    Ok(Work::Record { handle: handle.addr(), event: event::find(driver, handle)? })
}

pub(super) fn wait(driver: &Driver, handle: CUevent) -> Result<Work, CUresult> {
    Ok(Work::Wait { handle: handle.addr(), event: event::find(driver, handle)? })
}

/// A copy of a graph as it is now. One with memory nodes cannot be copied.
pub(super) fn child(driver: &Driver, graph: CUgraph) -> Result<Work, CUresult> {
    let graph = find(driver, graph)?;
    if lock(&graph.body).has_memory() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    Ok(Work::Child(Graph::copied(driver, &graph)))
}

/// The graph itself becomes the child (`CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE`).
fn moved_child(driver: &Driver, graph: CUgraph) -> Result<Work, CUresult> {
    let graph = find(driver, graph)?;
    if graph.is_captured_to.load(Ordering::Relaxed) || graph.is_child.swap(true, Ordering::Relaxed) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(Work::Child(graph))
}

fn allocation(driver: &Driver, params: &CUDA_MEM_ALLOC_NODE_PARAMS) -> Result<Arc<NodeMemory>, CUresult> {
    let properties = params.poolProps;
    if properties.location.kind != CU_MEM_LOCATION_TYPE_DEVICE || properties.handleTypes != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    NodeMemory::new(driver, device::index(driver, properties.location.id)?, params.bytesize as u64)
}

/// Only what an allocation node gave can be freed by a free node.
pub(crate) fn freeing(driver: &Driver, dptr: CUdeviceptr) -> Result<Work, CUresult> {
    NodeMemory::find(driver, dptr).map(Work::Free).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) fn cuGraphAddKernelNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |_| kernel(&raw::load(params)?))
}

pub(crate) fn cuGraphAddKernelNode_v2(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |_| kernel(&newer(&raw::load(params)?)))
}

pub(crate) fn cuGraphAddMemcpyNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_MEMCPY3D,
    _ctx: CUcontext,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| copying(driver, params))
}

pub(crate) fn cuGraphAddMemsetNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_MEMSET_NODE_PARAMS,
    _ctx: CUcontext,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| memset(driver, params))
}

pub(crate) fn cuGraphAddHostNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_HOST_NODE_PARAMS,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |_| host(params))
}

pub(crate) fn cuGraphAddEmptyNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |_| Ok(Work::Empty))
}

pub(crate) fn cuGraphAddChildGraphNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    of: CUgraph,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| child(driver, of))
}

pub(crate) fn cuGraphAddEventRecordNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    of: CUevent,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| record(driver, of))
}

pub(crate) fn cuGraphAddEventWaitNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    of: CUevent,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| wait(driver, of))
}

pub(crate) fn cuGraphAddBatchMemOpNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| batch(driver, params))
}

pub(crate) fn cuGraphAddMemAllocNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> Answer {
    let mut told = raw::load(params.cast_const())?;
    let mut address = 0;
    add_plain(node, (graph, dependencies, count), |driver| {
        let memory = allocation(driver, &told)?;
        address = memory.address;
        Ok(Work::Allocate(memory))
    })?;
    told.dptr = address;
    raw::store(params, told)
}

pub(crate) fn cuGraphAddMemFreeNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    dptr: CUdeviceptr,
) -> Answer {
    add_plain(node, (graph, dependencies, count), |driver| freeing(driver, dptr))
}

/// The parameters of one kind in a description of any node.
fn payload<T: Copy>(params: *const CUgraphNodeParams) -> *const T {
    /// Bytes before the parameters of a kind.
    const HEAD: usize = 16;
    const { assert!(size_of::<T>() <= size_of::<CUgraphNodeParams>() - HEAD) };
    params.wrapping_byte_add(HEAD).cast()
}

/// What a described node does, as far as it says it without changing the description.
pub(super) fn described(driver: &Driver, params: *const CUgraphNodeParams) -> Result<Work, CUresult> {
    const MOVE: u32 = 1;
    /// Bytes of flags and context before the copy itself in `CUDA_MEMCPY_NODE_PARAMS`.
    const COPY_HEAD: usize = 16;
    let kind = raw::load(params)?.kind;
    match kind {
        0 => kernel(&newer(&raw::load(payload(params))?)),
        1 => copying(driver, payload::<[u64; 27]>(params).wrapping_byte_add(COPY_HEAD).cast()),
        2 => memset(driver, payload(params)),
        3 => host(payload(params)),
        4 => {
            let [graph, ownership]: [u64; 2] = raw::load(payload(params))?;
            let graph = CUgraph::from_addr(usize::try_from(graph).unwrap_or(0));
            if ownership & u64::from(u32::MAX) == u64::from(MOVE) {
                moved_child(driver, graph)
            } else {
                child(driver, graph)
            }
        }
        5 => Ok(Work::Empty),
        6 => wait(driver, raw::load(payload(params))?),
        7 => record(driver, raw::load(payload(params))?),
        11 => freeing(driver, raw::load(payload(params))?),
        12 => batch(driver, payload(params)),
        // External semaphores and conditional nodes are not simulated.
        8 | 9 | 13 => Err(CUresult::ERROR_NOT_SUPPORTED),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

pub(crate) fn cuGraphAddNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> Answer {
    cuGraphAddNode_v2(node, graph, dependencies, core::ptr::null(), count, params)
}

pub(crate) fn cuGraphAddNode_v2(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> Answer {
    const ALLOCATE: u32 = 10;
    let driver = driver()?;
    let from = (dependencies, data, count);
    if raw::load(params.cast_const())?.kind != ALLOCATE {
        return add(driver, node, graph, from, || described(driver, params));
    }
    let at: *const CUDA_MEM_ALLOC_NODE_PARAMS = payload(params);
    let mut told = raw::load(at)?;
    add(driver, node, graph, from, || {
        let memory = allocation(driver, &told)?;
        told.dptr = memory.address;
        Ok(Work::Allocate(memory))
    })?;
    raw::store(at.cast_mut(), told)
}

pub(crate) fn cuGraphAddNode_v3(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> Answer {
    cuGraphAddNode_v2(node, graph, dependencies, data, count, params)
}

pub(crate) fn cuGraphMemAllocNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> Answer {
    let Work::Allocate(memory) = super::params::work_of(node)? else {
        return Err(CUresult::ERROR_INVALID_VALUE);
    };
    // The structure is plain integers and pointers that may be null.
    let mut told = raw::load(params.cast_const())?;
    told.poolProps.location.kind = CU_MEM_LOCATION_TYPE_DEVICE;
    told.poolProps.location.id = c_int::try_from(memory.device).unwrap_or(c_int::MAX);
    told.bytesize = usize::try_from(memory.bytes).unwrap_or(usize::MAX);
    told.dptr = memory.address;
    raw::store(params, told)
}

/// A captured call becomes a node.
pub(crate) fn insert_captured(
    driver: &Driver,
    graph: &Arc<Graph>,
    work: Work,
    after: impl IntoIterator<Item = usize>,
) -> Result<usize, CUresult> {
    let after: BTreeMap<_, _> = after.into_iter().map(|node| (node, crate::graph::Edge::default())).collect();
    insert(driver, graph, work, after)
}
