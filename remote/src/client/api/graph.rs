//! Capture, and the graphs it makes. The worker has the graphs; what a stream takes part in is known here.

use core::ffi::c_char;
use std::sync::Arc;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{
    CUDA_GRAPH_INSTANTIATE_PARAMS, CUenum, CUgraph, CUgraphEdgeData, CUgraphExec,
    CUgraphExecUpdateResultInfo, CUgraphNode, CUresult, CUstream,
};

use super::stream;
use crate::client::capture::{self, Mode};
use crate::client::objects::{Context, Registry, Stream};
use crate::client::state::{Client, client};
use crate::client::{Answer, current, raw, travel};
use crate::wire::operation::{Argument, Arguments, Operation};
use crate::word::Word as _;

/// `CUstreamCaptureStatus`.
const NONE: CUenum = 0;
const ACTIVE: CUenum = 1;
const INVALIDATED: CUenum = 2;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD`.
const UPLOAD: u64 = 2;

fn find(stream: CUstream) -> Result<(&'static Client, Arc<Context>, Arc<Stream>), CUresult> {
    let client = client()?;
    let context = current::context(client)?;
    let stream = current::stream(client, &context, stream.addr())?;
    Ok((client, context, stream))
}

/// A call by rule, in whatever context is current.
fn by_rule(client: &Client, symbol: Symbol, words: &[u64]) -> Result<travel::Made, CUresult> {
    client.session.check()?;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, words, current::any(client).ok().as_ref())
}

/// The same for a call that makes a graph, or one made ready.
fn make(client: &Client, of: &Registry<()>, symbol: Symbol, words: &[u64]) -> Answer {
    for id in by_rule(client, symbol, words)? {
        of.insert(id, Arc::new(()));
    }
    Ok(())
}

/// The worker's driver is told to forbid nothing; see [`capture`].
pub fn cuStreamBeginCapture_v2(stream: CUstream, mode: CUenum) -> Answer {
    const RELAXED: u64 = 2;
    let mode = Mode::parse(mode)?;
    let (client, context, stream) = find(stream)?;
    // What was put into it before is waited for by others as ever; a captured stream can be asked nothing.
    stream::fence(client, &context, &stream, stream::Next::GoesOn)?;
    capture::begin(client, &stream, mode)?;
    let mut arguments = Arguments::new();
    arguments.push(Argument::Handle(Kind::Stream, stream.id));
    arguments.push(Argument::Word(RELAXED));
    client.session.tell(context.id, &Operation::Call(Symbol::cuStreamBeginCapture_v2, arguments))
}

pub fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> Answer {
    let (client, context, stream) = find(stream)?;
    if graph.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(graph, CUgraph::NULL)?;
    let ended = capture::end(client, &stream)?;
    let id = client.graphs.number();
    let mut arguments = Arguments::new();
    arguments.push(Argument::Handle(Kind::Stream, stream.id));
    arguments.push(Argument::New(Kind::Graph, id));
    let reply = client.session.ask(context.id, &Operation::Call(Symbol::cuStreamEndCapture, arguments))?;
    if !reply.status.is_success() {
        return Err(reply.status);
    }
    if ended.is_invalidated() {
        // Only this side knows; the other has made a graph that nobody wants.
        destroy(client, Symbol::cuGraphDestroy, Kind::Graph, id)?;
        return Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    client.graphs.insert(id, Arc::new(()));
    raw::store(graph, CUgraph::from_addr(client.arena.handle(Kind::Graph, id)))
}

fn destroy(client: &Client, symbol: Symbol, kind: Kind, id: u32) -> Answer {
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(kind, id));
    let context = current::any(client).map_or(0, |context| context.id);
    client.session.tell(context, &Operation::Call(symbol, arguments))
}

/// Status and identity of the capture a stream takes part in. Asking the legacy stream while a blocking stream of its
/// context is captured harms no capture, and is an error.
fn status(stream: CUstream) -> Result<(CUenum, u64), CUresult> {
    let (client, _, stream) = find(stream)?;
    if capture::is_implied(client, &stream) {
        return Err(CUresult::ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    Ok(match capture::of(&stream) {
        None => (NONE, 0),
        Some(capture) if capture.is_invalidated() => (INVALIDATED, capture.id),
        Some(capture) => (ACTIVE, capture.id),
    })
}

pub fn cuStreamIsCapturing(stream: CUstream, told: *mut CUenum) -> Answer {
    raw::store(told, status(stream)?.0)
}

pub fn cuStreamGetCaptureInfo(stream: CUstream, told: *mut CUenum, id: *mut u64) -> Answer {
    let (status, capture) = status(stream)?;
    raw::store(told, status)?;
    if status == ACTIVE {
        raw::store_if(id, capture);
    }
    Ok(())
}

/// The graph so far and its nodes are the worker's: who asks for them is refused.
pub fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    told: *mut CUenum,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> Answer {
    let wanted = !(graph.is_null() && dependencies.is_null() && count.is_null());
    if wanted && status(stream)?.0 == ACTIVE {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    cuStreamGetCaptureInfo(stream, told, id)
}

pub fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    told: *mut CUenum,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const CUgraphEdgeData,
    count: *mut usize,
) -> Answer {
    if !edges.is_null() && status(stream)?.0 == ACTIVE {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    cuStreamGetCaptureInfo_v2(stream, told, id, graph, dependencies, count)
}

pub fn cuThreadExchangeStreamCaptureMode(mode: *mut CUenum) -> Answer {
    client()?;
    let before = capture::exchange(Mode::parse(raw::load(mode.cast_const())?)?);
    raw::store(mode, before.code())
}

pub fn cuGraphClone(clone: *mut CUgraph, graph: CUgraph) -> Answer {
    let client = client()?;
    make(client, &client.graphs, Symbol::cuGraphClone, &[clone.to_word(), graph.to_word()])
}

pub fn cuGraphDestroy(graph: CUgraph) -> Answer {
    let client = client()?;
    let id = client.arena.id(Kind::Graph, graph.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    client.graphs.remove(id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    destroy(client, Symbol::cuGraphDestroy, Kind::Graph, id)
}

/// How many nodes there are; the nodes themselves are the worker's.
pub fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Answer {
    let client = client()?;
    if !nodes.is_null() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    by_rule(client, Symbol::cuGraphGetNodes, &[graph.to_word(), 0, count.to_word()]).map(|_| ())
}

pub fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) -> Answer {
    let client = client()?;
    let words = [exec.to_word(), graph.to_word(), flags];
    make(client, &client.execs, Symbol::cuGraphInstantiateWithFlags, &words)
}

/// Which node is at fault is not told from afar, nor anything said of it.
pub fn cuGraphInstantiate_v2(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_bytes: usize,
) -> Answer {
    raw::store_if(error_node, CUgraphNode::NULL);
    if log_bytes > 0 {
        raw::store_if(log, 0);
    }
    cuGraphInstantiateWithFlags(exec, graph, 0)
}

pub fn cuGraphInstantiate(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_bytes: usize,
) -> Answer {
    cuGraphInstantiate_v2(exec, graph, error_node, log, log_bytes)
}

pub fn cuGraphInstantiateWithParams(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
) -> Answer {
    const SUCCESS: CUenum = 0;
    const ERROR: CUenum = 1;
    let mut given = raw::load(params.cast_const())?;
    given.hErrNode_out = CUgraphNode::NULL;
    let outcome = cuGraphInstantiateWithFlags(exec, graph, given.flags & !UPLOAD).and_then(|()| {
        if given.flags & UPLOAD == 0 {
            return Ok(());
        }
        let words = [raw::load(exec.cast_const())?.to_word(), given.hUploadStream.to_word()];
        travel::plain(Symbol::cuGraphUpload, &words)
    });
    given.result_out = if outcome.is_ok() { SUCCESS } else { ERROR };
    raw::store(params, given)?;
    outcome
}

/// Which node is at fault is not told from afar.
pub fn cuGraphExecUpdate_v2(
    exec: CUgraphExec,
    graph: CUgraph,
    result: *mut CUgraphExecUpdateResultInfo,
) -> Answer {
    /// `CU_GRAPH_EXEC_UPDATE_ERROR`: for a reason that the call's status says.
    const ERROR: CUenum = 1;
    let client = client()?;
    if result.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let none = CUgraphNode::NULL;
    let mut told = CUgraphExecUpdateResultInfo { result: ERROR, errorNode: none, errorFromNode: none };
    let words = [exec.to_word(), graph.to_word(), (&raw mut told).to_word()];
    let outcome = by_rule(client, Symbol::cuGraphExecUpdate_v2, &words);
    // Nodes in it, if any, would be the worker's.
    raw::store(result, CUgraphExecUpdateResultInfo { errorNode: none, errorFromNode: none, ..told })?;
    outcome.map(|_| ())
}

pub fn cuGraphExecDestroy(exec: CUgraphExec) -> Answer {
    let client = client()?;
    let id = client.arena.id(Kind::Exec, exec.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    client.execs.remove(id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    destroy(client, Symbol::cuGraphExecDestroy, Kind::Exec, id)
}

pub fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let symbol = Symbol::cuGraphLaunch;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, &[exec.to_word(), stream.to_word()], Some(&context))?;
    context.report()
}
