//! Making, copying and ending graphs, and taking nodes out.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::types::{CUgraph, CUgraphEdgeData, CUgraphNode, CUresult};

use super::{find, handles, owner};
use crate::driver::{Answer, Driver, driver};
use crate::graph::{Body, Edge, Graph, Node, Work};
use crate::objects::lock;
use crate::raw;

pub(crate) fn cuGraphCreate(graph: *mut CUgraph, flags: c_uint) -> Answer {
    let driver = driver()?;
    if flags != 0 || graph.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let made = Graph::of(driver.graphs.reserve(), Body::default());
    let handle = made.handle;
    driver.graphs.insert(handle, Arc::new(made));
    raw::store(graph, CUgraph::from_addr(handle))
}

/// A child graph ends with its node, and one that a stream is captured into not at all.
pub(crate) fn cuGraphDestroy(graph: CUgraph) -> Answer {
    let driver = driver()?;
    let gone = find(driver, graph)?;
    if gone.is_child.load(Ordering::Relaxed) || gone.is_captured_to.load(Ordering::Relaxed) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    gone.forget(driver);
    Ok(())
}

/// Graphs with memory nodes cannot be cloned (`cuGraphAddMemAllocNode`).
pub(crate) fn cuGraphClone(clone: *mut CUgraph, graph: CUgraph) -> Answer {
    let driver = driver()?;
    let original = find(driver, graph)?;
    if clone.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if lock(&original.body).has_memory() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    raw::store(clone, CUgraph::from_addr(Graph::cloned(driver, &original).handle))
}

pub(crate) fn cuGraphNodeFindInClone(
    node: *mut CUgraphNode,
    original: CUgraphNode,
    clone: CUgraph,
) -> Answer {
    let clone = find(driver()?, clone)?;
    let found = lock(&clone.originals).get(&original.addr()).copied();
    let found = found.filter(|found| lock(&clone.body).nodes.contains_key(found));
    raw::store(node, CUgraphNode::from_addr(found.ok_or(CUresult::ERROR_INVALID_VALUE)?))
}

/// Nodes of a graph with memory nodes cannot be taken out (`cuGraphDestroyNode`).
pub(crate) fn cuGraphDestroyNode(node: CUgraphNode) -> Answer {
    let driver = driver()?;
    let graph = owner(driver, node)?;
    if graph.is_captured_to.load(Ordering::Relaxed) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut body = lock(&graph.body);
    if body.owns_memory() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let gone = body.nodes.remove(&node.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    for other in body.nodes.values_mut() {
        other.after.remove(&node.addr());
    }
    driver.graph_nodes.remove(node.addr());
    drop(body);
    if let Work::Child(child) = gone.work {
        child.forget(driver);
    }
    Ok(())
}

/// What a new node comes after, checked. No data means ordinary edges.
pub(super) fn edges_from(
    graph: &Graph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Result<BTreeMap<usize, Edge>, CUresult> {
    let body = lock(&graph.body);
    let mut after = BTreeMap::new();
    for (index, node) in handles(dependencies, count)?.into_iter().enumerate() {
        let edge = if data.is_null() { Edge::default() } else { Edge::parse(raw::load_at(data, index)?)? };
        if !body.nodes.contains_key(&node) || after.insert(node, edge).is_some() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
    }
    Ok(after)
}

/// Puts a node into a graph. Returns its handle.
pub(crate) fn insert(
    driver: &Driver,
    graph: &Arc<Graph>,
    work: Work,
    after: BTreeMap<usize, Edge>,
) -> Result<usize, CUresult> {
    let handle = driver.graph_nodes.reserve();
    if matches!(&work, Work::Child(child) if child.handle == graph.handle || child.contains(graph.handle)) {
        // A graph inside itself.
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut body = lock(&graph.body);
    if let Work::Free(memory) = &work {
        // "CUDA_ERROR_INVALID_VALUE if the user attempts to free an allocation twice in the same graph."
        let is_freed =
            |node: &Node| matches!(&node.work, Work::Free(other) if other.address == memory.address);
        if body.nodes.values().any(is_freed) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
    }
    body.nodes.insert(handle, Node::new(work, after));
    driver.graph_nodes.insert(handle, Arc::clone(graph));
    Ok(handle)
}

/// Adds a node as a call of the driver API asks.
pub(super) fn add(
    driver: &Driver,
    to: *mut CUgraphNode,
    graph: CUgraph,
    (dependencies, data, count): (*const CUgraphNode, *const CUgraphEdgeData, usize),
    work: impl FnOnce() -> Result<Work, CUresult>,
) -> Answer {
    let graph = find(driver, graph)?;
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let after = edges_from(&graph, dependencies, data, count)?;
    let handle = insert(driver, &graph, work()?, after)?;
    raw::store(to, CUgraphNode::from_addr(handle))
}
