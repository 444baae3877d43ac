//! THE table of CUDA driver entry points: every symbol Headgate knows, once.
//!
//! Three readers share it: the hook exports a shell for each `hooked` row and nothing else, the simulated
//! driver exports every row, and the benches' null driver too. Adding a symbol starts here (see
//! `CONTRIBUTING.md`, "Add a hooked symbol").
//!
//! A row is `elf_name (arguments) [base name, introduced in, thread mode, family, disposition]`:
//! * *base name* and *introduced in* are what `cuGetProcAddress` is asked with (`cudaTypedefs.h`): among the
//!   rows of one base name and thread mode, the greatest version not above the asked one is meant;
//! * *thread mode* `PerThread` marks the `_ptsz`/`_ptds` twins whose null stream is the calling thread's own;
//! * *family* says what kind of call it is and so, through [`Family::on_failure`], what happens when
//!   Headgate itself fails inside it;
//! * *disposition* says whether the hook stands in front of it (`hooked`) or never sees it (`passed`).
//!
//! Every entry point returns a `CUresult`.

/// Calls the macro `$visit` with every row of the table, behind any `$context` tokens.
///
/// The visitor receives `[context] rows...`, each row ending in `;`.
#[macro_export]
macro_rules! cuda_symbols {
    ($visit:path $(, $context:tt)*) => {
        $visit! { [$($context)*]
            // Initialisation, versions, look-up.
            cuInit (flags: c_uint) ["cuInit", 2000, Base, Init, hooked];
            cuDriverGetVersion (version: *mut c_int) ["cuDriverGetVersion", 2020, Base, Init, passed];
            cuGetProcAddress (symbol: *const c_char, pfn: *mut *mut c_void, cuda_version: c_int, flags: u64) ["cuGetProcAddress", 11030, Base, Routing, hooked];
            cuGetProcAddress_v2 (symbol: *const c_char, pfn: *mut *mut c_void, cuda_version: c_int, flags: u64, symbol_status: *mut CUenum) ["cuGetProcAddress", 12000, Base, Routing, hooked];
            cuGetExportTable (table: *mut *const c_void, id: *const CUuuid) ["cuGetExportTable", 3000, Base, Routing, passed];
            cuGetErrorString (error: CUresult, text: *mut *const c_char) ["cuGetErrorString", 6000, Base, Query, passed];
            cuGetErrorName (error: CUresult, text: *mut *const c_char) ["cuGetErrorName", 6000, Base, Query, passed];
            cuModuleGetLoadingMode (mode: *mut CUenum) ["cuModuleGetLoadingMode", 11070, Base, Query, passed];

            // Devices.
            cuDeviceGet (device: *mut CUdevice, ordinal: c_int) ["cuDeviceGet", 2000, Base, Query, passed];
            cuDeviceGetCount (count: *mut c_int) ["cuDeviceGetCount", 2000, Base, Query, passed];
            cuDeviceGetName (name: *mut c_char, len: c_int, dev: CUdevice) ["cuDeviceGetName", 2000, Base, Query, passed];
            cuDeviceGetUuid (uuid: *mut CUuuid, dev: CUdevice) ["cuDeviceGetUuid", 9020, Base, Query, passed];
            cuDeviceGetUuid_v2 (uuid: *mut CUuuid, dev: CUdevice) ["cuDeviceGetUuid", 11040, Base, Query, passed];
            cuDeviceTotalMem_v2 (bytes: *mut usize, dev: CUdevice) ["cuDeviceTotalMem", 3020, Base, MemoryView, hooked];
            cuDeviceGetAttribute (value: *mut c_int, attribute: CUenum, dev: CUdevice) ["cuDeviceGetAttribute", 2000, Base, Query, passed];
            cuDeviceGetPCIBusId (id: *mut c_char, len: c_int, dev: CUdevice) ["cuDeviceGetPCIBusId", 4010, Base, Query, passed];
            cuDeviceGetByPCIBusId (dev: *mut CUdevice, id: *const c_char) ["cuDeviceGetByPCIBusId", 4010, Base, Query, passed];
            cuDeviceCanAccessPeer (can: *mut c_int, dev: CUdevice, peer: CUdevice) ["cuDeviceCanAccessPeer", 4000, Base, Query, passed];
            cuDeviceGetDefaultMemPool (pool: *mut CUmemoryPool, dev: CUdevice) ["cuDeviceGetDefaultMemPool", 11020, Base, Query, passed];
            cuDeviceGetMemPool (pool: *mut CUmemoryPool, dev: CUdevice) ["cuDeviceGetMemPool", 11020, Base, Query, passed];

            // Contexts.
            cuDevicePrimaryCtxRetain (ctx: *mut CUcontext, dev: CUdevice) ["cuDevicePrimaryCtxRetain", 7000, Base, Context, hooked];
            cuDevicePrimaryCtxRelease (dev: CUdevice) ["cuDevicePrimaryCtxRelease", 7000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxRelease_v2 (dev: CUdevice) ["cuDevicePrimaryCtxRelease", 11000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxReset (dev: CUdevice) ["cuDevicePrimaryCtxReset", 7000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxReset_v2 (dev: CUdevice) ["cuDevicePrimaryCtxReset", 11000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxGetState (dev: CUdevice, flags: *mut c_uint, active: *mut c_int) ["cuDevicePrimaryCtxGetState", 7000, Base, Query, passed];
            cuDevicePrimaryCtxSetFlags (dev: CUdevice, flags: c_uint) ["cuDevicePrimaryCtxSetFlags", 7000, Base, Query, passed];
            cuDevicePrimaryCtxSetFlags_v2 (dev: CUdevice, flags: c_uint) ["cuDevicePrimaryCtxSetFlags", 11000, Base, Query, passed];
            cuCtxCreate_v2 (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 3020, Base, Context, hooked];
            cuCtxCreate_v3 (ctx: *mut CUcontext, affinity: *mut c_void, affinities: c_int, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 11040, Base, Context, hooked];
            cuCtxCreate_v4 (ctx: *mut CUcontext, params: *mut c_void, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 12050, Base, Context, hooked];
            cuCtxDestroy_v2 (ctx: CUcontext) ["cuCtxDestroy", 4000, Base, ContextEnd, hooked];
            cuCtxPushCurrent_v2 (ctx: CUcontext) ["cuCtxPushCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxPopCurrent_v2 (ctx: *mut CUcontext) ["cuCtxPopCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxSetCurrent (ctx: CUcontext) ["cuCtxSetCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxGetCurrent (ctx: *mut CUcontext) ["cuCtxGetCurrent", 4000, Base, Query, passed];
            cuCtxGetDevice (dev: *mut CUdevice) ["cuCtxGetDevice", 2000, Base, Query, passed];
            cuCtxGetDevice_v2 (dev: *mut CUdevice, ctx: CUcontext) ["cuCtxGetDevice", 13000, Base, Query, passed];
            cuCtxGetFlags (flags: *mut c_uint) ["cuCtxGetFlags", 7000, Base, Query, passed];
            cuCtxGetApiVersion (ctx: CUcontext, version: *mut c_uint) ["cuCtxGetApiVersion", 3020, Base, Query, passed];
            cuCtxGetStreamPriorityRange (least: *mut c_int, greatest: *mut c_int) ["cuCtxGetStreamPriorityRange", 5050, Base, Query, passed];
            cuCtxGetLimit (value: *mut usize, limit: CUenum) ["cuCtxGetLimit", 3010, Base, Query, passed];
            cuCtxSetLimit (limit: CUenum, value: usize) ["cuCtxSetLimit", 3010, Base, Query, passed];
            cuCtxSynchronize () ["cuCtxSynchronize", 2000, Base, Synchronize, hooked];
            cuCtxSynchronize_v2 (ctx: CUcontext) ["cuCtxSynchronize", 13000, Base, Synchronize, hooked];

            // Device memory.
            cuMemGetInfo_v2 (free: *mut usize, total: *mut usize) ["cuMemGetInfo", 3020, Base, MemoryView, hooked];
            cuMemAlloc_v2 (dptr: *mut CUdeviceptr, bytes: usize) ["cuMemAlloc", 3020, Base, Allocate, hooked];
            cuMemAllocPitch_v2 (dptr: *mut CUdeviceptr, pitch: *mut usize, width_bytes: usize, height: usize, element_bytes: c_uint) ["cuMemAllocPitch", 3020, Base, Allocate, hooked];
            cuMemFree_v2 (dptr: CUdeviceptr) ["cuMemFree", 3020, Base, Free, hooked];
            cuMemAllocAsync (dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemAllocAsync", 11020, Base, Allocate, hooked];
            cuMemAllocAsync_ptsz (dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemAllocAsync", 11020, PerThread, Allocate, hooked];
            cuMemFreeAsync (dptr: CUdeviceptr, stream: CUstream) ["cuMemFreeAsync", 11020, Base, Free, hooked];
            cuMemFreeAsync_ptsz (dptr: CUdeviceptr, stream: CUstream) ["cuMemFreeAsync", 11020, PerThread, Free, hooked];
            cuMemGetAddressRange_v2 (base: *mut CUdeviceptr, bytes: *mut usize, dptr: CUdeviceptr) ["cuMemGetAddressRange", 3020, Base, Query, passed];
            cuPointerGetAttribute (data: *mut c_void, attribute: CUenum, ptr: CUdeviceptr) ["cuPointerGetAttribute", 4000, Base, Query, passed];
            cuPointerGetAttributes (count: c_uint, attributes: *mut CUenum, data: *mut *mut c_void, ptr: CUdeviceptr) ["cuPointerGetAttributes", 7000, Base, Query, passed];

            // Host memory.
            cuMemAllocHost_v2 (ptr: *mut *mut c_void, bytes: usize) ["cuMemAllocHost", 3020, Base, HostMemory, passed];
            cuMemHostAlloc (ptr: *mut *mut c_void, bytes: usize, flags: c_uint) ["cuMemHostAlloc", 2020, Base, HostMemory, passed];
            cuMemFreeHost (ptr: *mut c_void) ["cuMemFreeHost", 2000, Base, HostMemory, passed];
            cuMemHostRegister_v2 (ptr: *mut c_void, bytes: usize, flags: c_uint) ["cuMemHostRegister", 6050, Base, HostMemory, passed];
            cuMemHostUnregister (ptr: *mut c_void) ["cuMemHostUnregister", 4000, Base, HostMemory, passed];
            cuMemHostGetDevicePointer_v2 (dptr: *mut CUdeviceptr, ptr: *mut c_void, flags: c_uint) ["cuMemHostGetDevicePointer", 3020, Base, HostMemory, passed];
            cuMemHostGetFlags (flags: *mut c_uint, ptr: *mut c_void) ["cuMemHostGetFlags", 2030, Base, HostMemory, passed];

            // Copies and fills. The synchronous ones wait for the device, so the hook closes a batch first.
            cuMemcpy (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpy", 4000, Base, SynchronousCopy, hooked];
            cuMemcpy_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpy", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyAsync (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyAsync", 4000, Base, Copy, passed];
            cuMemcpyAsync_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyAsync", 7000, PerThread, Copy, passed];
            cuMemcpyHtoD_v2 (dst: CUdeviceptr, src: *const c_void, bytes: usize) ["cuMemcpyHtoD", 3020, Base, SynchronousCopy, hooked];
            cuMemcpyHtoD_v2_ptds (dst: CUdeviceptr, src: *const c_void, bytes: usize) ["cuMemcpyHtoD", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyDtoH_v2 (dst: *mut c_void, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoH", 3020, Base, SynchronousCopy, hooked];
            cuMemcpyDtoH_v2_ptds (dst: *mut c_void, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoH", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyDtoD_v2 (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoD", 3020, Base, Copy, passed];
            cuMemcpyDtoD_v2_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoD", 7000, PerThread, Copy, passed];
            cuMemcpyHtoDAsync_v2 (dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoDAsync", 3020, Base, Copy, passed];
            cuMemcpyHtoDAsync_v2_ptsz (dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoDAsync", 7000, PerThread, Copy, passed];
            cuMemcpyDtoHAsync_v2 (dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoHAsync", 3020, Base, Copy, passed];
            cuMemcpyDtoHAsync_v2_ptsz (dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoHAsync", 7000, PerThread, Copy, passed];
            cuMemcpyDtoDAsync_v2 (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoDAsync", 3020, Base, Copy, passed];
            cuMemcpyDtoDAsync_v2_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoDAsync", 7000, PerThread, Copy, passed];
            cuMemcpy2D_v2 (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2D", 3020, Base, SynchronousCopy, hooked];
            cuMemcpy2D_v2_ptds (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2D", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpy2DUnaligned_v2 (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2DUnaligned", 3020, Base, SynchronousCopy, hooked];
            cuMemcpy2DUnaligned_v2_ptds (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2DUnaligned", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpy2DAsync_v2 (copy: *const CUDA_MEMCPY2D, stream: CUstream) ["cuMemcpy2DAsync", 3020, Base, Copy, passed];
            cuMemcpy2DAsync_v2_ptsz (copy: *const CUDA_MEMCPY2D, stream: CUstream) ["cuMemcpy2DAsync", 7000, PerThread, Copy, passed];
            cuMemsetD8_v2 (dst: CUdeviceptr, value: u8, count: usize) ["cuMemsetD8", 3020, Base, Copy, passed];
            cuMemsetD8_v2_ptds (dst: CUdeviceptr, value: u8, count: usize) ["cuMemsetD8", 7000, PerThread, Copy, passed];
            cuMemsetD8Async (dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) ["cuMemsetD8Async", 3020, Base, Copy, passed];
            cuMemsetD8Async_ptsz (dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) ["cuMemsetD8Async", 7000, PerThread, Copy, passed];
            cuMemsetD16_v2 (dst: CUdeviceptr, value: u16, count: usize) ["cuMemsetD16", 3020, Base, Copy, passed];
            cuMemsetD16_v2_ptds (dst: CUdeviceptr, value: u16, count: usize) ["cuMemsetD16", 7000, PerThread, Copy, passed];
            cuMemsetD16Async (dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) ["cuMemsetD16Async", 3020, Base, Copy, passed];
            cuMemsetD16Async_ptsz (dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) ["cuMemsetD16Async", 7000, PerThread, Copy, passed];
            cuMemsetD32_v2 (dst: CUdeviceptr, value: u32, count: usize) ["cuMemsetD32", 3020, Base, Copy, passed];
            cuMemsetD32_v2_ptds (dst: CUdeviceptr, value: u32, count: usize) ["cuMemsetD32", 7000, PerThread, Copy, passed];
            cuMemsetD32Async (dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) ["cuMemsetD32Async", 3020, Base, Copy, passed];
            cuMemsetD32Async_ptsz (dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) ["cuMemsetD32Async", 7000, PerThread, Copy, passed];
            cuMemsetD2D8_v2 (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) ["cuMemsetD2D8", 3020, Base, Copy, passed];
            cuMemsetD2D8_v2_ptds (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) ["cuMemsetD2D8", 7000, PerThread, Copy, passed];

            // Modules, libraries, functions.
            cuModuleLoad (module: *mut CUmodule, path: *const c_char) ["cuModuleLoad", 2000, Base, Module, passed];
            cuModuleLoadData (module: *mut CUmodule, image: *const c_void) ["cuModuleLoadData", 2000, Base, Module, passed];
            cuModuleLoadDataEx (module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut CUenum, values: *mut *mut c_void) ["cuModuleLoadDataEx", 2010, Base, Module, passed];
            cuModuleLoadFatBinary (module: *mut CUmodule, image: *const c_void) ["cuModuleLoadFatBinary", 2000, Base, Module, passed];
            cuModuleUnload (module: CUmodule) ["cuModuleUnload", 2000, Base, Module, passed];
            cuModuleGetFunction (function: *mut CUfunction, module: CUmodule, name: *const c_char) ["cuModuleGetFunction", 2000, Base, Module, passed];
            cuModuleGetGlobal_v2 (dptr: *mut CUdeviceptr, bytes: *mut usize, module: CUmodule, name: *const c_char) ["cuModuleGetGlobal", 3020, Base, Module, passed];
            cuLibraryLoadData (library: *mut CUlibrary, code: *const c_void, jit_options: *mut CUenum, jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut CUenum, values: *mut *mut c_void, count: c_uint) ["cuLibraryLoadData", 12000, Base, Module, passed];
            cuLibraryUnload (library: CUlibrary) ["cuLibraryUnload", 12000, Base, Module, passed];
            cuLibraryGetKernel (kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) ["cuLibraryGetKernel", 12000, Base, Module, passed];
            cuLibraryGetModule (module: *mut CUmodule, library: CUlibrary) ["cuLibraryGetModule", 12000, Base, Module, passed];
            cuKernelGetFunction (function: *mut CUfunction, kernel: CUkernel) ["cuKernelGetFunction", 12000, Base, Module, passed];
            cuFuncGetAttribute (value: *mut c_int, attribute: CUenum, function: CUfunction) ["cuFuncGetAttribute", 2020, Base, Query, passed];
            cuFuncSetAttribute (function: CUfunction, attribute: CUenum, value: c_int) ["cuFuncSetAttribute", 9000, Base, Query, passed];
            cuFuncSetCacheConfig (function: CUfunction, config: CUenum) ["cuFuncSetCacheConfig", 3000, Base, Query, passed];
            cuFuncGetModule (module: *mut CUmodule, function: CUfunction) ["cuFuncGetModule", 11000, Base, Query, passed];
            cuFuncGetName (name: *mut *const c_char, function: CUfunction) ["cuFuncGetName", 12030, Base, Query, passed];
            cuFuncGetParamInfo (function: CUfunction, index: usize, offset: *mut usize, bytes: *mut usize) ["cuFuncGetParamInfo", 12040, Base, Query, passed];
            cuOccupancyMaxActiveBlocksPerMultiprocessor (blocks: *mut c_int, function: CUfunction, block_threads: c_int, shared_bytes: usize) ["cuOccupancyMaxActiveBlocksPerMultiprocessor", 6050, Base, Query, passed];
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags (blocks: *mut c_int, function: CUfunction, block_threads: c_int, shared_bytes: usize, flags: c_uint) ["cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000, Base, Query, passed];

            // Launches.
            cuLaunchKernel (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernel", 4000, Base, Launch, hooked];
            cuLaunchKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernel", 7000, PerThread, Launch, hooked];
            cuLaunchKernelEx (config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernelEx", 11060, Base, Launch, hooked];
            cuLaunchKernelEx_ptsz (config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernelEx", 11060, PerThread, Launch, hooked];
            cuLaunchCooperativeKernel (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) ["cuLaunchCooperativeKernel", 9000, Base, Launch, hooked];
            cuLaunchCooperativeKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) ["cuLaunchCooperativeKernel", 9000, PerThread, Launch, hooked];
            cuLaunchHostFunc (stream: CUstream, call: *mut c_void, data: *mut c_void) ["cuLaunchHostFunc", 10000, Base, HostFunction, passed];
            cuLaunchHostFunc_ptsz (stream: CUstream, call: *mut c_void, data: *mut c_void) ["cuLaunchHostFunc", 10000, PerThread, HostFunction, passed];

            // Streams.
            cuStreamCreate (stream: *mut CUstream, flags: c_uint) ["cuStreamCreate", 2000, Base, Stream, passed];
            cuStreamCreateWithPriority (stream: *mut CUstream, flags: c_uint, priority: c_int) ["cuStreamCreateWithPriority", 5050, Base, Stream, passed];
            cuStreamDestroy_v2 (stream: CUstream) ["cuStreamDestroy", 4000, Base, StreamEnd, hooked];
            cuStreamQuery (stream: CUstream) ["cuStreamQuery", 2000, Base, Poll, hooked];
            cuStreamQuery_ptsz (stream: CUstream) ["cuStreamQuery", 7000, PerThread, Poll, hooked];
            cuStreamSynchronize (stream: CUstream) ["cuStreamSynchronize", 2000, Base, Synchronize, hooked];
            cuStreamSynchronize_ptsz (stream: CUstream) ["cuStreamSynchronize", 7000, PerThread, Synchronize, hooked];
            cuStreamWaitEvent (stream: CUstream, event: CUevent, flags: c_uint) ["cuStreamWaitEvent", 3020, Base, Stream, passed];
            cuStreamWaitEvent_ptsz (stream: CUstream, event: CUevent, flags: c_uint) ["cuStreamWaitEvent", 7000, PerThread, Stream, passed];
            cuStreamGetCtx (stream: CUstream, ctx: *mut CUcontext) ["cuStreamGetCtx", 9020, Base, Query, passed];
            cuStreamGetCtx_ptsz (stream: CUstream, ctx: *mut CUcontext) ["cuStreamGetCtx", 9020, PerThread, Query, passed];
            cuStreamGetFlags (stream: CUstream, flags: *mut c_uint) ["cuStreamGetFlags", 5050, Base, Query, passed];
            cuStreamGetFlags_ptsz (stream: CUstream, flags: *mut c_uint) ["cuStreamGetFlags", 7000, PerThread, Query, passed];
            cuStreamGetPriority (stream: CUstream, priority: *mut c_int) ["cuStreamGetPriority", 5050, Base, Query, passed];
            cuStreamGetPriority_ptsz (stream: CUstream, priority: *mut c_int) ["cuStreamGetPriority", 7000, PerThread, Query, passed];
            cuStreamIsCapturing (stream: CUstream, status: *mut CUenum) ["cuStreamIsCapturing", 10000, Base, Query, passed];
            cuStreamIsCapturing_ptsz (stream: CUstream, status: *mut CUenum) ["cuStreamIsCapturing", 10000, PerThread, Query, passed];
            cuStreamWaitValue32_v2 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 11070, Base, MemoryOperation, passed];
            cuStreamWaitValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 11070, PerThread, MemoryOperation, passed];
            cuStreamWriteValue32_v2 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 11070, Base, MemoryOperation, passed];
            cuStreamWriteValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 11070, PerThread, MemoryOperation, passed];
            cuStreamWaitValue64_v2 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 11070, Base, MemoryOperation, passed];
            cuStreamWaitValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 11070, PerThread, MemoryOperation, passed];
            cuStreamWriteValue64_v2 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 11070, Base, MemoryOperation, passed];
            cuStreamWriteValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 11070, PerThread, MemoryOperation, passed];
            cuStreamBatchMemOp_v2 (stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 11070, Base, MemoryOperation, passed];
            cuStreamBatchMemOp_v2_ptsz (stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 11070, PerThread, MemoryOperation, passed];

            // Events.
            cuEventCreate (event: *mut CUevent, flags: c_uint) ["cuEventCreate", 2000, Base, Event, passed];
            cuEventRecord (event: CUevent, stream: CUstream) ["cuEventRecord", 2000, Base, EventRecord, hooked];
            cuEventRecord_ptsz (event: CUevent, stream: CUstream) ["cuEventRecord", 7000, PerThread, EventRecord, hooked];
            cuEventRecordWithFlags (event: CUevent, stream: CUstream, flags: c_uint) ["cuEventRecordWithFlags", 11010, Base, EventRecord, hooked];
            cuEventRecordWithFlags_ptsz (event: CUevent, stream: CUstream, flags: c_uint) ["cuEventRecordWithFlags", 11010, PerThread, EventRecord, hooked];
            cuEventQuery (event: CUevent) ["cuEventQuery", 2000, Base, Event, passed];
            cuEventSynchronize (event: CUevent) ["cuEventSynchronize", 2000, Base, Synchronize, hooked];
            cuEventElapsedTime (milliseconds: *mut f32, start: CUevent, end: CUevent) ["cuEventElapsedTime", 2000, Base, Event, passed];
            cuEventElapsedTime_v2 (milliseconds: *mut f32, start: CUevent, end: CUevent) ["cuEventElapsedTime", 12080, Base, Event, passed];
            cuEventDestroy_v2 (event: CUevent) ["cuEventDestroy", 4000, Base, Event, passed];
        }
    };
}

/// What kind of call an entry point is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Starts the driver.
    Init,
    /// Hands out entry points.
    Routing,
    /// Asks and changes nothing that is metered.
    Query,
    /// Tells how much memory there is.
    MemoryView,
    /// Makes a context.
    Context,
    /// Ends a context, and with it every allocation inside.
    ContextEnd,
    /// Changes which context a thread works in.
    ContextSwitch,
    /// Takes device memory.
    Allocate,
    /// Gives device memory back.
    Free,
    /// Handles host memory only.
    HostMemory,
    /// Moves or fills bytes in stream order.
    Copy,
    /// Moves bytes and waits for the device.
    SynchronousCopy,
    /// Loads code.
    Module,
    /// Starts kernels.
    Launch,
    /// Runs host code in stream order.
    HostFunction,
    /// Makes or joins streams.
    Stream,
    /// Ends a stream.
    StreamEnd,
    /// Asks whether work is done.
    Poll,
    /// Waits for the device.
    Synchronize,
    /// Reads or writes a word in stream order.
    MemoryOperation,
    /// Handles events.
    Event,
    /// Marks a point in a stream.
    EventRecord,
}

/// What a shell does when Headgate itself fails (a panic, a lost session), not the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// Hand the call to the driver as if the hook were not there.
    Forward,
    /// Refuse it: a call that takes memory must not slip past the ledger.
    Deny,
}

impl Family {
    /// The failure policy of the family. Only what takes memory is refused: refusing a launch, a free or a
    /// query would break a tenant for our fault, and a launch that slips through is still seen by the device's
    /// own accounting.
    #[must_use]
    pub fn on_failure(self) -> OnFailure {
        match self {
            Self::Allocate => OnFailure::Deny,
            _ => OnFailure::Forward,
        }
    }
}

/// Whose default stream the null stream means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadMode {
    /// The legacy default stream, or the call takes no stream.
    Base,
    /// The calling thread's own default stream (`_ptsz`, `_ptds`).
    PerThread,
}

/// Whether the hook stands in front of an entry point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The hook exports a shell for it.
    Hooked,
    /// The caller gets the driver's own pointer.
    Passed,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Name in the driver library's symbol table.
    pub elf_name: &'static str,
    /// Name `cuGetProcAddress` knows it by.
    pub base_name: &'static str,
    /// CUDA version that introduced this form, as 1000 x major + 10 x minor.
    pub since: u32,
    /// Whose default stream the null stream means.
    pub thread_mode: ThreadMode,
    /// What kind of call it is.
    pub family: Family,
    /// Whether the hook stands in front of it.
    pub disposition: Disposition,
}

macro_rules! disposition {
    (hooked) => {
        Disposition::Hooked
    };
    (passed) => {
        Disposition::Passed
    };
}

macro_rules! define {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$base:literal, $since:literal, $thread:ident, $family:ident, $hook:ident];)*) => {
        /// An entry point of the table; its value is the row's index.
        #[allow(non_camel_case_types, missing_docs, reason = "the variants are the C names themselves")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Symbol { $($name,)* }

        /// The rows in table order.
        pub static ROWS: &[Row] = &[$(Row {
            elf_name: stringify!($name),
            base_name: $base,
            since: $since,
            thread_mode: ThreadMode::$thread,
            family: Family::$family,
            disposition: disposition!($hook),
        },)*];

        /// The symbols in table order.
        pub static SYMBOLS: &[Symbol] = &[$(Symbol::$name,)*];
    };
}
cuda_symbols!(define);

/// Number of rows.
pub const COUNT: usize = ROWS.len();

impl Symbol {
    /// The symbol's row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Index into arrays kept per symbol.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The symbol of that name in the driver library's symbol table.
#[must_use]
pub fn by_elf_name(name: &str) -> Option<Symbol> {
    ROWS.iter().position(|row| row.elf_name == name).map(|index| SYMBOLS[index])
}

/// What `cuGetProcAddress(base_name, version, thread_mode)` means: the newest form not above `version`.
///
/// A base name without a per-thread twin answers its base form whatever the mode, as the driver does.
/// `Err(true)` says the name exists but every form of it is newer; `Err(false)` that the name is unknown.
pub fn select(base_name: &str, version: u32, mode: ThreadMode) -> Result<Symbol, bool> {
    let mut known = false;
    let mut best: Option<usize> = None;
    for wanted in [mode, ThreadMode::Base] {
        for (index, row) in ROWS.iter().enumerate() {
            if row.base_name != base_name || row.thread_mode != wanted {
                continue;
            }
            known = true;
            if row.since <= version && best.is_none_or(|b| ROWS[b].since <= row.since) {
                best = Some(index);
            }
        }
        if let Some(index) = best {
            return Ok(SYMBOLS[index]);
        }
    }
    Err(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.elf_name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
    }

    #[test]
    fn selection_follows_version_and_mode() {
        assert_eq!(select("cuMemAlloc", 12000, ThreadMode::Base), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuLaunchKernel", 12000, ThreadMode::PerThread), Ok(Symbol::cuLaunchKernel_ptsz));
        assert_eq!(select("cuLaunchKernel", 5000, ThreadMode::PerThread), Ok(Symbol::cuLaunchKernel));
        assert_eq!(select("cuMemAlloc", 12000, ThreadMode::PerThread), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuCtxSynchronize", 12000, ThreadMode::Base), Ok(Symbol::cuCtxSynchronize));
        assert_eq!(select("cuCtxSynchronize", 13000, ThreadMode::Base), Ok(Symbol::cuCtxSynchronize_v2));
        assert_eq!(select("cuGetProcAddress", 11030, ThreadMode::Base), Ok(Symbol::cuGetProcAddress));
        assert_eq!(select("cuLaunchKernelEx", 11000, ThreadMode::Base), Err(true));
        assert_eq!(select("cuNoSuchCall", 13000, ThreadMode::Base), Err(false));
        assert_eq!(select("", 0, ThreadMode::Base), Err(false));
    }

    #[test]
    fn only_what_takes_memory_fails_closed() {
        for row in ROWS {
            assert_eq!(row.family.on_failure() == OnFailure::Deny, row.family == Family::Allocate);
        }
    }
}
