//! How each entry point travels to a borrowed GPU: further columns of THE table, keyed by its rows' names.
//!
//! From these columns come the remote client's exports, its answers to `cuGetProcAddress`, the codec of every plain
//! call, the worker's dispatch and `docs/remote-coverage.md`. A row of the table that has no line here is
//! [`Column::Absent`]: the client does not export it, and a look-up says so, because programs cope with a function
//! that a driver lacks and not with one that lies.
//!
//! A line is `name way [class, audit, scope, arguments];`:
//! * *way*: `plain` (the columns say all there is to say: encoded and executed by rule), `own` (has a function of its
//!   own in the client) or `twin BASE` (the `_ptsz`/`_ptds` form of another line);
//! * *class* says when the client returns ([`Class`]), *audit* what its bytes count as ([`Audit`]), *scope* whether it
//!   needs a current context (`bound`) or not (`free`);
//! * *arguments*, one [`Rule`] for each. Empty where a call of its `own` travels as other operations, or not at all.

use super::symbols::{COUNT, Family, ROWS, Symbol};

/// When the client returns from a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// At once, from what the client knows; nothing travels because of it.
    Local,
    /// At once; what goes wrong is told later, as CUDA's asynchronous errors are.
    Forget,
    /// At once, with a result that the client made itself.
    Promise,
    /// After one round trip.
    Reply,
    /// After work on the device that the program itself asked to wait for.
    Sync,
}

/// What the bytes of a call count as in both ends' meters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Audit {
    /// The call itself.
    Control,
    /// Host memory on its way to the device.
    HostToDevice,
    /// Device memory on its way back.
    DeviceToHost,
    /// Arguments of kernels.
    Arguments,
    /// Code.
    Image,
}

/// What a handle on the wire may name. A handle of one kind is never taken for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A context.
    Context = 1,
    /// A stream.
    Stream = 2,
    /// An event.
    Event = 3,
    /// A module.
    Module = 4,
    /// A kernel, of a module or of a library: since CUDA 12 callers pass either where a function is asked for.
    Function = 5,
    /// A library.
    Library = 6,
    /// A memory pool.
    Pool = 7,
    /// A graph.
    Graph = 8,
    /// A graph made ready to launch.
    Exec = 9,
    /// Physical memory without an address.
    Physical = 10,
    /// A link of code under way.
    Link = 11,
}

/// Every kind.
pub const KINDS: [Kind; 11] = [
    Kind::Context,
    Kind::Stream,
    Kind::Event,
    Kind::Module,
    Kind::Function,
    Kind::Library,
    Kind::Pool,
    Kind::Graph,
    Kind::Exec,
    Kind::Physical,
    Kind::Link,
];

/// How long what a pointer points to is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Len {
    /// So many bytes.
    Bytes(usize),
    /// As many elements as another argument says, of so many bytes each.
    Elements(usize, usize),
    /// The value of a pool's attribute, which another argument names: 4 bytes for the reuse switches, else 8.
    PoolAttribute(usize),
}

impl Len {
    /// Length in bytes, given all arguments as words; `None` where they do not make sense.
    #[must_use]
    pub fn of(self, words: &[u64]) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Elements(count, bytes) => usize::try_from(*words.get(count)?).ok()?.checked_mul(bytes),
            Self::PoolAttribute(attribute) => Some(match words.get(attribute)? {
                1..=3 => 4,
                _ => 8,
            }),
        }
    }
}

/// How an argument travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// By value.
    Word,
    /// By value as well: an address of the device that the signature calls a pointer.
    Address,
    /// A handle, by number. Null travels as 0.
    Handle(Kind),
    /// Where the caller wants a handle; the client chooses its number, the worker makes what it stands for.
    New(Kind),
    /// A handle that ends with this call.
    End(Kind),
    /// Where the caller wants a result.
    Out(Len),
    /// The same, or null.
    OutMaybe(Len),
    /// Bytes the call reads.
    In(Len),
    /// A terminated text the call reads.
    Text,
}

/// What the columns say of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// When the client returns.
    pub class: Class,
    /// What its bytes count as.
    pub audit: Audit,
    /// Whether it needs a current context.
    pub bound: bool,
    /// The arguments; empty where the call does not travel as itself.
    pub args: &'static [Rule],
}

/// The columns of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// Not offered to a remote program.
    Absent,
    /// Encoded and executed by rule.
    Plain(Line),
    /// Has a function of its own in the client.
    Own(Line),
    /// The per-thread form of another row.
    Twin(Symbol),
}

const WORD: Rule = Rule::Word;
const STREAM: Rule = Rule::Handle(Kind::Stream);
const MODULE: Rule = Rule::Handle(Kind::Module);
const LIBRARY: Rule = Rule::Handle(Kind::Library);
const TEXT: Rule = Rule::Text;
const NEW_CONTEXT: Rule = Rule::New(Kind::Context);
const NEW_STREAM: Rule = Rule::New(Kind::Stream);
const NEW_FUNCTION: Rule = Rule::New(Kind::Function);
const EVENT: Rule = Rule::Handle(Kind::Event);
const FUNCTION: Rule = Rule::Handle(Kind::Function);
const POOL: Rule = Rule::Handle(Kind::Pool);
const GRAPH: Rule = Rule::Handle(Kind::Graph);
const EXEC: Rule = Rule::Handle(Kind::Exec);
const PHYSICAL: Rule = Rule::Handle(Kind::Physical);
const NEW_GRAPH: Rule = Rule::New(Kind::Graph);
const NEW_EXEC: Rule = Rule::New(Kind::Exec);
const OUT4: Rule = Rule::Out(Len::Bytes(4));
const OUT8: Rule = Rule::Out(Len::Bytes(8));
const MAYBE4: Rule = Rule::OutMaybe(Len::Bytes(4));
const MAYBE8: Rule = Rule::OutMaybe(Len::Bytes(8));
const BYTES_OF_POOL_PROPERTIES: usize = 88;
const BYTES_OF_ACCESS: usize = 12;
const BYTES_OF_LOCATION: usize = 8;
const BYTES_OF_PHYSICAL_PROPERTIES: usize = 32;
const BYTES_OF_STREAM_ATTRIBUTE: usize = 64;
const BYTES_OF_UPDATE_RESULT: usize = 24;

/// Calls the macro `$visit` with every line, behind any `$context` tokens.
#[macro_export]
macro_rules! remote_lines {
    ($visit:path $(, $context:tt)*) => {
        $visit! { [$($context)*]
            // Start and look-up.
            cuInit own [Local, Control, free, []];
            cuDriverGetVersion own [Local, Control, free, []];
            cuGetProcAddress own [Local, Control, free, []];
            cuGetProcAddress_v2 own [Local, Control, free, []];
            cuGetExportTable own [Local, Control, free, []];
            cuGetErrorString own [Local, Control, free, []];
            cuGetErrorName own [Local, Control, free, []];
            cuModuleGetLoadingMode own [Local, Control, free, []];

            // Devices: all known since the handshake.
            cuDeviceGet own [Local, Control, free, []];
            cuDeviceGetCount own [Local, Control, free, []];
            cuDeviceGetName own [Local, Control, free, []];
            cuDeviceGetUuid own [Local, Control, free, []];
            cuDeviceGetUuid_v2 own [Local, Control, free, []];
            cuDeviceGetAttribute own [Local, Control, free, []];
            cuDeviceTotalMem_v2 own [Local, Control, free, []];
            cuDeviceGetPCIBusId own [Local, Control, free, []];
            cuDeviceGetByPCIBusId own [Local, Control, free, []];
            cuDeviceComputeCapability own [Local, Control, free, []];
            cuDeviceCanAccessPeer plain [Reply, Control, free, [OUT4, WORD, WORD]];
            cuDeviceGetP2PAttribute plain [Reply, Control, free, [OUT4, WORD, WORD, WORD]];
            cuDeviceGetTexture1DLinearMaxWidth plain [Reply, Control, free, [OUT8, WORD, WORD, WORD]];

            // Contexts. The stack of each thread is the client's.
            cuDevicePrimaryCtxRetain own [Reply, Control, free, [NEW_CONTEXT, WORD]];
            cuDevicePrimaryCtxRelease own [Reply, Control, free, [WORD]];
            cuDevicePrimaryCtxRelease_v2 own [Reply, Control, free, [WORD]];
            cuDevicePrimaryCtxReset own [Reply, Control, free, [WORD]];
            cuDevicePrimaryCtxReset_v2 own [Reply, Control, free, [WORD]];
            cuDevicePrimaryCtxGetState own [Local, Control, free, []];
            cuDevicePrimaryCtxSetFlags own [Reply, Control, free, [WORD, WORD]];
            cuDevicePrimaryCtxSetFlags_v2 own [Reply, Control, free, [WORD, WORD]];
            cuCtxCreate_v2 own [Reply, Control, free, [NEW_CONTEXT, WORD, WORD]];
            cuCtxDestroy_v2 own [Reply, Control, free, [Rule::End(Kind::Context)]];
            cuCtxGetCurrent own [Local, Control, free, []];
            cuCtxSetCurrent own [Local, Control, free, []];
            cuCtxPushCurrent_v2 own [Local, Control, free, []];
            cuCtxPopCurrent_v2 own [Local, Control, free, []];
            cuCtxGetDevice own [Local, Control, free, []];
            cuCtxGetDevice_v2 own [Local, Control, free, []];
            cuCtxGetFlags own [Local, Control, bound, []];
            cuCtxGetApiVersion own [Local, Control, free, []];
            cuCtxGetStreamPriorityRange plain [Reply, Control, bound, [MAYBE4, MAYBE4]];
            cuCtxGetLimit plain [Reply, Control, bound, [OUT8, WORD]];
            cuCtxSetLimit plain [Reply, Control, bound, [WORD, WORD]];
            cuCtxGetId own [Local, Control, free, []];
            cuCtxGetCacheConfig plain [Reply, Control, bound, [OUT4]];
            cuCtxSetCacheConfig plain [Reply, Control, bound, [WORD]];
            cuCtxGetSharedMemConfig plain [Reply, Control, bound, [OUT4]];
            cuCtxSetSharedMemConfig plain [Reply, Control, bound, [WORD]];
            cuCtxEnablePeerAccess plain [Reply, Control, bound, [Rule::Handle(Kind::Context), WORD]];
            cuCtxDisablePeerAccess plain [Reply, Control, bound, [Rule::Handle(Kind::Context)]];
            cuCtxSynchronize own [Sync, Control, bound, []];
            cuCtxSynchronize_v2 own [Sync, Control, free, []];

            // Memory.
            cuMemGetInfo_v2 own [Reply, Control, bound, [OUT8, OUT8]];
            cuMemAlloc_v2 own [Reply, Control, bound, [OUT8, WORD]];
            cuMemAllocPitch_v2 own [Reply, Control, bound, [OUT8, OUT8, WORD, WORD, WORD]];
            cuMemFree_v2 own [Forget, Control, bound, [WORD]];
            cuMemAllocAsync own [Reply, Control, bound, [OUT8, WORD, STREAM]];
            cuMemAllocAsync_ptsz twin cuMemAllocAsync;
            cuMemAllocFromPoolAsync own [Reply, Control, bound, [OUT8, WORD, POOL, STREAM]];
            cuMemAllocFromPoolAsync_ptsz twin cuMemAllocFromPoolAsync;
            cuMemFreeAsync own [Forget, Control, bound, [WORD, STREAM]];
            cuMemFreeAsync_ptsz twin cuMemFreeAsync;
            cuMemGetAddressRange_v2 own [Local, Control, free, []];
            cuPointerGetAttribute own [Local, Control, free, []];
            cuPointerGetAttributes own [Local, Control, free, []];

            // Physical memory and addresses of one's own. Exporting memory does not travel.
            cuMemCreate own [Reply, Control, free, [Rule::New(Kind::Physical), WORD, Rule::In(Len::Bytes(BYTES_OF_PHYSICAL_PROPERTIES)), WORD]];
            cuMemRelease own [Reply, Control, free, [Rule::End(Kind::Physical)]];
            cuMemRetainAllocationHandle own [Reply, Control, free, [Rule::New(Kind::Physical), Rule::Address]];
            cuMemAddressReserve plain [Reply, Control, free, [OUT8, WORD, WORD, WORD, WORD]];
            cuMemAddressFree plain [Reply, Control, free, [WORD, WORD]];
            cuMemMap own [Reply, Control, free, [WORD, WORD, WORD, PHYSICAL, WORD]];
            cuMemUnmap own [Reply, Control, free, [WORD, WORD]];
            cuMemSetAccess plain [Reply, Control, free, [WORD, WORD, Rule::In(Len::Elements(3, BYTES_OF_ACCESS)), WORD]];
            cuMemGetAccess plain [Reply, Control, free, [OUT8, Rule::In(Len::Bytes(BYTES_OF_LOCATION)), WORD]];
            cuMemGetAllocationGranularity plain [Reply, Control, free, [OUT8, Rule::In(Len::Bytes(BYTES_OF_PHYSICAL_PROPERTIES)), WORD]];
            cuMemGetAllocationPropertiesFromHandle plain [Reply, Control, free, [Rule::Out(Len::Bytes(BYTES_OF_PHYSICAL_PROPERTIES)), PHYSICAL]];

            // Pools.
            cuDeviceGetDefaultMemPool own [Reply, Control, free, []];
            cuDeviceGetMemPool own [Reply, Control, free, []];
            cuDeviceSetMemPool own [Reply, Control, free, [WORD, POOL]];
            cuMemPoolCreate plain [Reply, Control, free, [Rule::New(Kind::Pool), Rule::In(Len::Bytes(BYTES_OF_POOL_PROPERTIES))]];
            cuMemPoolDestroy plain [Reply, Control, free, [Rule::End(Kind::Pool)]];
            cuMemPoolTrimTo plain [Reply, Control, free, [POOL, WORD]];
            cuMemPoolGetAttribute plain [Reply, Control, free, [POOL, WORD, Rule::Out(Len::PoolAttribute(1))]];
            cuMemPoolSetAttribute plain [Reply, Control, free, [POOL, WORD, Rule::In(Len::PoolAttribute(1))]];
            cuMemPoolSetAccess plain [Reply, Control, free, [POOL, Rule::In(Len::Elements(2, BYTES_OF_ACCESS)), WORD]];
            cuMemPoolGetAccess plain [Reply, Control, free, [OUT4, POOL, Rule::In(Len::Bytes(BYTES_OF_LOCATION))]];

            cuDeviceGraphMemTrim plain [Reply, Control, free, [WORD]];
            cuDeviceGetGraphMemAttribute plain [Reply, Control, free, [WORD, WORD, OUT8]];
            cuDeviceSetGraphMemAttribute plain [Reply, Control, free, [WORD, WORD, Rule::In(Len::Bytes(8))]];

            // Host memory is the client's own.
            cuMemAllocHost_v2 own [Local, Control, bound, []];
            cuMemHostAlloc own [Local, Control, bound, []];
            cuMemFreeHost own [Local, Control, free, []];
            cuMemHostGetFlags own [Local, Control, free, []];
            cuMemHostRegister_v2 own [Local, Control, bound, []];
            cuMemHostUnregister own [Local, Control, free, []];

            // Copies and fills.
            cuMemcpy own [Sync, DeviceToHost, bound, []];
            cuMemcpy_ptds twin cuMemcpy;
            cuMemcpyAsync own [Forget, HostToDevice, bound, []];
            cuMemcpyAsync_ptsz twin cuMemcpyAsync;
            cuMemcpyHtoD_v2 own [Forget, HostToDevice, bound, []];
            cuMemcpyHtoD_v2_ptds twin cuMemcpyHtoD_v2;
            cuMemcpyHtoDAsync_v2 own [Forget, HostToDevice, bound, []];
            cuMemcpyHtoDAsync_v2_ptsz twin cuMemcpyHtoDAsync_v2;
            cuMemcpyDtoH_v2 own [Sync, DeviceToHost, bound, []];
            cuMemcpyDtoH_v2_ptds twin cuMemcpyDtoH_v2;
            cuMemcpyDtoHAsync_v2 own [Forget, DeviceToHost, bound, []];
            cuMemcpyDtoHAsync_v2_ptsz twin cuMemcpyDtoHAsync_v2;
            cuMemcpyDtoD_v2 own [Forget, Control, bound, []];
            cuMemcpyDtoD_v2_ptds twin cuMemcpyDtoD_v2;
            cuMemcpyDtoDAsync_v2 plain [Forget, Control, bound, [WORD, WORD, WORD, STREAM]];
            cuMemcpyDtoDAsync_v2_ptsz twin cuMemcpyDtoDAsync_v2;
            cuMemsetD8_v2 own [Forget, Control, bound, []];
            cuMemsetD8_v2_ptds twin cuMemsetD8_v2;
            cuMemsetD16_v2 own [Forget, Control, bound, []];
            cuMemsetD16_v2_ptds twin cuMemsetD16_v2;
            cuMemsetD32_v2 own [Forget, Control, bound, []];
            cuMemsetD32_v2_ptds twin cuMemsetD32_v2;
            cuMemsetD8Async plain [Forget, Control, bound, [WORD, WORD, WORD, STREAM]];
            cuMemsetD8Async_ptsz twin cuMemsetD8Async;
            cuMemsetD16Async plain [Forget, Control, bound, [WORD, WORD, WORD, STREAM]];
            cuMemsetD16Async_ptsz twin cuMemsetD16Async;
            cuMemsetD32Async plain [Forget, Control, bound, [WORD, WORD, WORD, STREAM]];
            cuMemsetD32Async_ptsz twin cuMemsetD32Async;

            cuMemsetD2D8_v2 own [Forget, Control, bound, []];
            cuMemsetD2D8_v2_ptds twin cuMemsetD2D8_v2;
            cuMemsetD2D16_v2 own [Forget, Control, bound, []];
            cuMemsetD2D16_v2_ptds twin cuMemsetD2D16_v2;
            cuMemsetD2D32_v2 own [Forget, Control, bound, []];
            cuMemsetD2D32_v2_ptds twin cuMemsetD2D32_v2;
            cuMemsetD2D8Async plain [Forget, Control, bound, [WORD, WORD, WORD, WORD, WORD, STREAM]];
            cuMemsetD2D8Async_ptsz twin cuMemsetD2D8Async;
            cuMemsetD2D16Async plain [Forget, Control, bound, [WORD, WORD, WORD, WORD, WORD, STREAM]];
            cuMemsetD2D16Async_ptsz twin cuMemsetD2D16Async;
            cuMemsetD2D32Async plain [Forget, Control, bound, [WORD, WORD, WORD, WORD, WORD, STREAM]];
            cuMemsetD2D32Async_ptsz twin cuMemsetD2D32Async;
            cuMemcpy2D_v2 own [Sync, DeviceToHost, bound, []];
            cuMemcpy2D_v2_ptds twin cuMemcpy2D_v2;
            cuMemcpy2DUnaligned_v2 own [Sync, DeviceToHost, bound, []];
            cuMemcpy2DUnaligned_v2_ptds twin cuMemcpy2DUnaligned_v2;
            cuMemcpy2DAsync_v2 own [Forget, HostToDevice, bound, []];
            cuMemcpy2DAsync_v2_ptsz twin cuMemcpy2DAsync_v2;
            cuMemcpy3D_v2 own [Sync, DeviceToHost, bound, []];
            cuMemcpy3D_v2_ptds twin cuMemcpy3D_v2;
            cuMemcpy3DAsync_v2 own [Forget, HostToDevice, bound, []];
            cuMemcpy3DAsync_v2_ptsz twin cuMemcpy3DAsync_v2;

            // Code.
            cuModuleLoad own [Reply, Image, bound, []];
            cuModuleLoadData own [Reply, Image, bound, []];
            cuModuleLoadDataEx own [Reply, Image, bound, []];
            cuModuleLoadFatBinary own [Reply, Image, bound, []];
            cuModuleUnload own [Forget, Control, bound, [Rule::End(Kind::Module)]];
            cuModuleGetFunction own [Promise, Control, bound, [NEW_FUNCTION, MODULE, TEXT]];
            cuModuleGetGlobal_v2 own [Reply, Control, bound, [MAYBE8, MAYBE8, MODULE, TEXT]];
            cuModuleGetFunctionCount plain [Reply, Control, free, [OUT4, MODULE]];
            cuLinkCreate_v2 own [Reply, Control, bound, []];
            cuLinkAddData_v2 own [Reply, Image, bound, []];
            cuLinkAddFile_v2 own [Reply, Image, bound, []];
            cuLinkComplete own [Reply, Image, bound, []];
            cuLinkDestroy own [Forget, Control, free, [Rule::End(Kind::Link)]];
            cuLibraryLoadData own [Reply, Image, free, []];
            cuLibraryUnload own [Forget, Control, free, [Rule::End(Kind::Library)]];
            cuLibraryGetKernel own [Promise, Control, free, [NEW_FUNCTION, LIBRARY, TEXT]];
            cuLibraryGetModule own [Reply, Control, bound, [Rule::New(Kind::Module), LIBRARY]];
            cuLibraryGetGlobal own [Reply, Control, bound, []];
            cuLibraryGetKernelCount plain [Reply, Control, free, [OUT4, LIBRARY]];
            cuKernelGetLibrary own [Local, Control, free, []];
            cuKernelGetAttribute own [Reply, Control, free, [OUT4, WORD, FUNCTION, WORD]];
            cuKernelSetAttribute own [Reply, Control, free, [WORD, WORD, FUNCTION, WORD]];
            cuKernelSetCacheConfig plain [Reply, Control, free, [FUNCTION, WORD, WORD]];
            cuKernelGetFunction own [Local, Control, bound, []];
            cuKernelGetName own [Local, Control, free, []];
            cuKernelGetParamInfo own [Local, Control, free, []];
            cuFuncGetAttribute own [Local, Control, bound, []];
            cuFuncSetAttribute own [Reply, Control, bound, [FUNCTION, WORD, WORD]];
            cuFuncSetCacheConfig plain [Forget, Control, bound, [FUNCTION, WORD]];
            cuFuncIsLoaded plain [Reply, Control, bound, [OUT4, FUNCTION]];
            cuFuncLoad plain [Reply, Control, bound, [FUNCTION]];
            cuFuncGetModule own [Local, Control, bound, []];
            cuFuncGetName own [Local, Control, bound, []];
            cuFuncGetParamInfo own [Local, Control, bound, []];
            cuOccupancyMaxActiveBlocksPerMultiprocessor plain [Reply, Control, bound, [OUT4, FUNCTION, WORD, WORD]];
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags plain [Reply, Control, bound, [OUT4, FUNCTION, WORD, WORD, WORD]];

            cuOccupancyAvailableDynamicSMemPerBlock plain [Reply, Control, bound, [OUT8, FUNCTION, WORD, WORD]];

            // Launches.
            cuLaunchKernel own [Forget, Arguments, bound, []];
            cuLaunchKernel_ptsz twin cuLaunchKernel;
            cuLaunchKernelEx own [Forget, Arguments, bound, []];
            cuLaunchKernelEx_ptsz twin cuLaunchKernelEx;
            cuLaunchCooperativeKernel own [Forget, Arguments, bound, []];
            cuLaunchCooperativeKernel_ptsz twin cuLaunchCooperativeKernel;

            // Streams.
            cuStreamCreate own [Promise, Control, bound, [NEW_STREAM, WORD]];
            cuStreamCreateWithPriority own [Promise, Control, bound, [NEW_STREAM, WORD, WORD]];
            cuStreamDestroy_v2 own [Forget, Control, bound, [Rule::End(Kind::Stream)]];
            cuStreamQuery own [Local, Control, bound, []];
            cuStreamQuery_ptsz twin cuStreamQuery;
            cuStreamSynchronize own [Sync, Control, bound, []];
            cuStreamSynchronize_ptsz twin cuStreamSynchronize;
            cuStreamWaitEvent own [Forget, Control, bound, [STREAM, EVENT, WORD]];
            cuStreamWaitEvent_ptsz twin cuStreamWaitEvent;
            cuStreamGetCtx own [Local, Control, bound, []];
            cuStreamGetCtx_ptsz twin cuStreamGetCtx;
            cuStreamGetCtx_v2 own [Local, Control, bound, []];
            cuStreamGetCtx_v2_ptsz twin cuStreamGetCtx_v2;
            cuStreamGetId own [Local, Control, bound, []];
            cuStreamGetId_ptsz twin cuStreamGetId;
            cuStreamGetDevice own [Local, Control, bound, []];
            cuStreamGetDevice_ptsz twin cuStreamGetDevice;
            cuStreamGetAttribute plain [Reply, Control, bound, [STREAM, WORD, Rule::Out(Len::Bytes(BYTES_OF_STREAM_ATTRIBUTE))]];
            cuStreamGetAttribute_ptsz twin cuStreamGetAttribute;
            cuStreamSetAttribute plain [Reply, Control, bound, [STREAM, WORD, Rule::In(Len::Bytes(BYTES_OF_STREAM_ATTRIBUTE))]];
            cuStreamSetAttribute_ptsz twin cuStreamSetAttribute;
            cuStreamCopyAttributes plain [Forget, Control, bound, [STREAM, STREAM]];
            cuStreamCopyAttributes_ptsz twin cuStreamCopyAttributes;
            cuStreamGetFlags own [Local, Control, bound, []];
            cuStreamGetFlags_ptsz twin cuStreamGetFlags;
            cuStreamGetPriority own [Local, Control, bound, []];
            cuStreamGetPriority_ptsz twin cuStreamGetPriority;
            cuStreamIsCapturing own [Local, Control, bound, []];
            cuStreamIsCapturing_ptsz twin cuStreamIsCapturing;

            // Capture, and graphs made by it. What a stream takes part in is known here.
            cuStreamBeginCapture_v2 own [Forget, Control, bound, [STREAM, WORD]];
            cuStreamBeginCapture_v2_ptsz twin cuStreamBeginCapture_v2;
            cuStreamEndCapture own [Reply, Control, bound, [STREAM, NEW_GRAPH]];
            cuStreamEndCapture_ptsz twin cuStreamEndCapture;
            cuStreamGetCaptureInfo own [Local, Control, bound, []];
            cuStreamGetCaptureInfo_ptsz twin cuStreamGetCaptureInfo;
            cuStreamGetCaptureInfo_v2 own [Local, Control, bound, []];
            cuStreamGetCaptureInfo_v2_ptsz twin cuStreamGetCaptureInfo_v2;
            cuStreamGetCaptureInfo_v3 own [Local, Control, bound, []];
            cuStreamGetCaptureInfo_v3_ptsz twin cuStreamGetCaptureInfo_v3;
            cuThreadExchangeStreamCaptureMode own [Local, Control, free, []];
            cuGraphClone own [Reply, Control, free, [NEW_GRAPH, GRAPH]];
            cuGraphDestroy own [Forget, Control, free, [Rule::End(Kind::Graph)]];
            cuGraphGetNodes own [Reply, Control, free, [GRAPH, MAYBE8, OUT8]];
            cuGraphInstantiate own [Reply, Control, free, []];
            cuGraphInstantiate_v2 own [Reply, Control, free, []];
            cuGraphInstantiateWithFlags own [Reply, Control, free, [NEW_EXEC, GRAPH, WORD]];
            cuGraphInstantiateWithParams own [Reply, Control, free, []];
            cuGraphInstantiateWithParams_ptsz twin cuGraphInstantiateWithParams;
            cuGraphExecUpdate_v2 own [Reply, Control, free, [EXEC, GRAPH, Rule::Out(Len::Bytes(BYTES_OF_UPDATE_RESULT))]];
            cuGraphExecGetFlags plain [Reply, Control, free, [EXEC, OUT8]];
            cuGraphExecDestroy own [Forget, Control, free, [Rule::End(Kind::Exec)]];
            cuGraphUpload plain [Forget, Control, bound, [EXEC, STREAM]];
            cuGraphUpload_ptsz twin cuGraphUpload;
            cuGraphLaunch own [Forget, Control, bound, [EXEC, STREAM]];
            cuGraphLaunch_ptsz twin cuGraphLaunch;

            // Events. Completions are pushed, so that asking is local.
            cuEventCreate own [Promise, Control, bound, [Rule::New(Kind::Event), WORD]];
            cuEventDestroy_v2 own [Forget, Control, free, [Rule::End(Kind::Event)]];
            cuEventRecord own [Forget, Control, bound, []];
            cuEventRecord_ptsz twin cuEventRecord;
            cuEventRecordWithFlags own [Forget, Control, bound, []];
            cuEventRecordWithFlags_ptsz twin cuEventRecordWithFlags;
            cuEventQuery own [Local, Control, free, []];
            cuEventSynchronize own [Sync, Control, free, []];
            cuEventElapsedTime own [Reply, Control, free, [OUT4, EVENT, EVENT]];
            cuEventElapsedTime_v2 own [Reply, Control, free, [OUT4, EVENT, EVENT]];

            // Words in device memory.
            cuStreamWriteValue32_v2 plain [Forget, Control, bound, [STREAM, WORD, WORD, WORD]];
            cuStreamWriteValue32_v2_ptsz twin cuStreamWriteValue32_v2;
            cuStreamWriteValue64_v2 plain [Forget, Control, bound, [STREAM, WORD, WORD, WORD]];
            cuStreamWriteValue64_v2_ptsz twin cuStreamWriteValue64_v2;
            cuStreamWaitValue32_v2 plain [Forget, Control, bound, [STREAM, WORD, WORD, WORD]];
            cuStreamWaitValue32_v2_ptsz twin cuStreamWaitValue32_v2;
            cuStreamWaitValue64_v2 plain [Forget, Control, bound, [STREAM, WORD, WORD, WORD]];
            cuStreamWaitValue64_v2_ptsz twin cuStreamWaitValue64_v2;
        }
    };
}

/// Makes `remote_way!`, which expands to one of four token streams by what a row's line says. `$d` is a dollar sign:
/// a macro that makes a macro cannot write one.
macro_rules! make_ways {
    ([$d:tt] $($name:ident $way:ident $($base:ident)? $([$($line:tt)*])?;)*) => {
        /// Expands to the branch of a row's way:
        /// `remote_way! { ROW, own { .. } plain { .. } twin MACRO { .. } absent { .. } }`. For a twin, the macro named
        /// there is called with the row it is a twin of and the branch's tokens.
        #[macro_export]
        macro_rules! remote_way {
            $(($name, $d($d branches:tt)*) => { $crate::remote_branch! { $way [$($base)?] $d($d branches)* } };)*
            ($d other:ident, $d($d branches:tt)*) => { $crate::remote_branch! { absent [] $d($d branches)* } };
        }
    };
}
crate::remote_lines!(make_ways, $);

/// Picks one of the branches of `remote_way!`.
#[doc(hidden)]
#[macro_export]
macro_rules! remote_branch {
    (own [] own {$($t:tt)*} plain {$($p:tt)*} twin $m:ident {$($w:tt)*} absent {$($a:tt)*}) => {$($t)*};
    (plain [] own {$($o:tt)*} plain {$($t:tt)*} twin $m:ident {$($w:tt)*} absent {$($a:tt)*}) => {$($t)*};
    (twin [$base:ident] own {$($o:tt)*} plain {$($p:tt)*} twin $m:ident {$($t:tt)*} absent {$($a:tt)*}) => {$m! { $base $($t)* }};
    (absent [] own {$($o:tt)*} plain {$($p:tt)*} twin $m:ident {$($w:tt)*} absent {$($t:tt)*}) => {$($t)*};
}

macro_rules! scope {
    (bound) => {
        true
    };
    (free) => {
        false
    };
}

macro_rules! column {
    (plain [$class:ident, $audit:ident, $scope:ident, [$($rule:expr),*]]) => {
        Column::Plain(Line { class: Class::$class, audit: Audit::$audit, bound: scope!($scope), args: &[$($rule),*] })
    };
    (own [$class:ident, $audit:ident, $scope:ident, [$($rule:expr),*]]) => {
        Column::Own(Line { class: Class::$class, audit: Audit::$audit, bound: scope!($scope), args: &[$($rule),*] })
    };
    (twin $base:ident) => {
        Column::Twin(Symbol::$base)
    };
}

macro_rules! make_columns {
    ([] $($name:ident $way:ident $($base:ident)? $([$($line:tt)*])?;)*) => {
        const fn columns() -> [Column; COUNT] {
            let mut columns = [Column::Absent; COUNT];
            $(columns[Symbol::$name as usize] = column!($way $($base)? $([$($line)*])?);)*
            columns
        }
    };
}
crate::remote_lines!(make_columns);

/// The columns, in table order.
pub static COLUMNS: [Column; COUNT] = columns();

impl Symbol {
    /// How the row travels.
    #[must_use]
    pub fn column(self) -> &'static Column {
        &COLUMNS[self.index()]
    }

    /// What the columns say of the row, or of the row it is a twin of.
    #[must_use]
    pub fn line(self) -> Option<&'static Line> {
        match self.column() {
            Column::Absent => None,
            Column::Plain(line) | Column::Own(line) => Some(line),
            Column::Twin(base) => base.line(),
        }
    }
}

/// Why a row is not offered, in the words of the coverage report.
#[must_use]
pub fn absence(symbol: Symbol) -> &'static str {
    let row = symbol.row();
    match row.family {
        Family::Ipc | Family::External | Family::Graphics => {
            "names things of another process or interface on the caller's machine"
        }
        Family::Checkpoint => "acts on processes of the caller's machine",
        Family::Managed | Family::ManagedHint => "managed memory would need page faults across the link",
        Family::Multicast | Family::GreenContext => "belongs to the lender's node",
        _ if ROWS.iter().any(|other| other.base_name == row.base_name && row.since < other.since) => {
            "an older form; programs that ask by version get the newer one"
        }
        _ => "not yet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::symbols::{SYMBOLS, ThreadMode};

    macro_rules! arities {
        ([] $($row:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
            /// Number of arguments and whether each is a pointer, of every row.
            fn shapes() -> Vec<Vec<bool>> {
                vec![$(vec![$(stringify!($ty).starts_with('*')),*]),*]
            }
        };
    }
    crate::cuda_symbols!(arities);

    #[test]
    fn every_row_has_a_class_or_a_reason() {
        for &symbol in SYMBOLS {
            assert!(symbol.line().is_some() || !absence(symbol).is_empty(), "{symbol:?}");
        }
        let offered = SYMBOLS.iter().filter(|symbol| symbol.line().is_some()).count();
        assert!(offered > 100, "{offered} rows are offered");
    }

    #[test]
    fn lines_fit_their_signatures() {
        let shapes = shapes();
        for &symbol in SYMBOLS {
            let (Column::Plain(line) | Column::Own(line)) = symbol.column() else { continue };
            if line.args.is_empty() && matches!(symbol.column(), Column::Own(_)) {
                continue;
            }
            let shape = &shapes[symbol.index()];
            assert_eq!(line.args.len(), shape.len(), "arguments of {symbol:?}");
            for (index, (rule, &pointer)) in line.args.iter().zip(shape).enumerate() {
                let by_pointer = matches!(
                    rule,
                    Rule::New(_)
                        | Rule::Out(_)
                        | Rule::OutMaybe(_)
                        | Rule::In(_)
                        | Rule::Text
                        | Rule::Address
                );
                assert_eq!(by_pointer, pointer, "argument {index} of {symbol:?}");
            }
        }
    }

    #[test]
    fn what_returns_at_once_has_no_results_to_wait_for() {
        for &symbol in SYMBOLS {
            let (Column::Plain(line) | Column::Own(line)) = symbol.column() else { continue };
            let waits = line.args.iter().any(|rule| matches!(rule, Rule::Out(_) | Rule::OutMaybe(_)));
            assert!(!waits || line.class == Class::Reply, "{symbol:?}");
        }
    }

    #[test]
    fn twins_are_of_per_thread_rows() {
        for &symbol in SYMBOLS {
            if let Column::Twin(base) = symbol.column() {
                assert_eq!(symbol.row().thread_mode, ThreadMode::PerThread, "{symbol:?}");
                assert_eq!(base.row().base_name, symbol.row().base_name, "{symbol:?}");
            }
        }
    }

    #[test]
    fn what_names_the_callers_machine_is_absent() {
        for &symbol in SYMBOLS {
            let foreign = matches!(
                symbol.row().family,
                Family::Ipc | Family::Checkpoint | Family::External | Family::Graphics
            );
            assert!(!foreign || symbol.line().is_none(), "{symbol:?}");
        }
    }
}
