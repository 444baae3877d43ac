//! Edges, and lists of nodes and edges.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use headgate_abi::cuda::types::{CUgraph, CUgraphEdgeData, CUgraphNode, CUresult};

use super::{find, handles, owner};
use crate::driver::{Answer, driver};
use crate::graph::{Body, Edge};
use crate::objects::lock;
use crate::raw;

/// Changes a graph's edges, all of them or none.
fn change(
    graph: CUgraph,
    (from, to, count): (*const CUgraphNode, *const CUgraphNode, usize),
    mut work: impl FnMut(&mut Body, usize, usize, usize) -> Answer,
) -> Answer {
    let graph = find(driver()?, graph)?;
    let mut body = lock(&graph.body);
    let mut changed = body.clone();
    let pairs = handles(from, count)?.into_iter().zip(handles(to, count)?);
    for (index, (from, to)) in pairs.enumerate() {
        work(&mut changed, from, to, index)?;
    }
    *body = changed;
    Ok(())
}

fn edge_at(data: *const CUgraphEdgeData, index: usize) -> Result<Edge, CUresult> {
    if data.is_null() { Ok(Edge::default()) } else { Edge::parse(raw::load_at(data, index)?) }
}

pub(crate) fn cuGraphAddDependencies(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> Answer {
    cuGraphAddDependencies_v2(graph, from, to, core::ptr::null(), count)
}

pub(crate) fn cuGraphAddDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Answer {
    change(graph, (from, to, count), |body, from, to, index| body.depend(to, from, edge_at(data, index)?))
}

pub(crate) fn cuGraphRemoveDependencies(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> Answer {
    cuGraphRemoveDependencies_v2(graph, from, to, core::ptr::null(), count)
}

/// Edges of a graph with memory nodes cannot be taken out.
pub(crate) fn cuGraphRemoveDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Answer {
    change(graph, (from, to, count), |body, from, to, index| {
        if body.owns_memory() {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let node = body.nodes.get_mut(&to).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let edge = edge_at(data, index)?;
        if node.after.get(&from) != Some(&edge) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        node.after.remove(&from);
        Ok(())
    })
}

/// Writes as many as there is room for, null into the rest, and how many were written; with no place to write, only how
/// many there are.
fn list<T: Copy>(found: &[T], rest: T, to: *mut T, room: usize) -> Answer {
    if to.is_null() {
        return Ok(());
    }
    for index in 0..room {
        raw::store(to.wrapping_add(index), found.get(index).copied().unwrap_or(rest))?;
    }
    Ok(())
}

fn list_nodes(found: &[usize], to: *mut CUgraphNode, count: *mut usize) -> Answer {
    let room = raw::load(count.cast_const())?;
    let found: Vec<CUgraphNode> = found.iter().map(|&node| CUgraphNode::from_addr(node)).collect();
    list(&found, CUgraphNode::NULL, to, room)?;
    raw::store(count, if to.is_null() { found.len() } else { found.len().min(room) })
}

/// A query that has no place for edge data is refused where data would be lost.
fn list_data(found: &[Edge], to: *mut CUgraphEdgeData, asked: bool, room: usize) -> Answer {
    if !asked {
        return Ok(());
    }
    if to.is_null() && found.iter().any(|&edge| edge != Edge::default()) {
        return Err(CUresult::ERROR_LOSSY_QUERY);
    }
    let data: Vec<CUgraphEdgeData> = found.iter().map(|edge| edge.data()).collect();
    list(&data, Edge::default().data(), to, room)
}

pub(crate) fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Answer {
    let graph = find(driver()?, graph)?;
    let found: Vec<usize> = lock(&graph.body).nodes.keys().copied().collect();
    list_nodes(&found, nodes, count)
}

pub(crate) fn cuGraphGetRootNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Answer {
    let graph = find(driver()?, graph)?;
    let body = lock(&graph.body);
    let roots = body.nodes.iter().filter(|(_, node)| node.after.is_empty());
    list_nodes(&roots.map(|(&node, _)| node).collect::<Vec<_>>(), nodes, count)
}

pub(crate) fn cuGraphGetEdges(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    count: *mut usize,
) -> Answer {
    cuGraphGetEdges_v2(graph, from, to, core::ptr::null_mut(), count)
}

pub(crate) fn cuGraphGetEdges_v2(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Answer {
    let graph = find(driver()?, graph)?;
    let room = raw::load(count.cast_const())?;
    let body = lock(&graph.body);
    let edges = body
        .nodes
        .iter()
        .flat_map(|(&node, known)| known.after.iter().map(move |(&before, &edge)| (before, node, edge)));
    let edges: Vec<(usize, usize, Edge)> = edges.collect();
    if from.is_null() != to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    list_data(&edges.iter().map(|edge| edge.2).collect::<Vec<_>>(), data, !from.is_null(), room)?;
    let ends = |end: fn(&(usize, usize, Edge)) -> usize| {
        edges.iter().map(|edge| CUgraphNode::from_addr(end(edge))).collect::<Vec<_>>()
    };
    list(&ends(|edge| edge.0), CUgraphNode::NULL, from, room)?;
    list(&ends(|edge| edge.1), CUgraphNode::NULL, to, room)?;
    raw::store(count, if from.is_null() { edges.len() } else { edges.len().min(room) })
}

fn neighbours(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
    find: impl FnOnce(&Body) -> Option<Vec<(usize, Edge)>>,
) -> Answer {
    let graph = owner(driver()?, node)?;
    let room = raw::load(count.cast_const())?;
    let found = find(&lock(&graph.body)).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    list_data(&found.iter().map(|(_, edge)| *edge).collect::<Vec<_>>(), data, !nodes.is_null(), room)?;
    list_nodes(&found.iter().map(|(node, _)| *node).collect::<Vec<_>>(), nodes, count)
}

pub(crate) fn cuGraphNodeGetDependencies(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> Answer {
    cuGraphNodeGetDependencies_v2(node, nodes, core::ptr::null_mut(), count)
}

pub(crate) fn cuGraphNodeGetDependencies_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Answer {
    neighbours(node, nodes, data, count, |body| {
        let known = body.nodes.get(&node.addr())?;
        Some(known.after.iter().map(|(&before, &edge)| (before, edge)).collect())
    })
}

pub(crate) fn cuGraphNodeGetDependentNodes(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> Answer {
    cuGraphNodeGetDependentNodes_v2(node, nodes, core::ptr::null_mut(), count)
}

pub(crate) fn cuGraphNodeGetDependentNodes_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Answer {
    neighbours(node, nodes, data, count, |body| {
        let next = body.nodes.iter();
        Some(next.filter_map(|(&next, known)| Some((next, *known.after.get(&node.addr())?))).collect())
    })
}
