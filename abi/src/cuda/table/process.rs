//! Rows of the table: starting the driver, finding entry points, devices, contexts and code.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_process {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $crate::cuda_rows_memory! { [$visit] [$($context)*] $($before)*
            // Initialisation and look-up.
            cuInit (flags: c_uint) ["cuInit", 2000, Base, Init, hooked];
            cuDriverGetVersion (version: *mut c_int) ["cuDriverGetVersion", 2020, Base, Init, passed];
            cuGetProcAddress (symbol: *const c_char, pfn: *mut *mut c_void, cuda_version: c_int, flags: u64) ["cuGetProcAddress", 11030, Base, Routing, hooked];
            cuGetProcAddress_v2 (symbol: *const c_char, pfn: *mut *mut c_void, cuda_version: c_int, flags: u64, symbol_status: *mut CUenum) ["cuGetProcAddress", 12000, Base, Routing, hooked];
            cuGetExportTable (table: *mut *const c_void, id: *const CUuuid) ["cuGetExportTable", 3000, Base, Routing, passed];

            // Questions.
            cuGetErrorString (error: CUresult, text: *mut *const c_char) ["cuGetErrorString", 6000, Base, Query, passed];
            cuGetErrorName (error: CUresult, text: *mut *const c_char) ["cuGetErrorName", 6000, Base, Query, passed];
            cuDeviceGet (device: *mut CUdevice, ordinal: c_int) ["cuDeviceGet", 2000, Base, Query, passed];
            cuDeviceGetCount (count: *mut c_int) ["cuDeviceGetCount", 2000, Base, Query, passed];
            cuDeviceGetName (name: *mut c_char, len: c_int, dev: CUdevice) ["cuDeviceGetName", 2000, Base, Query, passed];
            cuDeviceGetUuid (uuid: *mut CUuuid, dev: CUdevice) ["cuDeviceGetUuid", 9020, Base, Query, passed];
            cuDeviceGetUuid_v2 (uuid: *mut CUuuid, dev: CUdevice) ["cuDeviceGetUuid", 11040, Base, Query, passed];
            cuDeviceGetLuid (luid: *mut c_char, device_node_mask: *mut c_uint, dev: CUdevice) ["cuDeviceGetLuid", 10000, Base, Query, passed];
            cuDeviceGetTexture1DLinearMaxWidth (max_width_in_elements: *mut usize, format: CUenum, num_channels: c_uint, dev: CUdevice) ["cuDeviceGetTexture1DLinearMaxWidth", 11010, Base, Query, passed];
            cuDeviceGetAttribute (value: *mut c_int, attribute: CUenum, dev: CUdevice) ["cuDeviceGetAttribute", 2000, Base, Query, passed];
            cuDeviceGetHostAtomicCapabilities (capabilities: *mut c_uint, operations: *const CUenum, count: c_uint, dev: CUdevice) ["cuDeviceGetHostAtomicCapabilities", 13000, Base, Query, passed];
            cuDeviceGetNvSciSyncAttributes (nv_sci_sync_attr_list: *mut c_void, dev: CUdevice, flags: c_int) ["cuDeviceGetNvSciSyncAttributes", 10020, Base, Query, passed];
            cuDeviceGetExecAffinitySupport (pi: *mut c_int, kind: CUenum, dev: CUdevice) ["cuDeviceGetExecAffinitySupport", 11040, Base, Query, passed];
            cuFlushGPUDirectRDMAWrites (target: CUenum, scope: CUenum) ["cuFlushGPUDirectRDMAWrites", 11030, Base, Query, passed];
            cuDeviceGetProperties (prop: *mut c_void, dev: CUdevice) ["cuDeviceGetProperties", 2000, Base, Query, passed];
            cuDeviceComputeCapability (major: *mut c_int, minor: *mut c_int, dev: CUdevice) ["cuDeviceComputeCapability", 2000, Base, Query, passed];
            cuDevicePrimaryCtxSetFlags (dev: CUdevice, flags: c_uint) ["cuDevicePrimaryCtxSetFlags", 7000, Base, Query, passed];
            cuDevicePrimaryCtxSetFlags_v2 (dev: CUdevice, flags: c_uint) ["cuDevicePrimaryCtxSetFlags", 11000, Base, Query, passed];
            cuDevicePrimaryCtxGetState (dev: CUdevice, flags: *mut c_uint, active: *mut c_int) ["cuDevicePrimaryCtxGetState", 7000, Base, Query, passed];
            cuCtxGetCurrent (ctx: *mut CUcontext) ["cuCtxGetCurrent", 4000, Base, Query, hooked];
            cuCtxGetDevice (dev: *mut CUdevice) ["cuCtxGetDevice", 2000, Base, Query, passed];
            cuCtxGetDevice_v2 (dev: *mut CUdevice, ctx: CUcontext) ["cuCtxGetDevice", 13000, Base, Query, passed];
            cuCtxGetFlags (flags: *mut c_uint) ["cuCtxGetFlags", 7000, Base, Query, passed];
            cuCtxSetFlags (flags: c_uint) ["cuCtxSetFlags", 12010, Base, Query, passed];
            cuCtxGetId (ctx: CUcontext, ctx_id: *mut u64) ["cuCtxGetId", 12000, Base, Query, passed];
            cuCtxGetLimit (value: *mut usize, limit: CUenum) ["cuCtxGetLimit", 3010, Base, Query, passed];
            cuCtxGetCacheConfig (pconfig: *mut CUenum) ["cuCtxGetCacheConfig", 3020, Base, Query, passed];
            cuCtxSetCacheConfig (config: CUenum) ["cuCtxSetCacheConfig", 3020, Base, Query, passed];
            cuCtxGetApiVersion (ctx: CUcontext, version: *mut c_uint) ["cuCtxGetApiVersion", 3020, Base, Query, passed];
            cuCtxGetStreamPriorityRange (least: *mut c_int, greatest: *mut c_int) ["cuCtxGetStreamPriorityRange", 5050, Base, Query, passed];
            cuCtxResetPersistingL2Cache () ["cuCtxResetPersistingL2Cache", 11000, Base, Query, passed];
            cuCtxGetExecAffinity (p_exec_affinity: *mut c_void, kind: CUenum) ["cuCtxGetExecAffinity", 11040, Base, Query, passed];
            cuCtxGetSharedMemConfig (p_config: *mut CUenum) ["cuCtxGetSharedMemConfig", 4020, Base, Query, passed];
            cuCtxSetSharedMemConfig (config: CUenum) ["cuCtxSetSharedMemConfig", 4020, Base, Query, passed];
            cuModuleGetLoadingMode (mode: *mut CUenum) ["cuModuleGetLoadingMode", 11070, Base, Query, passed];
            cuModuleGetFunctionCount (count: *mut c_uint, module: CUmodule) ["cuModuleGetFunctionCount", 12040, Base, Query, passed];
            cuModuleEnumerateFunctions (functions: *mut CUfunction, num_functions: c_uint, module: CUmodule) ["cuModuleEnumerateFunctions", 12040, Base, Query, passed];
            cuModuleGetTexRef (p_tex_ref: *mut CUtexref, module: CUmodule, name: *const c_char) ["cuModuleGetTexRef", 2000, Base, Query, passed];
            cuModuleGetSurfRef (p_surf_ref: *mut CUsurfref, module: CUmodule, name: *const c_char) ["cuModuleGetSurfRef", 3000, Base, Query, passed];
            cuLibraryGetKernelCount (count: *mut c_uint, lib: CUlibrary) ["cuLibraryGetKernelCount", 12040, Base, Query, passed];
            cuLibraryEnumerateKernels (kernels: *mut CUkernel, num_kernels: c_uint, lib: CUlibrary) ["cuLibraryEnumerateKernels", 12040, Base, Query, passed];
            cuKernelGetLibrary (p_lib: *mut CUlibrary, kernel: CUkernel) ["cuKernelGetLibrary", 12050, Base, Query, passed];
            cuKernelGetAttribute (pi: *mut c_int, attrib: CUenum, kernel: CUkernel, dev: CUdevice) ["cuKernelGetAttribute", 12000, Base, Query, passed];
            cuKernelSetAttribute (attrib: CUenum, val: c_int, kernel: CUkernel, dev: CUdevice) ["cuKernelSetAttribute", 12000, Base, Query, passed];
            cuKernelSetCacheConfig (kernel: CUkernel, config: CUenum, dev: CUdevice) ["cuKernelSetCacheConfig", 12000, Base, Query, passed];
            cuKernelGetName (name: *mut *const c_char, hfunc: CUkernel) ["cuKernelGetName", 12030, Base, Query, passed];
            cuKernelGetParamInfo (kernel: CUkernel, param_index: usize, param_offset: *mut usize, param_size: *mut usize) ["cuKernelGetParamInfo", 12040, Base, Query, passed];
            cuKernelGetParamCount (kernel: CUkernel, param_count: *mut usize) ["cuKernelGetParamCount", 13020, Base, Query, passed];
            cuDeviceRegisterAsyncNotification (device: CUdevice, callback_func: *mut c_void, user_data: *mut c_void, callback: *mut *mut c_void) ["cuDeviceRegisterAsyncNotification", 12040, Base, Query, passed];
            cuDeviceUnregisterAsyncNotification (device: CUdevice, callback: *mut c_void) ["cuDeviceUnregisterAsyncNotification", 12040, Base, Query, passed];
            cuDeviceGetByPCIBusId (dev: *mut CUdevice, id: *const c_char) ["cuDeviceGetByPCIBusId", 4010, Base, Query, passed];
            cuDeviceGetPCIBusId (id: *mut c_char, len: c_int, dev: CUdevice) ["cuDeviceGetPCIBusId", 4010, Base, Query, passed];
            cuDeviceGetFabricClusterUuid (uuid: *mut CUuuid, dev: CUdevice) ["cuDeviceGetFabricClusterUuid", 13040, Base, Query, passed];
            cuDeviceGetCliqueCount (count: *mut usize, dev: CUdevice) ["cuDeviceGetCliqueCount", 13040, Base, Query, passed];
            cuDeviceGetCliqueInfo (clique_info: *mut c_void, count: *mut usize, dev: CUdevice) ["cuDeviceGetCliqueInfo", 13040, Base, Query, passed];
            cuFuncGetAttribute (value: *mut c_int, attribute: CUenum, function: CUfunction) ["cuFuncGetAttribute", 2020, Base, Query, passed];
            cuFuncSetAttribute (function: CUfunction, attribute: CUenum, value: c_int) ["cuFuncSetAttribute", 9000, Base, Query, passed];
            cuFuncSetCacheConfig (function: CUfunction, config: CUenum) ["cuFuncSetCacheConfig", 3000, Base, Query, passed];
            cuFuncGetModule (module: *mut CUmodule, function: CUfunction) ["cuFuncGetModule", 11000, Base, Query, passed];
            cuFuncGetName (name: *mut *const c_char, function: CUfunction) ["cuFuncGetName", 12030, Base, Query, passed];
            cuFuncGetParamInfo (function: CUfunction, index: usize, offset: *mut usize, bytes: *mut usize) ["cuFuncGetParamInfo", 12040, Base, Query, passed];
            cuFuncGetParamCount (func: CUfunction, param_count: *mut usize) ["cuFuncGetParamCount", 13020, Base, Query, passed];
            cuFuncIsLoaded (state: *mut CUenum, function: CUfunction) ["cuFuncIsLoaded", 12040, Base, Query, passed];
            cuFuncSetSharedMemConfig (hfunc: CUfunction, config: CUenum) ["cuFuncSetSharedMemConfig", 4020, Base, Query, passed];
            cuDeviceCanAccessPeer (can: *mut c_int, dev: CUdevice, peer: CUdevice) ["cuDeviceCanAccessPeer", 4000, Base, Query, passed];
            cuCtxEnablePeerAccess (peer_context: CUcontext, flags: c_uint) ["cuCtxEnablePeerAccess", 4000, Base, Query, passed];
            cuCtxDisablePeerAccess (peer_context: CUcontext) ["cuCtxDisablePeerAccess", 4000, Base, Query, passed];
            cuDeviceGetP2PAttribute (value: *mut c_int, attrib: CUenum, src_device: CUdevice, dst_device: CUdevice) ["cuDeviceGetP2PAttribute", 8000, Base, Query, passed];
            cuDeviceGetP2PAtomicCapabilities (capabilities: *mut c_uint, operations: *const CUenum, count: c_uint, src_device: CUdevice, dst_device: CUdevice) ["cuDeviceGetP2PAtomicCapabilities", 13000, Base, Query, passed];
            cuCoredumpGetAttribute (attrib: CUenum, value: *mut c_void, size: *mut usize) ["cuCoredumpGetAttribute", 12010, Base, Query, passed];
            cuCoredumpGetAttributeGlobal (attrib: CUenum, value: *mut c_void, size: *mut usize) ["cuCoredumpGetAttributeGlobal", 12010, Base, Query, passed];
            cuCoredumpSetAttribute (attrib: CUenum, value: *mut c_void, size: *mut usize) ["cuCoredumpSetAttribute", 12010, Base, Query, passed];
            cuCoredumpSetAttributeGlobal (attrib: CUenum, value: *mut c_void, size: *mut usize) ["cuCoredumpSetAttributeGlobal", 12010, Base, Query, passed];
            cuCoredumpRegisterStartCallback (callback: *mut c_void, user_data: *mut c_void, callback_out: *mut *mut c_void) ["cuCoredumpRegisterStartCallback", 13020, Base, Query, passed];
            cuCoredumpRegisterCompleteCallback (callback: *mut c_void, user_data: *mut c_void, callback_out: *mut *mut c_void) ["cuCoredumpRegisterCompleteCallback", 13020, Base, Query, passed];
            cuCoredumpDeregisterStartCallback (callback: *mut c_void) ["cuCoredumpDeregisterStartCallback", 13020, Base, Query, passed];
            cuCoredumpDeregisterCompleteCallback (callback: *mut c_void) ["cuCoredumpDeregisterCompleteCallback", 13020, Base, Query, passed];
            cuDeviceGetDevResource (device: CUdevice, resource: *mut c_void, kind: CUenum) ["cuDeviceGetDevResource", 12040, Base, Query, hooked];
            cuCtxGetDevResource (ctx: CUcontext, resource: *mut c_void, kind: CUenum) ["cuCtxGetDevResource", 12040, Base, Query, hooked];
            cuGreenCtxGetDevResource (ctx: CUgreenCtx, resource: *mut c_void, kind: CUenum) ["cuGreenCtxGetDevResource", 12040, Base, Query, passed];
            cuDevSmResourceSplitByCount (result: *mut c_void, nb_groups: *mut c_uint, input: *const c_void, remainder: *mut c_void, flags: c_uint, min_count: c_uint) ["cuDevSmResourceSplitByCount", 12040, Base, Query, passed];
            cuDevSmResourceSplit (result: *mut c_void, nb_groups: c_uint, input: *const c_void, remainder: *mut c_void, flags: c_uint, group_params: *mut c_void) ["cuDevSmResourceSplit", 13010, Base, Query, passed];
            cuDevResourceGenerateDesc (ph_desc: *mut CUdevResourceDesc, resources: *mut c_void, nb_resources: c_uint) ["cuDevResourceGenerateDesc", 12040, Base, Query, passed];
            cuGreenCtxGetId (green_ctx: CUgreenCtx, green_ctx_id: *mut u64) ["cuGreenCtxGetId", 12090, Base, Query, passed];
            cuLogsRegisterCallback (callback_func: *mut c_void, user_data: *mut c_void, callback_out: *mut *mut c_void) ["cuLogsRegisterCallback", 12090, Base, Query, passed];
            cuLogsUnregisterCallback (callback: *mut c_void) ["cuLogsUnregisterCallback", 12090, Base, Query, passed];
            cuLogsCurrent (iterator_out: *mut c_uint, flags: c_uint) ["cuLogsCurrent", 12090, Base, Query, passed];
            cuLogsDumpToFile (iterator: *mut c_uint, path_to_file: *const c_char, flags: c_uint) ["cuLogsDumpToFile", 12090, Base, Query, passed];
            cuLogsDumpToMemory (iterator: *mut c_uint, buffer: *mut c_char, size: *mut usize, flags: c_uint) ["cuLogsDumpToMemory", 12090, Base, Query, passed];
            cuCheckpointProcessGetRestoreThreadId (pid: c_int, tid: *mut c_int) ["cuCheckpointProcessGetRestoreThreadId", 12080, Base, Query, passed];
            cuCheckpointProcessGetState (pid: c_int, state: *mut CUenum) ["cuCheckpointProcessGetState", 12080, Base, Query, passed];

            // Contexts.
            cuDevicePrimaryCtxRetain (ctx: *mut CUcontext, dev: CUdevice) ["cuDevicePrimaryCtxRetain", 7000, Base, Context, hooked];
            cuCtxCreate (pctx: *mut CUcontext, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 2000, Base, Context, hooked];
            cuCtxCreate_v2 (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 3020, Base, Context, hooked];
            cuCtxCreate_v3 (ctx: *mut CUcontext, affinity: *mut c_void, affinities: c_int, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 11040, Base, Context, hooked];
            cuCtxCreate_v4 (ctx: *mut CUcontext, params: *mut c_void, flags: c_uint, dev: CUdevice) ["cuCtxCreate", 12050, Base, Context, hooked];
            cuCtxAttach (pctx: *mut CUcontext, flags: c_uint) ["cuCtxAttach", 2000, Base, Context, hooked];
            cuGLCtxCreate (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) ["cuGLCtxCreate", 2000, Base, Context, hooked];
            cuGLCtxCreate_v2 (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) ["cuGLCtxCreate", 3020, Base, Context, hooked];
            cuVDPAUCtxCreate (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice, vdp_device: u32, vdp_look_up: *mut c_void) ["cuVDPAUCtxCreate", 3010, Base, Context, hooked];
            cuVDPAUCtxCreate_v2 (ctx: *mut CUcontext, flags: c_uint, dev: CUdevice, vdp_device: u32, vdp_look_up: *mut c_void) ["cuVDPAUCtxCreate", 3020, Base, Context, hooked];
            cuDevicePrimaryCtxRelease (dev: CUdevice) ["cuDevicePrimaryCtxRelease", 7000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxRelease_v2 (dev: CUdevice) ["cuDevicePrimaryCtxRelease", 11000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxReset (dev: CUdevice) ["cuDevicePrimaryCtxReset", 7000, Base, ContextEnd, hooked];
            cuDevicePrimaryCtxReset_v2 (dev: CUdevice) ["cuDevicePrimaryCtxReset", 11000, Base, ContextEnd, hooked];
            cuCtxDestroy (ctx: CUcontext) ["cuCtxDestroy", 2000, Base, ContextEnd, hooked];
            cuCtxDestroy_v2 (ctx: CUcontext) ["cuCtxDestroy", 4000, Base, ContextEnd, hooked];
            cuCtxDetach (ctx: CUcontext) ["cuCtxDetach", 2000, Base, ContextEnd, hooked];
            cuCtxPushCurrent (ctx: CUcontext) ["cuCtxPushCurrent", 2000, Base, ContextSwitch, hooked];
            cuCtxPushCurrent_v2 (ctx: CUcontext) ["cuCtxPushCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxPopCurrent (pctx: *mut CUcontext) ["cuCtxPopCurrent", 2000, Base, ContextSwitch, hooked];
            cuCtxPopCurrent_v2 (ctx: *mut CUcontext) ["cuCtxPopCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxSetCurrent (ctx: CUcontext) ["cuCtxSetCurrent", 4000, Base, ContextSwitch, hooked];
            cuCtxSetLimit (limit: CUenum, value: usize) ["cuCtxSetLimit", 3010, Base, ContextLimit, hooked];

            // Green contexts: a share of the SMs.
            cuGreenCtxCreate (ph_ctx: *mut CUgreenCtx, desc: CUdevResourceDesc, dev: CUdevice, flags: c_uint) ["cuGreenCtxCreate", 12040, Base, GreenContext, hooked];
            cuGreenCtxDestroy (ctx: CUgreenCtx) ["cuGreenCtxDestroy", 12040, Base, GreenContext, passed];
            cuCtxFromGreenCtx (p_context: *mut CUcontext, ctx: CUgreenCtx) ["cuCtxFromGreenCtx", 12040, Base, GreenContext, passed];

            // Checkpoint and restore of a process.
            cuCheckpointProcessLock (pid: c_int, args: *mut c_void) ["cuCheckpointProcessLock", 12080, Base, Checkpoint, hooked];
            cuCheckpointProcessCheckpoint (pid: c_int, args: *mut c_void) ["cuCheckpointProcessCheckpoint", 12080, Base, Checkpoint, hooked];
            cuCheckpointProcessRestore (pid: c_int, args: *mut c_void) ["cuCheckpointProcessRestore", 12080, Base, Checkpoint, hooked];
            cuCheckpointOperationComplete (handle: *mut c_void) ["cuCheckpointOperationComplete", 13040, Base, Checkpoint, passed];
            cuCheckpointProcessUnlock (pid: c_int, args: *mut c_void) ["cuCheckpointProcessUnlock", 12080, Base, Checkpoint, passed];

            // Modules, libraries, functions.
            cuModuleLoad (module: *mut CUmodule, path: *const c_char) ["cuModuleLoad", 2000, Base, Module, hooked];
            cuModuleLoadData (module: *mut CUmodule, image: *const c_void) ["cuModuleLoadData", 2000, Base, Module, hooked];
            cuModuleLoadDataEx (module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut CUenum, values: *mut *mut c_void) ["cuModuleLoadDataEx", 2010, Base, Module, hooked];
            cuModuleLoadFatBinary (module: *mut CUmodule, image: *const c_void) ["cuModuleLoadFatBinary", 2000, Base, Module, hooked];
            cuModuleUnload (module: CUmodule) ["cuModuleUnload", 2000, Base, Module, passed];
            cuModuleGetFunction (function: *mut CUfunction, module: CUmodule, name: *const c_char) ["cuModuleGetFunction", 2000, Base, Module, passed];
            cuModuleGetGlobal (dptr: *mut u32, bytes: *mut c_uint, module: CUmodule, name: *const c_char) ["cuModuleGetGlobal", 2000, Base, Module, passed];
            cuModuleGetGlobal_v2 (dptr: *mut CUdeviceptr, bytes: *mut usize, module: CUmodule, name: *const c_char) ["cuModuleGetGlobal", 3020, Base, Module, passed];
            cuLinkCreate (num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void, state_out: *mut CUlinkState) ["cuLinkCreate", 5050, Base, Module, passed];
            cuLinkCreate_v2 (num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void, state_out: *mut CUlinkState) ["cuLinkCreate", 6050, Base, Module, passed];
            cuLinkAddData (state: CUlinkState, kind: CUenum, data: *mut c_void, size: usize, name: *const c_char, num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void) ["cuLinkAddData", 5050, Base, Module, passed];
            cuLinkAddData_v2 (state: CUlinkState, kind: CUenum, data: *mut c_void, size: usize, name: *const c_char, num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void) ["cuLinkAddData", 6050, Base, Module, passed];
            cuLinkAddFile (state: CUlinkState, kind: CUenum, path: *const c_char, num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void) ["cuLinkAddFile", 5050, Base, Module, passed];
            cuLinkAddFile_v2 (state: CUlinkState, kind: CUenum, path: *const c_char, num_options: c_uint, options: *mut CUenum, option_values: *mut *mut c_void) ["cuLinkAddFile", 6050, Base, Module, passed];
            cuLinkComplete (state: CUlinkState, cubin_out: *mut *mut c_void, size_out: *mut usize) ["cuLinkComplete", 5050, Base, Module, passed];
            cuLinkDestroy (state: CUlinkState) ["cuLinkDestroy", 5050, Base, Module, passed];
            cuLibraryLoadData (library: *mut CUlibrary, code: *const c_void, jit_options: *mut CUenum, jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut CUenum, values: *mut *mut c_void, count: c_uint) ["cuLibraryLoadData", 12000, Base, Module, hooked];
            cuLibraryLoadFromFile (library: *mut CUlibrary, file_name: *const c_char, jit_options: *mut CUenum, jit_options_values: *mut *mut c_void, num_jit_options: c_uint, library_options: *mut CUenum, library_option_values: *mut *mut c_void, num_library_options: c_uint) ["cuLibraryLoadFromFile", 12000, Base, Module, hooked];
            cuLibraryUnload (library: CUlibrary) ["cuLibraryUnload", 12000, Base, Module, passed];
            cuLibraryGetKernel (kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) ["cuLibraryGetKernel", 12000, Base, Module, passed];
            cuLibraryGetModule (module: *mut CUmodule, library: CUlibrary) ["cuLibraryGetModule", 12000, Base, Module, passed];
            cuKernelGetFunction (function: *mut CUfunction, kernel: CUkernel) ["cuKernelGetFunction", 12000, Base, Module, passed];
            cuLibraryGetGlobal (dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char) ["cuLibraryGetGlobal", 12000, Base, Module, passed];
            cuLibraryGetManaged (dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char) ["cuLibraryGetManaged", 12000, Base, Module, passed];
            cuLibraryGetUnifiedFunction (fptr: *mut *mut c_void, library: CUlibrary, symbol: *const c_char) ["cuLibraryGetUnifiedFunction", 12000, Base, Module, passed];
            cuFuncLoad (function: CUfunction) ["cuFuncLoad", 12040, Base, Module, passed];
        }
    };
}
