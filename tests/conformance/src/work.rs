//! Graphs, captures and the less common launches, line by line as in [`crate::transcript`]: what the hook must not
//! change.
#![expect(unsafe_code, reason = "calls the driver API")]

use std::ptr::{null, null_mut};

use cudarc::driver::sys;

use crate::gpu::{Code, Gpu, NOT_SUPPORTED, UNIT, check, zeroed};
use crate::transcript::{Case, Lines};

/// The cases in order.
pub const CASES: &[Case] = &[
    ("3/a capture holds what was captured and nothing else", captures),
    ("3/misuse of captures has the driver's own codes", misuse),
    ("3/graphs are built, nested, updated and taken apart", graphs),
    ("10/what a graph allocates and does not free is the program's", left_over),
    ("4/cooperative launches that do not fit", cooperative),
    ("4/a share of the SMs", green),
];

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        check(unsafe { sys::$name($($argument),*) })
    }};
}

const GLOBAL: sys::CUstreamCaptureMode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;

fn nodes(graph: sys::CUgraph) -> Result<usize, Code> {
    let mut count = 0;
    cu!(cuGraphGetNodes(graph, null_mut(), &raw mut count))?;
    Ok(count)
}

fn event() -> Result<sys::CUevent, Code> {
    const UNTIMED: u32 = 2;
    let mut event = null_mut();
    cu!(cuEventCreate(&raw mut event, UNTIMED))?;
    Ok(event)
}

fn begin(stream: sys::CUstream) -> Result<(), Code> {
    cu!(cuStreamBeginCapture_v2(stream, GLOBAL))
}

fn end(stream: sys::CUstream) -> Result<sys::CUgraph, Code> {
    let mut graph = null_mut();
    cu!(cuStreamEndCapture(stream, &raw mut graph)).map(|()| graph)
}

fn captures(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (one, two) = (gpu.stream()?, gpu.stream()?);
    let memory = gpu.allocate(4096)?;
    let (fork, join) = (event()?, event()?);
    // Work that has nothing to do with the capture goes on beside it.
    cu!(cuMemsetD32Async(memory, 1, 8, two))?;
    begin(one)?;
    cu!(cuMemsetD32Async(memory, 7, 8, one))?;
    cu!(cuMemsetD32Async(memory + 64, 2, 8, two))?;
    cu!(cuEventRecord(fork, one))?;
    cu!(cuStreamWaitEvent(two, fork, 0))?;
    cu!(cuMemcpyDtoDAsync_v2(memory + 128, memory, 32, two))?;
    cu!(cuEventRecord(join, two))?;
    cu!(cuStreamWaitEvent(one, join, 0))?;
    let graph = end(one)?;
    lines.note("nodes", nodes(graph)?);
    let exec = gpu.instantiate(graph)?;
    for _ in 0..2 {
        lines.note("run", gpu.run(exec));
    }
    let mut seen = [0u32; 2];
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), memory + 128, 8))?;
    lines.note("copied", seen);
    lines.note("asking about a captured event", cu!(cuEventQuery(join)));
    gpu.end_graph(graph, Some(exec))?;
    for event in [fork, join] {
        cu!(cuEventDestroy_v2(event))?;
    }
    gpu.end_stream(one)?;
    gpu.end_stream(two)?;
    gpu.free(memory)
}

fn misuse(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (one, two) = (gpu.stream()?, gpu.stream()?);
    let mark = event()?;
    lines.note("the default stream", begin(null_mut()));
    lines.note("ending none", end(one).err());
    begin(one)?;
    lines.note("again", begin(one));
    cu!(cuEventRecord(mark, one))?;
    cu!(cuStreamWaitEvent(two, mark, 0))?;
    lines.note("ending another", end(two).err());
    lines.note("afterwards", end(one).err());
    begin(one)?;
    lines.note("waiting", cu!(cuStreamSynchronize(one)));
    lines.note("afterwards", end(one).err());
    begin(one)?;
    lines.note("taking memory", gpu.allocate(64).err());
    lines.note("afterwards", end(one).err());
    cu!(cuEventDestroy_v2(mark))?;
    gpu.end_stream(one)?;
    gpu.end_stream(two)
}

fn graphs(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let memory = gpu.allocate(4096)?;
    let set = |value| sys::CUDA_MEMSET_NODE_PARAMS {
        dst: memory,
        pitch: 0,
        value,
        elementSize: 4,
        width: 1,
        height: 1,
    };
    let (mut inner, mut outer) = (null_mut(), null_mut());
    cu!(cuGraphCreate(&raw mut inner, 0))?;
    cu!(cuGraphCreate(&raw mut outer, 0))?;
    let (mut node, mut child, mut clone) = (null_mut(), null_mut(), null_mut());
    let (three, five) = (set(3), set(5));
    cu!(cuGraphAddMemsetNode(&raw mut node, inner, null(), 0, &raw const three, null_mut()))?;
    cu!(cuGraphAddChildGraphNode(&raw mut child, outer, null(), 0, inner))?;
    cu!(cuGraphClone(&raw mut clone, outer))?;
    lines.note("nodes", (nodes(inner)?, nodes(outer)?, nodes(clone)?));
    let exec = gpu.instantiate(inner)?;
    lines.note("run", gpu.run(exec));
    cu!(cuGraphExecMemsetNodeSetParams(exec, node, &raw const five, null_mut()))?;
    lines.note("run with other parameters", gpu.run(exec));
    let mut seen = 0u32;
    cu!(cuMemcpyDtoH_v2((&raw mut seen).cast(), memory, 4))?;
    lines.note("written", seen);
    let mut result: sys::CUgraphExecUpdateResultInfo = zeroed();
    lines.note("update from another shape", cu!(cuGraphExecUpdate_v2(exec, outer, &raw mut result)));
    lines.note("why", result.result as u32);
    lines.note("destroying a node", cu!(cuGraphDestroyNode(node)));
    lines.note("nodes", nodes(inner)?);
    gpu.end_graph(inner, Some(exec))?;
    gpu.end_graph(clone, None)?;
    gpu.end_graph(outer, None)?;
    lines.note("destroying twice", gpu.end_graph(outer, None));
    gpu.free(memory)
}

fn left_over(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (graph, address) = match gpu.allocating_graph(UNIT, false) {
        Err(NOT_SUPPORTED) => {
            lines.note("not supported", NOT_SUPPORTED);
            return Ok(());
        }
        made => made?,
    };
    let exec = gpu.instantiate(graph)?;
    lines.note("freeing before it ran", gpu.free(address));
    lines.note("run", gpu.run(exec));
    lines.note("use", gpu.prove(address));
    lines.note("run while in use", gpu.run(exec));
    lines.note("free", gpu.free(address));
    lines.note("free twice", gpu.free(address));
    lines.note("run again", gpu.run(exec));
    gpu.end_graph(graph, Some(exec))?;
    lines.note("use without the graph", gpu.prove(address));
    gpu.free(address)?;
    gpu.trim_graphs()
}

fn cooperative(_: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let none: sys::CUfunction = null_mut();
    let launched = cu!(cuLaunchCooperativeKernel(none, 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut()));
    lines.note("no function", launched.is_err());
    lines.note("no parts", cu!(cuLaunchCooperativeKernelMultiDevice(null_mut(), 0, 0)).is_err());
    Ok(())
}

fn sms(resource: &sys::CUdevResource) -> u32 {
    // SAFETY: the resource is one of SMs.
    unsafe { resource.__bindgen_anon_1.sm.smCount }
}

fn green(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let mut whole: sys::CUdevResource = zeroed();
    let kind = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
    match cu!(cuDeviceGetDevResource(gpu.device, &raw mut whole, kind)) {
        Err(NOT_SUPPORTED) => {
            lines.note("not supported", NOT_SUPPORTED);
            return Ok(());
        }
        told => told?,
    }
    let (mut group, mut rest, mut count) = (whole, whole, 1);
    let (to, left) = (&raw mut group, &raw mut rest);
    cu!(cuDevSmResourceSplitByCount(to, &raw mut count, &raw const whole, left, 0, 16))?;
    lines.note("groups", count);
    let (mut desc, mut green, mut context) = (null_mut(), null_mut(), null_mut());
    cu!(cuDevResourceGenerateDesc(&raw mut desc, &raw mut group, 1))?;
    cu!(cuGreenCtxCreate(&raw mut green, desc, gpu.device, 1))?;
    cu!(cuCtxFromGreenCtx(&raw mut context, green))?;
    cu!(cuCtxSetCurrent(context))?;
    let (mut current, mut of_stream, mut own) = (null_mut(), null_mut(), null_mut());
    cu!(cuCtxGetCurrent(&raw mut current))?;
    lines.note("it is current", current == context);
    let stream = gpu.stream()?;
    cu!(cuStreamGetCtx(stream, &raw mut of_stream))?;
    lines.note("a stream made there is of it", of_stream == context);
    cu!(cuStreamGetGreenCtx(stream, &raw mut own))?;
    lines.note("by its own handle", own == green);
    lines.note(
        "as is the null stream",
        cu!(cuStreamGetGreenCtx(null_mut(), &raw mut own)).map(|()| own == green),
    );
    let mut held: sys::CUdevResource = zeroed();
    cu!(cuCtxGetDevResource(context, &raw mut held, kind))?;
    lines.note("it has what it was made of", sms(&held) == sms(&group));
    cu!(cuCtxPushCurrent_v2(context))?;
    cu!(cuCtxPopCurrent_v2(&raw mut current))?;
    lines.note("and comes off again", current == context);
    gpu.end_stream(stream)?;
    let before = gpu.memory()?.0;
    let memory = gpu.allocate(UNIT)?;
    lines.note("takes", before - gpu.memory()?.0);
    lines.note("use", gpu.prove(memory));
    lines.note("free", gpu.free(memory));
    gpu.enter()?;
    lines.note("end", cu!(cuGreenCtxDestroy(green)));
    lines.note("end twice", cu!(cuGreenCtxDestroy(green)).is_err());
    Ok(())
}
