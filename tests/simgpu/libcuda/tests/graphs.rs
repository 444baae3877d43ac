//! Graphs of the simulated GPU, as a program sees them: built node by node, made ready, launched, updated; and the
//! memory that their allocation nodes take.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cudarc::driver::sys::{
    self, CUDA_MEM_ALLOC_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphNode, CUgraphNodeType, CUresult, CUstream,
};
use support::*;

const MIB: usize = 1 << 20;

fn graph() -> CUgraph {
    let mut graph = null_mut();
    cu!(cuGraphCreate(&mut graph, 0)).unwrap();
    graph
}

fn ready(graph: CUgraph, flags: u64) -> Outcome<CUgraphExec> {
    let mut exec = null_mut();
    cu!(cuGraphInstantiateWithFlags(&mut exec, graph, flags)).map(|()| exec)
}

fn run(exec: CUgraphExec, stream: CUstream) -> Outcome<()> {
    cu!(cuGraphLaunch(exec, stream))?;
    cu!(cuStreamSynchronize(stream))
}

/// A kernel node that counts its launches.
fn counting(graph: CUgraph, after: &[CUgraphNode], counter: &u64) -> CUgraphNode {
    let spin = function(module(SPIN).unwrap(), c"spin");
    let mut params = [param(counter)];
    let node_params = kernel_params(spin, &mut params);
    let mut node = null_mut();
    cu!(cuGraphAddKernelNode_v2(&mut node, graph, after.as_ptr(), after.len(), &node_params)).unwrap();
    node
}

fn kernel_params(function: sys::CUfunction, params: &mut [*mut c_void]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: function,
        gridDimX: 1,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 32,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        kernelParams: params.as_mut_ptr(),
        extra: null_mut(),
        kern: null_mut(),
        ctx: null_mut(),
    }
}

fn memset(graph: CUgraph, after: &[CUgraphNode], at: u64, value: u32) -> CUgraphNode {
    let params = memset_params(at, value);
    let mut node = null_mut();
    cu!(cuGraphAddMemsetNode(&mut node, graph, after.as_ptr(), after.len(), &params, null_mut())).unwrap();
    node
}

fn memset_params(at: u64, value: u32) -> sys::CUDA_MEMSET_NODE_PARAMS {
    sys::CUDA_MEMSET_NODE_PARAMS { dst: at, pitch: 0, value, elementSize: 4, width: 1, height: 1 }
}

fn counter() -> u64 {
    let address = allocate(64).unwrap();
    cu!(cuMemsetD8_v2(address, 0, 64)).unwrap();
    address
}

fn word(address: u64) -> u64 {
    download::<u64>(address, 1).unwrap()[0]
}

/// An allocation node and its address.
fn taking(graph: CUgraph, after: &[CUgraphNode], bytes: usize) -> (CUgraphNode, u64) {
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut params: CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { std::mem::zeroed() };
    params.poolProps.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    params.bytesize = bytes;
    let mut node = null_mut();
    cu!(cuGraphAddMemAllocNode(&mut node, graph, after.as_ptr(), after.len(), &mut params)).unwrap();
    (node, params.dptr)
}

fn giving(graph: CUgraph, after: &[CUgraphNode], address: u64) -> Outcome<CUgraphNode> {
    let mut node = null_mut();
    cu!(cuGraphAddMemFreeNode(&mut node, graph, after.as_ptr(), after.len(), address)).map(|()| node)
}

fn used() -> usize {
    let (mut free, mut total) = (0, 0);
    cu!(cuMemGetInfo_v2(&mut free, &mut total)).unwrap();
    total - free
}

/// `CU_GRAPH_MEM_ATTR_*` in their order: used and its mark, reserved and its mark.
fn figures() -> [u64; 4] {
    use sys::CUgraphMem_attribute::*;
    [
        CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT,
        CU_GRAPH_MEM_ATTR_USED_MEM_HIGH,
        CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT,
        CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH,
    ]
    .map(|attribute| {
        let mut value = 0_u64;
        cu!(cuDeviceGetGraphMemAttribute(0, attribute, std::ptr::from_mut(&mut value).cast())).unwrap();
        value
    })
}

#[test]
fn nodes_of_every_kind_run_in_the_order_of_their_edges() {
    in_child("nodes_of_every_kind_run_in_the_order_of_their_edges", "{}", || {
        context();
        let (count, copy) = (counter(), counter());
        let graph = graph();
        let set = memset(graph, &[], count, 5);
        let counted = counting(graph, &[set], &count);
        // Device to device, by the full description.
        let params = sys::CUDA_MEMCPY3D {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: null(),
            srcDevice: count,
            srcArray: null_mut(),
            reserved0: null_mut(),
            srcPitch: 0,
            srcHeight: 0,
            dstXInBytes: 0,
            dstY: 0,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: null_mut(),
            dstDevice: copy,
            dstArray: null_mut(),
            reserved1: null_mut(),
            dstPitch: 0,
            dstHeight: 0,
            WidthInBytes: 8,
            Height: 1,
            Depth: 1,
        };
        let mut copied = null_mut();
        cu!(cuGraphAddMemcpyNode(&mut copied, graph, &counted, 1, &params, null_mut())).unwrap();
        extern "C" fn note(data: *mut c_void) {
            // SAFETY: the test passes a flag that outlives the launch.
            let flag = unsafe { &*data.cast::<std::sync::atomic::AtomicU32>() };
            flag.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        let called = std::sync::atomic::AtomicU32::new(0);
        let host = sys::CUDA_HOST_NODE_PARAMS { fn_: Some(note), userData: param(&called) };
        let mut hosted = null_mut();
        cu!(cuGraphAddHostNode(&mut hosted, graph, &copied, 1, &host)).unwrap();
        let mut empty = null_mut();
        cu!(cuGraphAddEmptyNode(&mut empty, graph, &hosted, 1)).unwrap();
        let done = event(0);
        let mut recorded = null_mut();
        cu!(cuGraphAddEventRecordNode(&mut recorded, graph, &empty, 1, done)).unwrap();
        let exec = ready(graph, 0).unwrap();
        assert_eq!(word(count), 0, "nothing runs before the launch");
        let stream = stream(1);
        run(exec, stream).unwrap();
        assert_eq!((word(count), word(copy)), (6, 6));
        assert_eq!(called.load(std::sync::atomic::Ordering::SeqCst), 1);
        cu!(cuEventQuery(done)).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((word(count), word(copy)), (6, 6));
        assert_eq!(called.load(std::sync::atomic::Ordering::SeqCst), 2);
        // What there is, as the graph tells it.
        let mut kinds = Vec::new();
        let mut nodes = [null_mut(); 8];
        let mut found = 8;
        cu!(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut found)).unwrap();
        for &node in &nodes[..found] {
            let mut kind = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            cu!(cuGraphNodeGetType(node, &mut kind)).unwrap();
            kinds.push(kind as u32);
        }
        assert_eq!((kinds, nodes[6]), (vec![2, 0, 1, 3, 5, 7], null_mut()));
        let mut roots = 0;
        cu!(cuGraphGetRootNodes(graph, null_mut(), &mut roots)).unwrap();
        let mut edges = 0;
        cu!(cuGraphGetEdges_v2(graph, null_mut(), null_mut(), null_mut(), &mut edges)).unwrap();
        assert_eq!((roots, edges), (1, 5));
        cu!(cuGraphExecDestroy(exec)).unwrap();
        cu!(cuGraphDestroy(graph)).unwrap();
        assert_eq!(cu!(cuGraphDestroy(graph)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert_eq!(cu!(cuGraphLaunch(exec, stream)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn branches_run_beside_each_other() {
    in_child("branches_run_beside_each_other", "{}", || {
        context();
        let (gate, after) = (counter(), counter());
        let stream = stream(1);
        let op = |operation, address| {
            let word = sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1 {
                value: 1,
            };
            // Writes have the same fields as waits.
            sys::CUstreamBatchMemOpParams {
                waitValue: sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st {
                    operation,
                    address,
                    __bindgen_anon_1: word,
                    flags: 0,
                    alias: 0,
                },
            }
        };
        use sys::CUstreamBatchMemOpType::{CU_STREAM_MEM_OP_WAIT_VALUE_32, CU_STREAM_MEM_OP_WRITE_VALUE_32};
        let graph = graph();
        let batch = |graph, from: &[CUgraphNode], mut op: sys::CUstreamBatchMemOpParams| {
            let params = sys::CUDA_BATCH_MEM_OP_NODE_PARAMS {
                ctx: null_mut(),
                count: 1,
                paramArray: &mut op,
                flags: 0,
            };
            let mut node = null_mut();
            cu!(cuGraphAddBatchMemOpNode(&mut node, graph, from.as_ptr(), from.len(), &params)).unwrap();
            node
        };
        // One branch waits for what the other writes, and was made first.
        let waits = batch(graph, &[], op(CU_STREAM_MEM_OP_WAIT_VALUE_32, gate));
        let slow = counting(graph, &[], &after);
        let writes = batch(graph, &[slow], op(CU_STREAM_MEM_OP_WRITE_VALUE_32, gate));
        counting(graph, &[waits, writes], &after);
        let exec = ready(graph, 0).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((word(gate), word(after)), (1, 2));
        // What follows in the stream waits for all branches.
        cu!(cuMemsetD32Async(gate, 0, 1, stream)).unwrap();
        cu!(cuGraphLaunch(exec, stream)).unwrap();
        cu!(cuMemcpyDtoDAsync_v2(gate, after, 8, stream)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(word(gate), 4);
    });
}

#[test]
fn launches_of_one_graph_never_overlap() {
    let config = r#"{"kernels": {"spin": {"base_ns": 5000000}}}"#;
    in_child("launches_of_one_graph_never_overlap", config, || {
        context();
        let count = counter();
        let graph = graph();
        counting(graph, &[], &count);
        counting(graph, &[], &count);
        let exec = ready(graph, 0).unwrap();
        let (one, two) = (stream(1), stream(1));
        let (begun, ended) = (event(0), event(0));
        let gate = Gate::new();
        gate.hold(one);
        cu!(cuEventRecord(begun, one)).unwrap();
        for stream in [one, two, one, two] {
            cu!(cuGraphLaunch(exec, stream)).unwrap();
        }
        cu!(cuEventRecord(ended, two)).unwrap();
        gate.open();
        let span = elapsed(begun, ended);
        assert_eq!((word(count), span), (8, 20.0), "two kernels beside each other, four times");
    });
}

#[test]
fn graphs_are_cloned_nested_and_changed() {
    in_child("graphs_are_cloned_nested_and_changed", "{}", || {
        context();
        let (one, two) = (counter(), counter());
        let stream = stream(1);
        let inner = graph();
        let counted = counting(inner, &[], &one);
        let outer = graph();
        let first = memset(outer, &[], two, 7);
        let mut child = null_mut();
        cu!(cuGraphAddChildGraphNode(&mut child, outer, &first, 1, inner)).unwrap();
        // The child is a copy: what becomes of the graph it was made of is nothing to it.
        let mut clone = null_mut();
        cu!(cuGraphClone(&mut clone, inner)).unwrap();
        let mut twin = null_mut();
        cu!(cuGraphNodeFindInClone(&mut twin, counted, clone)).unwrap();
        assert_ne!(twin, counted);
        cu!(cuGraphDestroy(inner)).unwrap();
        assert_eq!(cu!(cuGraphDestroyNode(counted)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        let mut inside = null_mut();
        cu!(cuGraphChildGraphNodeGetGraph(child, &mut inside)).unwrap();
        assert_eq!(cu!(cuGraphDestroy(inside)), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "the node's own");
        let exec = ready(outer, 0).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((word(one), word(two)), (1, 7));
        let cloned = ready(clone, 0).unwrap();
        run(cloned, stream).unwrap();
        assert_eq!(word(one), 2);
        // Parameters of the graph made ready, without a change to the graph.
        let params = memset_params(two, 9);
        cu!(cuGraphExecMemsetNodeSetParams(exec, first, &params, null_mut())).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((word(one), word(two)), (3, 9));
        let mut told = memset_params(0, 0);
        cu!(cuGraphMemsetNodeGetParams(first, &mut told)).unwrap();
        assert_eq!((told.dst, told.value), (two, 7));
        // A node that is switched off.
        cu!(cuGraphNodeSetEnabled(exec, first, 0)).unwrap();
        cu!(cuMemsetD32_v2(two, 1, 1)).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((word(one), word(two)), (4, 1));
        // A node of another kind is no parameter.
        let spin = function(module(SPIN).unwrap(), c"spin");
        let mut counter_param = [param(&two)];
        let kernel = kernel_params(spin, &mut counter_param);
        assert_eq!(
            cu!(cuGraphExecKernelNodeSetParams_v2(exec, first, &kernel)),
            Err(CUresult::CUDA_ERROR_INVALID_VALUE)
        );
        // The whole of it, from a graph of the same shape, and from one of another.
        let update = |with: CUgraph| {
            // SAFETY: plain numbers and pointers, for which zero is a value.
            let mut info: sys::CUgraphExecUpdateResultInfo = unsafe { std::mem::zeroed() };
            let outcome = cu!(cuGraphExecUpdate_v2(cloned, with, &mut info));
            (outcome, info.result as u32)
        };
        let same = graph();
        counting(same, &[], &two);
        assert_eq!(update(same), (Ok(()), 0));
        run(cloned, stream).unwrap();
        assert_eq!((word(one), word(two)), (4, 2));
        let refused = Err(CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
        let other = graph();
        memset(other, &[], two, 0);
        assert_eq!(update(other), (refused, 3), "another kind");
        counting(same, &[], &two);
        assert_eq!(update(same), (refused, 2), "another shape");
        run(cloned, stream).unwrap();
        assert_eq!(word(two), 3, "a refused update changes nothing");
    });
}

#[test]
fn edges_are_kept_as_they_were_made() {
    in_child("edges_are_kept_as_they_were_made", "{}", || {
        context();
        let count = counter();
        let graph = graph();
        let nodes: Vec<CUgraphNode> = (0..3).map(|_| counting(graph, &[], &count)).collect();
        let [one, two, three] = nodes[..] else { unreachable!() };
        let (from, to) = ([one, two], [two, three]);
        let none = null();
        cu!(cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), none, 2)).unwrap();
        let again = cu!(cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), none, 1));
        assert_eq!(again, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        let mut dependent = [null_mut(); 2];
        let mut found = 2;
        cu!(cuGraphNodeGetDependentNodes_v2(two, dependent.as_mut_ptr(), null_mut(), &mut found)).unwrap();
        assert_eq!((found, dependent), (1, [three, null_mut()]));
        // A cycle shows when the graph is made ready.
        cu!(cuGraphAddDependencies_v2(graph, &three, &one, none, 1)).unwrap();
        assert_eq!(ready(graph, 0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuGraphRemoveDependencies_v2(graph, &three, &one, none, 1)).unwrap();
        ready(graph, 0).unwrap();
        // Data that a caller does not ask for is not dropped in silence.
        let programmatic = sys::CUgraphEdgeData { from_port: 1, to_port: 0, type_: 1, reserved: [0; 5] };
        cu!(cuGraphAddDependencies_v2(graph, &one, &three, &programmatic, 1)).unwrap();
        let (mut from, mut to, mut found) = ([null_mut(); 3], [null_mut(); 3], 3);
        let lossy =
            cu!(cuGraphGetEdges_v2(graph, from.as_mut_ptr(), to.as_mut_ptr(), null_mut(), &mut found));
        assert_eq!(lossy, Err(CUresult::CUDA_ERROR_LOSSY_QUERY));
        // SAFETY: plain numbers.
        let mut data: [sys::CUgraphEdgeData; 3] = unsafe { std::mem::zeroed() };
        let (f, t, d) = (from.as_mut_ptr(), to.as_mut_ptr(), data.as_mut_ptr());
        cu!(cuGraphGetEdges_v2(graph, f, t, d, &mut found)).unwrap();
        assert_eq!(data.map(|edge| edge.type_), [0, 1, 0]);
        assert_eq!(ready(graph, 4), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED), "launches from the device");
        assert_eq!(ready(graph, 64), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn graph_memory_comes_with_the_launch_and_stays_until_it_is_trimmed() {
    in_child("graph_memory_comes_with_the_launch_and_stays_until_it_is_trimmed", "{}", || {
        context();
        let stream = stream(1);
        let graph = graph();
        let (took, address) = taking(graph, &[], 3 * MIB);
        let set = memset(graph, &[took], address, 0xabcd);
        giving(graph, &[set], address).unwrap();
        assert_eq!(giving(graph, &[set], address), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "twice");
        let plain = allocate(8).unwrap();
        assert_eq!(giving(graph, &[set], plain), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuMemFree_v2(plain)).unwrap();
        let exec = ready(graph, 0).unwrap();
        assert_eq!((used(), figures()), (0, [0; 4]));
        cu!(cuGraphUpload(exec, stream)).unwrap();
        let four = 4 * MIB as u64;
        assert_eq!((used(), figures()), (4 * MIB, [0, 0, four, four]), "in granules of 2 MiB");
        for _ in 0..3 {
            run(exec, stream).unwrap();
            assert_eq!((used(), figures()), (4 * MIB, [0, four, four, four]));
        }
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        assert_eq!((used(), figures()), (0, [0, four, 0, four]));
        run(exec, stream).unwrap();
        assert_eq!(used(), 4 * MIB, "memory comes anew");
        // What graphs that are gone have left serves the next.
        cu!(cuGraphExecDestroy(exec)).unwrap();
        cu!(cuGraphDestroy(graph)).unwrap();
        assert_eq!(used(), 4 * MIB);
        let next = self::graph();
        let (took, address) = taking(next, &[], 2 * MIB);
        giving(next, &[took], address).unwrap();
        let exec = ready(next, 0).unwrap();
        run(exec, stream).unwrap();
        assert_eq!((used(), figures()[2]), (4 * MIB, four));
        let mut zero = 0_u64;
        let mark = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
        cu!(cuDeviceSetGraphMemAttribute(0, mark, std::ptr::from_mut(&mut zero).cast())).unwrap();
        assert_eq!(figures()[1], 0);
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        assert_eq!(used(), 0);
    });
}

#[test]
fn what_a_graph_does_not_free_is_the_programs() {
    in_child("what_a_graph_does_not_free_is_the_programs", "{}", || {
        context();
        let stream = stream(1);
        let graph = graph();
        let (took, address) = taking(graph, &[], 2 * MIB);
        memset(graph, &[took], address, 77);
        let exec = ready(graph, 0).unwrap();
        assert_eq!(ready(graph, 0), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED), "one at a time");
        let mut clone = null_mut();
        assert_eq!(cu!(cuGraphClone(&mut clone, graph)), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
        assert_eq!(cu!(cuGraphDestroyNode(took)), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
        assert_eq!(cu!(cuMemFree_v2(address)), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "nothing ran");
        run(exec, stream).unwrap();
        assert_eq!(download::<u32>(address, 1).unwrap(), [77]);
        assert_eq!(cu!(cuGraphLaunch(exec, stream)), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "in use");
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        assert_eq!(used(), 2 * MIB, "in use");
        cu!(cuMemFreeAsync(address, stream)).unwrap();
        assert_eq!(cu!(cuMemFreeAsync(address, stream)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        run(exec, stream).unwrap();
        cu!(cuMemFree_v2(address)).unwrap();
        run(exec, stream).unwrap();
        // Another graph may free it.
        let freeing = self::graph();
        giving(freeing, &[], address).unwrap();
        run(ready(freeing, 0).unwrap(), stream).unwrap();
        cu!(cuGraphExecDestroy(exec)).unwrap();
        // A launch frees what the one before left, if it was asked to.
        let exec = ready(graph, 1).unwrap();
        for _ in 0..3 {
            run(exec, stream).unwrap();
        }
        assert_eq!(used(), 2 * MIB);
        // An allocation outlives the graph it came from.
        cu!(cuGraphExecDestroy(exec)).unwrap();
        cu!(cuGraphDestroy(graph)).unwrap();
        assert_eq!(download::<u32>(address, 1).unwrap(), [77]);
        cu!(cuMemFree_v2(address)).unwrap();
        cu!(cuCtxSynchronize()).unwrap();
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        assert_eq!(used(), 0);
    });
}

#[test]
fn trimming_spares_what_is_on_its_way() {
    let config = r#"{"kernels": {"spin": {"base_ns": 20000000}}}"#;
    in_child("trimming_spares_what_is_on_its_way", config, || {
        context();
        let (stream, count) = (stream(1), counter());
        let graph = graph();
        let slow = counting(graph, &[], &count);
        let (took, address) = taking(graph, &[slow], 2 * MIB);
        let set = memset(graph, &[took], address, 1);
        giving(graph, &[set], address).unwrap();
        let exec = ready(graph, 0).unwrap();
        cu!(cuGraphLaunch(exec, stream)).unwrap();
        cu!(cuDeviceGraphMemTrim(0)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(word(count), 1);
    });
}
