//! Capturing streams into graphs.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use std::collections::BTreeSet;
use std::sync::Arc;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUenum, CUgraph, CUgraphEdgeData, CUgraphNode, CUresult, CUstream};

use super::twins;
use crate::capture::{self, Mode};
use crate::driver::{Answer, Driver, driver};
use crate::graph::{Edge, Graph};
use crate::objects::{Stream, lock};
use crate::{current, raw};

/// `CUstreamCaptureStatus`.
const NONE: CUenum = 0;
const ACTIVE: CUenum = 1;
const INVALIDATED: CUenum = 2;

fn find(mode: ThreadMode, stream: CUstream) -> Result<(&'static Driver, Arc<Stream>), CUresult> {
    let driver = driver()?;
    let context = current::context(driver)?;
    Ok((driver, current::stream(driver, &context, stream, mode)?))
}

fn begin(mode: ThreadMode, stream: CUstream, how: CUenum) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    capture::begin(driver, &stream, Mode::parse(how)?, None)
}

fn begin_old(mode: ThreadMode, stream: CUstream) -> Answer {
    begin(mode, stream, 0)
}

/// Nodes of a graph that a stream's next one shall come after, by ordinary edges: others are not simulated in captures.
fn dependencies_of(
    graph: &Graph,
    nodes: *const CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
) -> Result<BTreeSet<usize>, CUresult> {
    let mut found = BTreeSet::new();
    for index in 0..count {
        let node = raw::load_at(nodes, index)?.addr();
        if !edges.is_null() && Edge::parse(raw::load_at(edges, index)?)? != Edge::default() {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        if !lock(&graph.body).nodes.contains_key(&node) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        found.insert(node);
    }
    Ok(found)
}

fn begin_to_graph(
    mode: ThreadMode,
    stream: CUstream,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
    how: CUenum,
) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    let known = driver.graphs.get(graph.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let after = dependencies_of(&known, dependencies, edges, count)?;
    capture::begin(driver, &stream, Mode::parse(how)?, Some((known, after)))
}

fn end(mode: ThreadMode, stream: CUstream, graph: *mut CUgraph) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    let ended = capture::end(driver, &stream);
    match ended {
        Ok(made) => raw::store(graph, CUgraph::from_addr(made.handle)),
        Err(status) => {
            raw::store_if(graph, CUgraph::NULL);
            Err(status)
        }
    }
}

fn status_of(stream: &Stream) -> CUenum {
    match capture::of(stream) {
        None => NONE,
        Some(capture) if capture.is_invalidated() => INVALIDATED,
        Some(_) => ACTIVE,
    }
}

/// Asking the legacy stream while a blocking stream of its context is captured harms no capture, and is an error.
fn ask(mode: ThreadMode, stream: CUstream) -> Result<Arc<Stream>, CUresult> {
    let (driver, stream) = find(mode, stream)?;
    if capture::is_implied(driver, &stream) {
        return Err(CUresult::ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    Ok(stream)
}

fn is_capturing(mode: ThreadMode, stream: CUstream, status: *mut CUenum) -> Answer {
    raw::store(status, status_of(&*ask(mode, stream)?))
}

fn info(
    mode: ThreadMode,
    stream: CUstream,
    status: *mut CUenum,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> Answer {
    let stream = ask(mode, stream)?;
    let told = status_of(&stream);
    raw::store(status, told)?;
    if let Some(capture) = capture::of(&stream).filter(|_| told == ACTIVE) {
        let (nodes, length) = capture.tell_after(&stream);
        raw::store_if(id, capture.id);
        raw::store_if(graph, CUgraph::from_addr(capture.graph.handle));
        // A node's handle is a number of a pointer's size.
        raw::store_if(dependencies, nodes.cast());
        raw::store_if(count, length);
    }
    Ok(())
}

fn info_old(mode: ThreadMode, stream: CUstream, status: *mut CUenum, id: *mut u64) -> Answer {
    let none = core::ptr::null_mut();
    info(mode, stream, status, id, none, core::ptr::null_mut(), core::ptr::null_mut())
}

#[expect(clippy::too_many_arguments, reason = "the signature is the driver API's")]
fn info_with_edges(
    mode: ThreadMode,
    stream: CUstream,
    status: *mut CUenum,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const CUgraphEdgeData,
    count: *mut usize,
) -> Answer {
    // All edges of a capture are ordinary, which no data says.
    raw::store_if(edges, core::ptr::null());
    info(mode, stream, status, id, graph, dependencies, count)
}

fn update(
    mode: ThreadMode,
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    count: usize,
    flags: u32,
) -> Answer {
    update_with_edges(mode, stream, dependencies, core::ptr::null(), count, flags)
}

fn update_with_edges(
    mode: ThreadMode,
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
    flags: u32,
) -> Answer {
    const SET: u32 = 1;
    let (_, stream) = find(mode, stream)?;
    let capture = capture::of(&stream).ok_or(CUresult::ERROR_ILLEGAL_STATE)?;
    if capture.is_invalidated() {
        return Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    if flags > SET {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let nodes = dependencies_of(&capture.graph, dependencies.cast_const(), edges, count)?;
    capture.set_after(&stream, nodes, flags != SET);
    Ok(())
}

twins! {
    cuStreamBeginCapture, cuStreamBeginCapture_ptsz (stream: CUstream) = begin_old;
    cuStreamBeginCapture_v2, cuStreamBeginCapture_v2_ptsz (stream: CUstream, how: CUenum) = begin;
    cuStreamBeginCaptureToGraph, cuStreamBeginCaptureToGraph_ptsz (stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const CUgraphEdgeData, count: usize, how: CUenum) = begin_to_graph;
    cuStreamEndCapture, cuStreamEndCapture_ptsz (stream: CUstream, graph: *mut CUgraph) = end;
    cuStreamIsCapturing, cuStreamIsCapturing_ptsz (stream: CUstream, status: *mut CUenum) = is_capturing;
    cuStreamGetCaptureInfo, cuStreamGetCaptureInfo_ptsz (stream: CUstream, status: *mut CUenum, id: *mut u64) = info_old;
    cuStreamGetCaptureInfo_v2, cuStreamGetCaptureInfo_v2_ptsz (stream: CUstream, status: *mut CUenum, id: *mut u64, graph: *mut CUgraph, dependencies: *mut *const CUgraphNode, count: *mut usize) = info;
    cuStreamGetCaptureInfo_v3, cuStreamGetCaptureInfo_v3_ptsz (stream: CUstream, status: *mut CUenum, id: *mut u64, graph: *mut CUgraph, dependencies: *mut *const CUgraphNode, edges: *mut *const CUgraphEdgeData, count: *mut usize) = info_with_edges;
    cuStreamUpdateCaptureDependencies, cuStreamUpdateCaptureDependencies_ptsz (stream: CUstream, dependencies: *mut CUgraphNode, count: usize, flags: u32) = update;
    cuStreamUpdateCaptureDependencies_v2, cuStreamUpdateCaptureDependencies_v2_ptsz (stream: CUstream, dependencies: *mut CUgraphNode, edges: *const CUgraphEdgeData, count: usize, flags: u32) = update_with_edges;
}

pub(crate) fn cuThreadExchangeStreamCaptureMode(mode: *mut CUenum) -> Answer {
    driver()?;
    let before = capture::exchange_thread_mode(Mode::parse(raw::load(mode.cast_const())?)?);
    raw::store(mode, before.code())
}
