//! Typed calls to the real driver, one function per row of the table.
#![expect(unsafe_code, reason = "calls functions through pointers found by name")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{CUresult, Symbol};
use headgate_abi::nvml::*;

use headgate_abi::segment::layout::GATE_OPEN_BIT;

use crate::{green, resolve};

pub(crate) mod groups;

macro_rules! define_cuda {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {$(
        /// The driver's own function of this name; `CUDA_ERROR_NOT_FOUND` when the driver has none.
        ///
        /// # Safety
        /// As the driver API says of it.
        #[inline]
        #[allow(non_snake_case, clippy::too_many_arguments, dead_code, reason = "the C names and signatures; not all are called")]
        pub(crate) unsafe fn $name($($arg: $ty),*) -> CUresult {
            type Function = unsafe extern "C" fn($($ty),*) -> CUresult;
            match resolve::cuda_real(Symbol::$name) {
                // SAFETY: the row gives the function's true signature.
                Some(function) => unsafe { std::mem::transmute::<*mut c_void, Function>(function)($($arg),*) },
                None => CUresult::ERROR_NOT_FOUND,
            }
        }
    )*};
}

macro_rules! define_nvml {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {$(
        /// NVML's own function of this name; `NVML_ERROR_FUNCTION_NOT_FOUND` when it has none.
        ///
        /// # Safety
        /// As NVML says of it.
        #[inline]
        #[allow(non_snake_case, dead_code, reason = "the C names; not all are called")]
        pub(crate) unsafe fn $name($($arg: $ty),*) -> NvmlReturn {
            type Function = unsafe extern "C" fn($($ty),*) -> NvmlReturn;
            match resolve::nvml_real(headgate_abi::nvml::Symbol::$name) {
                // SAFETY: the row gives the function's true signature.
                Some(function) => unsafe { std::mem::transmute::<*mut c_void, Function>(function)($($arg),*) },
                None => NvmlReturn::ERROR_FUNCTION_NOT_FOUND,
            }
        }
    )*};
}

/// CUDA, raw.
pub(crate) mod cuda {
    use super::*;
    headgate_abi::cuda_symbols!(define_cuda);
}

/// NVML, raw.
pub(crate) mod management {
    use std::ffi::c_ulonglong;

    use super::*;
    headgate_abi::nvml_symbols!(define_nvml);
}

/// A whole argument register of a call.
pub(crate) trait Word {
    /// Its value.
    fn word(self) -> u64;
}

macro_rules! words {
    ($($ty:ty: |$it:ident| $word:expr;)*) => {$(
        impl Word for $ty {
            #[inline]
            fn word(self) -> u64 {
                let $it = self;
                $word
            }
        }
    )*};
}

words! {
    u64: |number| number;
    usize: |number| number as u64;
    *mut c_void: |pointer| pointer.expose_provenance() as u64;
    *const c_void: |pointer| pointer.expose_provenance() as u64;
    *const CUDA_MEMCPY2D: |pointer| pointer.expose_provenance() as u64;
    CUcontext: |handle| handle.addr() as u64;
    CUstream: |handle| handle.addr() as u64;
    CUevent: |handle| handle.addr() as u64;
}

/// The driver's own function of at most three arguments, with a word for the kernel's probes in the register that a sixth one would
/// have ([`headgate_abi::told`]). `CUDA_ERROR_NOT_FOUND` when the driver has none.
///
/// # Safety
/// As the driver API says of the function; these are its arguments.
#[inline]
pub(crate) unsafe fn telling<const COUNT: usize>(
    symbol: Symbol,
    arguments: [u64; COUNT],
    word: u64,
) -> CUresult {
    const { assert!(COUNT <= 3, "the sixth register is free") };
    let Some(function) = resolve::cuda_real(symbol) else { return CUresult::ERROR_NOT_FOUND };
    let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
    let status: u32;
    // Spelled as the instruction, because no signature in the language leaves arguments out.
    // SAFETY: the C calling convention of this machine: the caller's arguments in their registers, the stack aligned (the
    // compiler does so for code that may use it), every register that a callee may change given up.
    unsafe {
        std::arch::asm!(
            "call {function}",
            function = in(reg) function,
            in("rdi") argument(0),
            in("rsi") argument(1),
            in("rdx") argument(2),
            in("r9") word,
            lateout("eax") status,
            clobber_abi("C"),
        );
    }
    CUresult(status)
}

/// An output argument of a call: null, or valid for writing by the caller's promise.
pub(crate) struct Out<T>(pub(crate) *mut T);

impl<T: Copy> Out<T> {
    /// What the driver wrote there. `None` for a null pointer.
    pub(crate) fn get(&self) -> Option<T> {
        // SAFETY: the caller of the CUDA function promised a valid pointer or null, and the driver has
        // succeeded in writing to it.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    /// Replaces what the driver wrote. Does nothing for a null pointer.
    pub(crate) fn set(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as for `get`.
            unsafe { self.0.write_unaligned(value) };
        }
    }
}

/// Whether `cuInit` has succeeded in this process. After one that failed, the driver repeats its failure here.
pub(crate) fn initialised() -> bool {
    let mut count = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDeviceGetCount(&raw mut count) };
    status.is_success()
}

/// Number of devices this process sees; zero when the driver cannot tell.
pub(crate) fn device_count() -> c_int {
    let mut count = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDeviceGetCount(&raw mut count) };
    if status.is_success() { count } else { 0 }
}

/// A device's UUID as this process sees it. The newer form tells MIG instances apart.
pub(crate) fn device_uuid(device: CUdevice) -> Option<[u8; 16]> {
    let mut uuid = CUuuid::default();
    // SAFETY: the output is valid for writing.
    let mut status = unsafe { cuda::cuDeviceGetUuid_v2(&raw mut uuid, device) };
    if !status.is_success() {
        // SAFETY: as above.
        status = unsafe { cuda::cuDeviceGetUuid(&raw mut uuid, device) };
    }
    status.is_success().then_some(uuid.bytes)
}

/// The driver's CUDA version, zero when it cannot tell.
pub(crate) fn driver_version() -> c_int {
    let mut version = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDriverGetVersion(&raw mut version) };
    if status.is_success() { version } else { 0 }
}

/// The calling thread's context as the program means it, and its device, if it has one.
pub(crate) fn current_context() -> Option<(CUcontext, CUdevice)> {
    let (mut context, mut device) = (CUcontext::NULL, 0);
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetCurrent(&raw mut context) };
    if !status.is_success() || context.is_null() {
        return None;
    }
    let context = green::meant_here(context);
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetDevice(&raw mut device) };
    status.is_success().then_some((context, device))
}

/// Does `work` with the context of a stream current on the calling thread, where the stream names one.
pub(crate) fn in_context_of<T>(stream: CUstream, work: impl FnOnce() -> T) -> T {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing; the stream is the caller's own.
    let found = unsafe { cuda::cuStreamGetCtx(stream, &raw mut context) };
    // SAFETY: a context the driver has just named.
    let pushed = found.is_success() && unsafe { cuda::cuCtxPushCurrent_v2(context) }.is_success();
    let outcome = work();
    if pushed {
        // SAFETY: takes off what was put on above; the output is valid for writing.
        let _popped = unsafe { cuda::cuCtxPopCurrent_v2(&raw mut context) };
    }
    outcome
}

/// Whether a device's primary context exists in this process.
pub(crate) fn primary_context_active(device: CUdevice) -> Option<bool> {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: the outputs are valid for writing.
    let status = unsafe { cuda::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut active) };
    status.is_success().then_some(active != 0)
}

/// Whether nothing may be put into the stream now because it is being captured. A driver that cannot say is
/// taken at its worst.
pub(crate) fn is_capturing(stream: CUstream, per_thread: bool) -> bool {
    let mut state: CUenum = 0;
    let status = if per_thread {
        // SAFETY: the output is valid for writing; the stream is the caller's own.
        unsafe { cuda::cuStreamIsCapturing_ptsz(stream, &raw mut state) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamIsCapturing(stream, &raw mut state) }
    };
    !status.is_success() || state != 0
}

/// Makes the GPU write `value` to a registered word once all earlier work of the stream is done.
pub(crate) fn write_when_done(
    stream: CUstream,
    per_thread: bool,
    address: CUdeviceptr,
    value: u32,
) -> CUresult {
    if per_thread {
        // SAFETY: the address was registered with the driver and stays mapped for good.
        unsafe { cuda::cuStreamWriteValue32_v2_ptsz(stream, address, value, 0) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamWriteValue32_v2(stream, address, value, 0) }
    }
}

/// Makes the GPU wait in the stream until bit 0 of the gate word is set, then write `number` to `started`.
pub(crate) fn wait_for_gate(
    stream: CUstream,
    per_thread: bool,
    gate: CUdeviceptr,
    started: CUdeviceptr,
    number: u32,
) -> CUresult {
    let mut operations = [
        CUstreamBatchMemOpParams {
            operation: CU_STREAM_MEM_OP_WAIT_VALUE_32,
            address: gate,
            value: u64::from(GATE_OPEN_BIT),
            flags: CU_STREAM_WAIT_VALUE_AND,
            ..CUstreamBatchMemOpParams::default()
        },
        CUstreamBatchMemOpParams {
            operation: CU_STREAM_MEM_OP_WRITE_VALUE_32,
            address: started,
            value: u64::from(number),
            ..CUstreamBatchMemOpParams::default()
        },
    ];
    let (count, operations) = (2, operations.as_mut_ptr());
    if per_thread {
        // SAFETY: two valid operations on registered words that stay mapped for good.
        unsafe { cuda::cuStreamBatchMemOp_v2_ptsz(stream, count, operations, 0) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamBatchMemOp_v2(stream, count, operations, 0) }
    }
}

/// An event that keeps no time.
pub(crate) fn make_event() -> Result<CUevent, CUresult> {
    const DISABLE_TIMING: c_uint = 2;
    let mut event = CUevent::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuEventCreate(&raw mut event, DISABLE_TIMING) };
    if status.is_success() { Ok(event) } else { Err(status) }
}

/// Marks the work that is in the stream now.
pub(crate) fn record(event: CUevent, stream: CUstream, per_thread: bool) -> CUresult {
    if per_thread {
        // SAFETY: an event of ours whose context is alive; the stream is the caller's own.
        unsafe { cuda::cuEventRecord_ptsz(event, stream) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuEventRecord(event, stream) }
    }
}

/// Whether what an event marks is done: success, or `CUDA_ERROR_NOT_READY`. Asked in the event's context, and so that
/// no capture of the program is disturbed by the question.
pub(crate) fn event_done(event: CUevent, context: CUcontext) -> CUresult {
    const RELAXED: CUenum = 2;
    let mut mode = RELAXED;
    // SAFETY: the value is valid for reading and writing.
    let exchanged = unsafe { cuda::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
    // SAFETY: the caller knows that the context is alive.
    let pushed = unsafe { cuda::cuCtxPushCurrent_v2(context) };
    // SAFETY: an event of ours whose context is alive.
    let status = unsafe { cuda::cuEventQuery(event) };
    if pushed.is_success() {
        let mut popped = CUcontext::NULL;
        // SAFETY: takes off what was put on above; the output is valid for writing.
        let _popped = unsafe { cuda::cuCtxPopCurrent_v2(&raw mut popped) };
    }
    if exchanged.is_success() {
        // SAFETY: puts back what was found.
        let _put_back = unsafe { cuda::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
    }
    status
}

/// Whether a launch asks to overlap with the one before it (programmatic dependent launch).
pub(crate) fn overlaps_predecessor(config: *const CUlaunchConfig) -> bool {
    if config.is_null() {
        return false;
    }
    // SAFETY: the caller of cuLaunchKernelEx promises a valid configuration.
    let config = unsafe { &*config };
    if config.attrs.is_null() {
        return false;
    }
    // SAFETY: the configuration names `numAttrs` attributes.
    let attributes = unsafe { std::slice::from_raw_parts(config.attrs, config.numAttrs as usize) };
    attributes.iter().any(|attribute| {
        attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION && attribute.value[0] != 0
    })
}

/// Lets the GPU write to a page of this process, and gives the address the GPU knows it by.
///
/// While any thread captures in global mode, registering would be refused and that capture ended: the driver takes it for
/// a call that might wait for what is being captured. It does not, so the thread says it knows what it does.
pub(crate) fn register_page(page: *mut u8, bytes: usize) -> Result<CUdeviceptr, CUresult> {
    const PORTABLE_AND_MAPPED: c_uint = 0x1 | 0x2;
    let status = harmless_to_captures(|| {
        // SAFETY: the page is mapped, writable and never unmapped.
        unsafe { cuda::cuMemHostRegister_v2(page.cast(), bytes, PORTABLE_AND_MAPPED) }
    });
    if !status.is_success() && status != CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED {
        return Err(status);
    }
    let mut address: CUdeviceptr = 0;
    // SAFETY: the output is valid for writing; the page is registered.
    let status = unsafe { cuda::cuMemHostGetDevicePointer_v2(&raw mut address, page.cast(), 0) };
    if status.is_success() { Ok(address) } else { Err(status) }
}

/// Does something in the thread's relaxed capture mode, and puts its own mode back. Drivers that cannot switch (before
/// CUDA 10.1) do it as they are.
fn harmless_to_captures<T>(work: impl FnOnce() -> T) -> T {
    /// `CU_STREAM_CAPTURE_MODE_RELAXED`.
    const RELAXED: CUenum = 2;
    let mut mode = RELAXED;
    // SAFETY: valid for reading and writing; holds the thread's own mode afterwards.
    let switched = unsafe { cuda::cuThreadExchangeStreamCaptureMode(&raw mut mode) }.is_success();
    let outcome = work();
    if switched {
        // SAFETY: as above, the other way round.
        let back = unsafe { cuda::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        if !back.is_success() {
            crate::log::event(format_args!("the thread's capture mode cannot be put back: {back:?}"));
        }
    }
    outcome
}

/// A value that a program passes by address, such as a structure that describes what it asks for.
pub(crate) fn argument<T: Copy>(at: *const T) -> Option<T> {
    // SAFETY: the caller of the CUDA function promised a valid pointer or null.
    (!at.is_null()).then(|| unsafe { at.read_unaligned() })
}

/// As [`argument`], for a list of `count` values.
pub(crate) fn arguments<T: Copy>(at: *const T, count: usize) -> Vec<T> {
    (0..count).map_while(|index| argument(at.wrapping_add(index))).collect()
}

/// Whether allocations in the stream become part of a graph now. A driver that cannot say has none to become
/// part of.
pub(crate) fn allocates_in_graph(stream: CUstream, per_thread: bool) -> bool {
    let mut state: CUenum = 0;
    let status = if per_thread {
        // SAFETY: the output is valid for writing; the stream is the caller's own.
        unsafe { cuda::cuStreamIsCapturing_ptsz(stream, &raw mut state) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamIsCapturing(stream, &raw mut state) }
    };
    status.is_success() && state != 0
}

/// Asks a driver call for one 64-bit figure. `None` when the driver has no such figure, which includes drivers
/// that say yes and write nothing.
fn figure(ask: impl FnOnce(*mut c_void) -> CUresult) -> Option<u64> {
    const UNWRITTEN: u64 = u64::MAX;
    let mut value = UNWRITTEN;
    let status = ask((&raw mut value).cast());
    (status.is_success() && value != UNWRITTEN).then_some(value)
}

/// Bytes a pool has taken from its device.
pub(crate) fn pool_reserved_bytes(pool: CUmemoryPool) -> Option<u64> {
    const RESERVED_MEM_CURRENT: CUenum = 5;
    // SAFETY: the output is a 64-bit integer, as this attribute wants it.
    figure(|value| unsafe { cuda::cuMemPoolGetAttribute(pool, RESERVED_MEM_CURRENT, value) })
}

/// Bytes a device keeps for this process's graphs.
pub(crate) fn graph_reserved_bytes(device: CUdevice) -> Option<u64> {
    const RESERVED_MEM_CURRENT: CUenum = 2;
    // SAFETY: as above.
    figure(|value| unsafe { cuda::cuDeviceGetGraphMemAttribute(device, RESERVED_MEM_CURRENT, value) })
}

/// Bytes of those that graphs use.
pub(crate) fn graph_used_bytes(device: CUdevice) -> Option<u64> {
    const USED_MEM_CURRENT: CUenum = 0;
    // SAFETY: as above.
    figure(|value| unsafe { cuda::cuDeviceGetGraphMemAttribute(device, USED_MEM_CURRENT, value) })
}

/// Makes a pool give back what it keeps beyond `keep_bytes`, as far as the driver can.
pub(crate) fn trim_pool(pool: CUmemoryPool, keep_bytes: u64) {
    let keep = usize::try_from(keep_bytes).unwrap_or(usize::MAX);
    // SAFETY: a pool handle that was valid when it was noted; the driver checks it. What it answers shows in the
    // pool's figure, which is looked at next.
    let _status = unsafe { cuda::cuMemPoolTrimTo(pool, keep) };
}

/// Makes a device give back what it keeps for graphs without need.
pub(crate) fn trim_graphs(device: CUdevice) {
    // SAFETY: the driver checks the device. What it answers shows in the figure, which is looked at next.
    let _status = unsafe { cuda::cuDeviceGraphMemTrim(device) };
}

/// The pool that stream-ordered allocations on a device come from now.
pub(crate) fn current_pool(device: CUdevice) -> Option<CUmemoryPool> {
    let mut pool = CUmemoryPool::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDeviceGetMemPool(&raw mut pool, device) };
    (status.is_success() && !pool.is_null()).then_some(pool)
}

/// The device a stream works on; `None` when the driver is too old to say, or for a default stream.
pub(crate) fn stream_device(stream: CUstream) -> Option<CUdevice> {
    const HANDLES_MIN: usize = 0x100;
    let mut device = 0;
    if stream.addr() < HANDLES_MIN {
        return None;
    }
    // SAFETY: the output is valid for writing; the stream is the caller's own.
    let status = unsafe { cuda::cuStreamGetDevice(stream, &raw mut device) };
    status.is_success().then_some(device)
}

/// Undoes a stream-ordered allocation.
pub(crate) fn free_in_stream(address: CUdeviceptr, stream: CUstream, per_thread: bool) -> CUresult {
    if per_thread {
        // SAFETY: the address was returned by the driver a moment ago and has been given to nobody.
        unsafe { cuda::cuMemFreeAsync_ptsz(address, stream) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuMemFreeAsync(address, stream) }
    }
}

/// Waits for a stream, so that what was freed in it is free.
pub(crate) fn synchronise_stream(stream: CUstream, per_thread: bool) -> CUresult {
    if per_thread {
        // SAFETY: the stream is the caller's own.
        unsafe { cuda::cuStreamSynchronize_ptsz(stream) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamSynchronize(stream) }
    }
}

/// Undoes the making of an array.
pub(crate) fn destroy_array(array: CUarray) -> CUresult {
    // SAFETY: the array was made by the driver a moment ago and has been given to nobody.
    unsafe { cuda::cuArrayDestroy(array) }
}

/// Undoes the making of a mipmapped array.
pub(crate) fn destroy_mipmap(mipmap: CUmipmappedArray) -> CUresult {
    // SAFETY: as above.
    unsafe { cuda::cuMipmappedArrayDestroy(mipmap) }
}

/// Bytes an array takes, where the driver says.
pub(crate) fn array_bytes(array: CUarray, device: CUdevice) -> Option<u64> {
    requirements(|found| {
        // SAFETY: the output is valid for writing; the array was made a moment ago.
        unsafe { cuda::cuArrayGetMemoryRequirements(found, array, device) }
    })
}

/// Bytes a mipmapped array takes, where the driver says.
pub(crate) fn mipmap_bytes(mipmap: CUmipmappedArray, device: CUdevice) -> Option<u64> {
    requirements(|found| {
        // SAFETY: as above.
        unsafe { cuda::cuMipmappedArrayGetMemoryRequirements(found, mipmap, device) }
    })
}

fn requirements(ask: impl FnOnce(*mut CUDA_ARRAY_MEMORY_REQUIREMENTS) -> CUresult) -> Option<u64> {
    let mut found = CUDA_ARRAY_MEMORY_REQUIREMENTS { size: 0, alignment: 0, reserved: [0; 4] };
    let status = ask(&raw mut found);
    (status.is_success() && found.size != 0).then_some(found.size as u64)
}

/// Every allocation of a graph and of the graphs inside it: device, address and bytes.
pub(crate) fn graph_allocations(graph: CUgraph) -> Vec<(CUdevice, u64, u64)> {
    const DEPTH_MAX: usize = 16;
    let mut found = Vec::new();
    let mut within = vec![(graph, 0)];
    while let Some((graph, depth)) = within.pop() {
        for node in graph_nodes(graph) {
            if let Some(allocation) = allocation_of(node) {
                found.push(allocation);
            } else if depth < DEPTH_MAX
                && let Some(child) = child_of(node)
            {
                within.push((child, depth + 1));
            }
        }
    }
    found
}

fn graph_nodes(graph: CUgraph) -> Vec<CUgraphNode> {
    let mut count = 0usize;
    // SAFETY: a null list asks for the number only.
    let status = unsafe { cuda::cuGraphGetNodes(graph, std::ptr::null_mut(), &raw mut count) };
    if !status.is_success() || count == 0 {
        return Vec::new();
    }
    let mut nodes = vec![CUgraphNode::NULL; count];
    // SAFETY: the list has room for as many as the count says.
    let status = unsafe { cuda::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &raw mut count) };
    nodes.truncate(if status.is_success() { count } else { 0 });
    nodes
}

fn node_kind(node: CUgraphNode) -> Option<CUenum> {
    let mut kind = CUenum::MAX;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuGraphNodeGetType(node, &raw mut kind) };
    status.is_success().then_some(kind)
}

fn allocation_of(node: CUgraphNode) -> Option<(CUdevice, u64, u64)> {
    if node_kind(node)? != CU_GRAPH_NODE_TYPE_MEM_ALLOC {
        return None;
    }
    // SAFETY: an all-zero structure is a valid value to be filled in.
    let mut params: CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { std::mem::zeroed() };
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuGraphMemAllocNodeGetParams(node, &raw mut params) };
    let device = device_of(params.poolProps.location)?;
    status.is_success().then_some((device, params.dptr, params.bytesize as u64))
}

fn child_of(node: CUgraphNode) -> Option<CUgraph> {
    const NODE_TYPE_GRAPH: CUenum = 4;
    if node_kind(node)? != NODE_TYPE_GRAPH {
        return None;
    }
    let mut child = CUgraph::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuGraphChildGraphNodeGetGraph(node, &raw mut child) };
    (status.is_success() && !child.is_null()).then_some(child)
}

/// The device whose memory a location means; `None` for host memory.
pub(crate) fn device_of(location: CUmemLocation) -> Option<CUdevice> {
    const DEVICE_LOCALITY_DOMAIN: CUenum = 6;
    match location.kind {
        CU_MEM_LOCATION_TYPE_DEVICE => Some(location.id),
        // The low byte is the device, the next one a part of its memory.
        DEVICE_LOCALITY_DOMAIN => Some(location.id & 0xff),
        _ => None,
    }
}

/// Bytes a process has on a device, as NVML sees it. Starts NVML, which takes milliseconds the first time.
pub(crate) fn process_bytes(uuid: &[u8; 16], pid: u32) -> Option<u64> {
    resolve::load_nvml()?;
    // SAFETY: no arguments. Started once more than the program starts it: NVML counts.
    let started = unsafe { management::nvmlInit_v2() };
    if started != NvmlReturn::SUCCESS {
        return None;
    }
    let found = nvml_device(uuid).and_then(|device| {
        let (status, processes) = processes(|count, list| {
            // SAFETY: the list has room for as many as the count says.
            unsafe { management::nvmlDeviceGetComputeRunningProcesses_v3(device, count, list) }
        });
        let own = processes.into_iter().find(|process: &NvmlProcessInfo| process.pid == pid)?;
        (status == NvmlReturn::SUCCESS && own.used_gpu_memory != u64::MAX).then_some(own.used_gpu_memory)
    });
    // SAFETY: undoes the start above.
    let _stopped = unsafe { management::nvmlShutdown() };
    found
}

fn nvml_device(uuid: &[u8; 16]) -> Option<NvmlDevice> {
    let mut count = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { management::nvmlDeviceGetCount_v2(&raw mut count) };
    (0..count).take_while(|_| status == NvmlReturn::SUCCESS).find_map(|index| {
        let mut device = NvmlDevice(std::ptr::null_mut());
        // SAFETY: the output is valid for writing.
        let status = unsafe { management::nvmlDeviceGetHandleByIndex_v2(index, &raw mut device) };
        (status == NvmlReturn::SUCCESS && nvml_uuid(device).as_ref() == Some(uuid)).then_some(device)
    })
}

/// All that one of NVML's list calls would list, however short the program's own list is.
pub(crate) fn processes<T: Copy + Default>(
    ask: impl Fn(*mut c_uint, *mut T) -> NvmlReturn,
) -> (NvmlReturn, Vec<T>) {
    const TRIES_MAX: usize = 4;
    let mut list = vec![T::default(); 64];
    let mut status = NvmlReturn::ERROR_INSUFFICIENT_SIZE;
    for _ in 0..TRIES_MAX {
        let mut count = c_uint::try_from(list.len()).unwrap_or(c_uint::MAX);
        status = ask(&raw mut count, list.as_mut_ptr());
        if status == NvmlReturn::ERROR_INSUFFICIENT_SIZE {
            // More may have started by the time it is asked again.
            list.resize((count as usize).max(list.len()) * 2, T::default());
            continue;
        }
        list.truncate(if status == NvmlReturn::SUCCESS { count as usize } else { 0 });
        return (status, list);
    }
    (status, Vec::new())
}

/// A structure of NVML that carries a list's length.
pub(crate) trait Counted {
    /// The length: room before the call, number of entries after it.
    fn count(&mut self) -> &mut c_uint;
}

macro_rules! counted {
    ($($structure:ty),*) => {$(
        impl Counted for $structure {
            fn count(&mut self) -> &mut c_uint {
                &mut self.count
            }
        }
    )*};
}
counted!(NvmlProcessDetailList, NvmlProcessesUtilizationInfo);

/// Asks through a structure what is to be answered through a length of its own.
pub(crate) fn through<L: Counted>(
    mut list: L,
    count: *mut c_uint,
    ask: impl Fn(*mut L) -> NvmlReturn,
) -> NvmlReturn {
    let count = Out(count);
    *list.count() = count.get().unwrap_or(0);
    let status = ask(&raw mut list);
    count.set(*list.count());
    status
}

/// Writes a list into the program's own, as far as its length at `count` allows; says how long it is.
pub(crate) fn give_list<T: Copy>(found: &[T], count: &Out<c_uint>, list: *mut T) -> NvmlReturn {
    let Some(room) = count.get() else { return NvmlReturn::ERROR_INVALID_ARGUMENT };
    let length = c_uint::try_from(found.len()).unwrap_or(c_uint::MAX);
    count.set(length);
    if found.is_empty() {
        return NvmlReturn::SUCCESS;
    }
    if room < length || list.is_null() {
        return NvmlReturn::ERROR_INSUFFICIENT_SIZE;
    }
    for (index, &value) in found.iter().enumerate() {
        Out(list.wrapping_add(index)).set(value);
    }
    NvmlReturn::SUCCESS
}

/// The file behind a descriptor, by device and inode.
pub(crate) fn file_of(descriptor: c_int) -> Option<(u64, u64)> {
    // SAFETY: an all-zero record is a valid value to be filled in.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: any descriptor may be asked about; the output is valid for writing.
    (unsafe { libc::fstat(descriptor, &raw mut status) } == 0).then_some((status.st_dev, status.st_ino))
}

/// Gives device memory back on behalf of a call that could not be completed.
pub(crate) fn free(address: CUdeviceptr) -> CUresult {
    // SAFETY: the address was returned by the driver a moment ago and has been given to nobody.
    unsafe { cuda::cuMemFree_v2(address) }
}

/// The UUID of an NVML device, in bytes.
pub(crate) fn nvml_uuid(device: NvmlDevice) -> Option<[u8; 16]> {
    let mut text: [c_char; 96] = [0; 96];
    // SAFETY: the output is valid for writing its stated length.
    let status = unsafe { management::nvmlDeviceGetUUID(device, text.as_mut_ptr(), 96) };
    if status != NvmlReturn::SUCCESS {
        return None;
    }
    // `GPU-` or `MIG-`, then 32 hexadecimal digits with hyphens between.
    let mut digits = text.iter().skip(4).take_while(|&&c| c != 0).filter(|&&c| c.cast_unsigned() != b'-');
    let mut uuid = [0u8; 16];
    for byte in &mut uuid {
        let high = hex(digits.next()?.cast_unsigned())?;
        *byte = (high << 4) | hex(digits.next()?.cast_unsigned())?;
    }
    Some(uuid)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The handle of a device's primary context, which must be active. Retains it for a moment, because that is
/// the only public way to its handle.
pub(crate) fn primary_context(device: CUdevice) -> Option<CUcontext> {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDevicePrimaryCtxRetain(&raw mut context, device) };
    if !status.is_success() {
        return None;
    }
    // SAFETY: gives back the reference taken above.
    let released = unsafe { cuda::cuDevicePrimaryCtxRelease_v2(device) };
    released.is_success().then_some(context)
}
