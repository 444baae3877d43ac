//! Stream capture of the simulated GPU: what becomes of the calls in a captured stream, which calls the rules forbid,
//! and with which codes.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ptr::null_mut;

use cudarc::driver::sys::{
    self, CUgraph, CUgraphExec, CUresult, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use support::*;

use CUresult::*;
use CUstreamCaptureMode::{
    CU_STREAM_CAPTURE_MODE_GLOBAL as GLOBAL, CU_STREAM_CAPTURE_MODE_RELAXED as RELAXED,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as THREAD_LOCAL,
};
use CUstreamCaptureStatus::{
    CU_STREAM_CAPTURE_STATUS_ACTIVE as ACTIVE, CU_STREAM_CAPTURE_STATUS_INVALIDATED as INVALIDATED,
    CU_STREAM_CAPTURE_STATUS_NONE as NONE,
};

const MIB: usize = 1 << 20;
/// `CU_EVENT_DISABLE_TIMING`.
const UNTIMED: u32 = 2;
const LEGACY: CUstream = std::ptr::without_provenance_mut(1);

fn begin(stream: CUstream, mode: CUstreamCaptureMode) -> Outcome<()> {
    cu!(cuStreamBeginCapture_v2(stream, mode))
}

fn end(stream: CUstream) -> Outcome<CUgraph> {
    let mut graph = std::ptr::dangling_mut();
    let outcome = cu!(cuStreamEndCapture(stream, &mut graph));
    assert_eq!(outcome.is_err(), graph.is_null() || graph == std::ptr::dangling_mut());
    outcome.map(|()| graph)
}

fn status(stream: CUstream) -> Outcome<CUstreamCaptureStatus> {
    let mut status = NONE;
    cu!(cuStreamIsCapturing(stream, &mut status)).map(|()| status)
}

fn ready(graph: CUgraph) -> CUgraphExec {
    let mut exec = null_mut();
    cu!(cuGraphInstantiateWithFlags(&mut exec, graph, 0)).unwrap();
    exec
}

fn nodes(graph: CUgraph) -> usize {
    let mut count = 0;
    cu!(cuGraphGetNodes(graph, null_mut(), &mut count)).unwrap();
    count
}

fn counter() -> u64 {
    let address = allocate(64).unwrap();
    cu!(cuMemsetD8_v2(address, 0, 64)).unwrap();
    cu!(cuCtxSynchronize()).unwrap();
    address
}

fn word(address: u64) -> u64 {
    download::<u64>(address, 1).unwrap()[0]
}

#[test]
fn captured_work_runs_when_the_graph_does() {
    in_child("captured_work_runs_when_the_graph_does", "{}", || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, copy, stream) = (counter(), counter(), stream(1));
        assert_eq!(status(stream), Ok(NONE));
        begin(stream, GLOBAL).unwrap();
        assert_eq!(status(stream), Ok(ACTIVE));
        assert_eq!(begin(stream, GLOBAL), Err(CUDA_ERROR_ILLEGAL_STATE));
        cu!(cuMemsetD32Async(count, 40, 1, stream)).unwrap();
        launch(spin, 1, stream, [param(&count)]).unwrap();
        launch(spin, 1, stream, [param(&count)]).unwrap();
        cu!(cuMemcpyDtoDAsync_v2(copy, count, 8, stream)).unwrap();
        let (mut told, mut id, mut graph, mut after, mut length) = (NONE, 0, null_mut(), std::ptr::null(), 0);
        cu!(cuStreamGetCaptureInfo_v2(stream, &mut told, &mut id, &mut graph, &mut after, &mut length))
            .unwrap();
        assert_eq!((told, length), (ACTIVE, 1));
        assert!(id != 0 && !graph.is_null());
        // SAFETY: valid until the next call on the stream.
        let last = unsafe { *after };
        let captured = end(stream).unwrap();
        assert_eq!((captured, nodes(graph)), (graph, 4));
        let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
        cu!(cuGraphNodeGetType(last, &mut kind)).unwrap();
        assert_eq!(kind, sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY);
        assert_eq!((status(stream), word(count)), (Ok(NONE), 0), "nothing has run");
        let exec = ready(graph);
        for _ in 0..2 {
            cu!(cuGraphLaunch(exec, stream)).unwrap();
            cu!(cuStreamSynchronize(stream)).unwrap();
            assert_eq!((word(count), word(copy)), (42, 42));
        }
        // A kernel that was captured can be asked what it is.
        let mut found = [null_mut(); 4];
        let mut length = 4;
        cu!(cuGraphGetNodes(graph, found.as_mut_ptr(), &mut length)).unwrap();
        // SAFETY: plain numbers and pointers, for which zero is a value.
        let mut params: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
        cu!(cuGraphKernelNodeGetParams_v2(found[1], &mut params)).unwrap();
        assert_eq!((params.func, params.blockDimX), (spin, 32));
        // SAFETY: the node keeps the addresses of its parameters.
        let first = unsafe { *params.kernelParams };
        // SAFETY: and the parameters.
        let argument = unsafe { *first.cast::<u64>() };
        assert_eq!(argument, count);
        assert_eq!(end(stream), Err(CUDA_ERROR_ILLEGAL_STATE));
        assert_eq!(begin(LEGACY, GLOBAL), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
        assert_eq!(begin(NULL, GLOBAL), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
    });
}

#[test]
fn events_fork_and_join_captures() {
    in_child("events_fork_and_join_captures", "{}", || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, one, two) = (counter(), stream(1), stream(1));
        let (forked, joined) = (event(UNTIMED), event(UNTIMED));
        begin(one, GLOBAL).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        cu!(cuEventRecord(forked, one)).unwrap();
        cu!(cuStreamWaitEvent(two, forked, 0)).unwrap();
        assert_eq!(status(two), Ok(ACTIVE), "it takes part");
        launch(spin, 1, two, [param(&count)]).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        cu!(cuEventRecord(joined, two)).unwrap();
        cu!(cuStreamWaitEvent(one, joined, 0)).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        assert_eq!(cu!(cuEventQuery(forked)), Err(CUDA_ERROR_CAPTURED_EVENT));
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), "by the question");
        assert_eq!((status(one), status(two)), (Ok(NONE), Ok(NONE)));
        // The same without it.
        begin(one, GLOBAL).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        cu!(cuEventRecord(forked, one)).unwrap();
        cu!(cuStreamWaitEvent(two, forked, 0)).unwrap();
        launch(spin, 1, two, [param(&count)]).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        cu!(cuEventRecord(joined, two)).unwrap();
        cu!(cuStreamWaitEvent(one, joined, 0)).unwrap();
        launch(spin, 1, one, [param(&count)]).unwrap();
        let graph = end(one).unwrap();
        let mut edges = 0;
        cu!(cuGraphGetEdges_v2(graph, null_mut(), null_mut(), null_mut(), &mut edges)).unwrap();
        assert_eq!((nodes(graph), edges), (4, 4));
        let exec = ready(graph);
        cu!(cuGraphLaunch(exec, one)).unwrap();
        cu!(cuStreamSynchronize(one)).unwrap();
        assert_eq!(word(count), 4);
        // An event that only a capture knows is nothing to wait for afterwards.
        assert_eq!(cu!(cuStreamWaitEvent(two, joined, 0)), Err(CUDA_ERROR_CAPTURED_EVENT));
        assert_eq!(cu!(cuEventSynchronize(joined)), Err(CUDA_ERROR_CAPTURED_EVENT));
        cu!(cuEventRecord(joined, two)).unwrap();
        cu!(cuEventSynchronize(joined)).unwrap();
    });
}

#[test]
fn misuse_ends_captures_with_the_codes_of_the_documentation() {
    in_child("misuse_ends_captures_with_the_codes_of_the_documentation", "{}", || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, one, two) = (counter(), stream(1), stream(1));
        let mark = event(UNTIMED);
        let go = |stream| launch(spin, 1, stream, [param(&count)]);
        // Work that was not joined.
        begin(one, GLOBAL).unwrap();
        cu!(cuEventRecord(mark, one)).unwrap();
        cu!(cuStreamWaitEvent(two, mark, 0)).unwrap();
        go(two).unwrap();
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
        assert_eq!((status(one), status(two)), (Ok(NONE), Ok(NONE)));
        // Ending it in the wrong stream.
        begin(one, GLOBAL).unwrap();
        cu!(cuEventRecord(mark, one)).unwrap();
        cu!(cuStreamWaitEvent(two, mark, 0)).unwrap();
        assert_eq!(end(two), Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        // Two captures cannot become one.
        begin(one, GLOBAL).unwrap();
        begin(two, GLOBAL).unwrap();
        cu!(cuEventRecord(mark, one)).unwrap();
        assert_eq!(cu!(cuStreamWaitEvent(two, mark, 0)), Err(CUDA_ERROR_STREAM_CAPTURE_MERGE));
        assert_eq!((status(one), status(two)), (Ok(INVALIDATED), Ok(INVALIDATED)));
        assert_eq!(go(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        assert_eq!(end(two), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        // Nor depend on what is not captured.
        cu!(cuEventRecord(mark, two)).unwrap();
        begin(one, GLOBAL).unwrap();
        assert_eq!(cu!(cuStreamWaitEvent(one, mark, 0)), Err(CUDA_ERROR_STREAM_CAPTURE_ISOLATION));
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        // Taking or giving memory, or waiting, meanwhile.
        let held = allocate(64).unwrap();
        for call in 0..4 {
            begin(one, GLOBAL).unwrap();
            let outcome = match call {
                0 => cu!(cuCtxSynchronize()),
                1 => allocate(64).map(|_| ()),
                2 => cu!(cuMemFree_v2(held)),
                _ => upload(held, &[0_u64]),
            };
            assert_eq!(outcome, Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED), "call {call}");
            assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), "call {call}");
        }
        // Waiting for the stream itself, or asking about it.
        begin(one, GLOBAL).unwrap();
        assert_eq!(cu!(cuStreamSynchronize(one)), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
        assert_eq!(cu!(cuStreamQuery(one)), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
        assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        begin(one, RELAXED).unwrap();
        let more = allocate(64).unwrap();
        end(one).unwrap();
        cu!(cuMemFree_v2(more)).unwrap();
        cu!(cuMemFree_v2(held)).unwrap();
    });
}

#[test]
fn the_legacy_stream_depends_on_blocking_streams() {
    in_child("the_legacy_stream_depends_on_blocking_streams", "{}", || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, blocking, free) = (counter(), stream(0), stream(1));
        begin(free, GLOBAL).unwrap();
        launch(spin, 1, NULL, [param(&count)]).unwrap();
        assert_eq!(status(NULL), Ok(NONE));
        end(free).unwrap();
        begin(blocking, GLOBAL).unwrap();
        assert_eq!(status(NULL), Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT));
        assert_eq!(status(blocking), Ok(ACTIVE), "asking harms nothing");
        assert_eq!(launch(spin, 1, NULL, [param(&count)]), Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT));
        assert_eq!(status(blocking), Ok(INVALIDATED));
        assert_eq!(end(blocking), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        assert_eq!(word(count), 1);
    });
}

#[test]
fn threads_hold_each_other_back_by_their_modes() {
    in_child("threads_hold_each_other_back_by_their_modes", "{}", || {
        let context = context().addr();
        let stream = stream(1);
        let elsewhere = |mode: Option<CUstreamCaptureMode>| {
            std::thread::scope(|threads| {
                let work = move || {
                    cu!(cuCtxSetCurrent(std::ptr::with_exposed_provenance_mut(context))).unwrap();
                    if let Some(mut mode) = mode {
                        cu!(cuThreadExchangeStreamCaptureMode(&mut mode)).unwrap();
                        assert_eq!(mode, GLOBAL, "what it was");
                    }
                    allocate(64).map(|address| cu!(cuMemFree_v2(address)).is_ok())
                };
                threads.spawn(work).join().unwrap()
            })
        };
        let unsupported = Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        for (captured, mode, outcome) in [
            (GLOBAL, None, unsupported),
            (GLOBAL, Some(THREAD_LOCAL), Ok(false)),
            (GLOBAL, Some(RELAXED), Ok(false)),
            (THREAD_LOCAL, None, Ok(false)),
            (RELAXED, None, Ok(false)),
        ] {
            begin(stream, captured).unwrap();
            // Freeing waits for the context, in which a stream is captured: that is never allowed.
            assert_eq!(elsewhere(mode), outcome, "{captured:?} {mode:?}");
            assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        }
        // Only its own thread may end it, unless it is relaxed.
        let stream_address = stream.expose_provenance();
        let ending = || {
            std::thread::scope(|threads| {
                let work = move || {
                    cu!(cuCtxSetCurrent(std::ptr::with_exposed_provenance_mut(context))).unwrap();
                    end(std::ptr::with_exposed_provenance_mut(stream_address)).map(|graph| graph.addr())
                };
                threads.spawn(work).join().unwrap()
            })
        };
        begin(stream, THREAD_LOCAL).unwrap();
        assert_eq!(ending(), Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD));
        end(stream).unwrap();
        begin(stream, RELAXED).unwrap();
        assert!(ending().is_ok());
    });
}

#[test]
fn captured_allocations_are_the_graphs() {
    in_child("captured_allocations_are_the_graphs", "{}", || {
        context();
        let stream = stream(1);
        let used = || {
            let (mut free, mut total) = (0, 0);
            cu!(cuMemGetInfo_v2(&mut free, &mut total)).unwrap();
            total - free
        };
        begin(stream, GLOBAL).unwrap();
        let mut address = 0;
        cu!(cuMemAllocAsync(&mut address, 5 * MIB, stream)).unwrap();
        cu!(cuMemsetD32Async(address, 3, 64, stream)).unwrap();
        cu!(cuMemFreeAsync(address, stream)).unwrap();
        let graph = end(stream).unwrap();
        assert_eq!(used(), 0);
        let exec = ready(graph);
        for _ in 0..2 {
            cu!(cuGraphLaunch(exec, stream)).unwrap();
            cu!(cuStreamSynchronize(stream)).unwrap();
            assert_eq!(used(), 6 * MIB);
        }
        cu!(cuGraphExecDestroy(exec)).unwrap();
        cu!(cuGraphDestroy(graph)).unwrap();
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        assert_eq!(used(), 0);
        // Memory of a pool is not a graph's to free.
        let mut pooled = 0;
        cu!(cuMemAllocAsync(&mut pooled, MIB, stream)).unwrap();
        begin(stream, GLOBAL).unwrap();
        assert_eq!(cu!(cuMemFreeAsync(pooled, stream)), Err(CUDA_ERROR_INVALID_VALUE));
        end(stream).unwrap();
        cu!(cuMemFreeAsync(pooled, stream)).unwrap();
    });
}

#[test]
fn captures_go_into_graphs_that_are_there() {
    in_child("captures_go_into_graphs_that_are_there", "{}", || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, stream) = (counter(), stream(1));
        let mut graph = null_mut();
        cu!(cuGraphCreate(&mut graph, 0)).unwrap();
        let mut first = null_mut();
        cu!(cuGraphAddEmptyNode(&mut first, graph, std::ptr::null(), 0)).unwrap();
        cu!(cuStreamBeginCaptureToGraph(stream, graph, &first, std::ptr::null(), 1, GLOBAL)).unwrap();
        assert_eq!(cu!(cuGraphDestroy(graph)), Err(CUDA_ERROR_INVALID_VALUE), "a stream is captured into it");
        launch(spin, 1, stream, [param(&count)]).unwrap();
        // The stream goes on from the start: the two launches are branches.
        cu!(cuStreamUpdateCaptureDependencies_v2(stream, &mut first, std::ptr::null(), 1, 1)).unwrap();
        launch(spin, 1, stream, [param(&count)]).unwrap();
        assert_eq!(end(stream).unwrap(), graph);
        let mut dependent = 0;
        cu!(cuGraphNodeGetDependentNodes_v2(first, null_mut(), null_mut(), &mut dependent)).unwrap();
        assert_eq!((nodes(graph), dependent), (3, 2));
        let exec = ready(graph);
        cu!(cuGraphLaunch(exec, stream)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(word(count), 2);
        // A graph launched into a capture is a node of it.
        begin(stream, GLOBAL).unwrap();
        cu!(cuGraphLaunch(exec, stream)).unwrap();
        let outer = end(stream).unwrap();
        assert_eq!(nodes(outer), 1);
        let exec = ready(outer);
        cu!(cuGraphLaunch(exec, stream)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(word(count), 4);
    });
}
