//! Rows of the table: launches, streams, events and capture.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_launch {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $crate::cuda_rows_graph! { [$visit] [$($context)*] $($before)*
            // Launches.
            cuLaunchKernel (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernel", 4000, Base, Launch, hooked];
            cuLaunchKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernel", 7000, PerThread, Launch, hooked];
            cuLaunchKernelEx (config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernelEx", 11060, Base, Launch, hooked];
            cuLaunchKernelEx_ptsz (config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) ["cuLaunchKernelEx", 11060, PerThread, Launch, hooked];
            cuLaunchCooperativeKernel (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) ["cuLaunchCooperativeKernel", 9000, Base, Launch, hooked];
            cuLaunchCooperativeKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) ["cuLaunchCooperativeKernel", 9000, PerThread, Launch, hooked];
            cuLaunch (f: CUfunction) ["cuLaunch", 2000, Base, Launch, hooked];
            cuLaunchGrid (f: CUfunction, grid_width: c_int, grid_height: c_int) ["cuLaunchGrid", 2000, Base, Launch, hooked];
            cuLaunchGridAsync (f: CUfunction, grid_width: c_int, grid_height: c_int, stream: CUstream) ["cuLaunchGridAsync", 2000, Base, Launch, hooked];
            cuLaunchCooperativeKernelMultiDevice (launch_params_list: *mut CUDA_LAUNCH_PARAMS, num_devices: c_uint, flags: c_uint) ["cuLaunchCooperativeKernelMultiDevice", 9000, Base, Launch, hooked];
            cuFuncSetBlockShape (hfunc: CUfunction, x: c_int, y: c_int, z: c_int) ["cuFuncSetBlockShape", 2000, Base, LaunchSetup, passed];
            cuFuncSetSharedSize (hfunc: CUfunction, bytes: c_uint) ["cuFuncSetSharedSize", 2000, Base, LaunchSetup, passed];
            cuParamSetSize (hfunc: CUfunction, numbytes: c_uint) ["cuParamSetSize", 2000, Base, LaunchSetup, passed];
            cuParamSeti (hfunc: CUfunction, offset: c_int, value: c_uint) ["cuParamSeti", 2000, Base, LaunchSetup, passed];
            cuParamSetf (hfunc: CUfunction, offset: c_int, value: f32) ["cuParamSetf", 2000, Base, LaunchSetup, passed];
            cuParamSetv (hfunc: CUfunction, offset: c_int, ptr: *mut c_void, numbytes: c_uint) ["cuParamSetv", 2000, Base, LaunchSetup, passed];
            cuParamSetTexRef (hfunc: CUfunction, texunit: c_int, h_tex_ref: CUtexref) ["cuParamSetTexRef", 2000, Base, LaunchSetup, passed];
            cuStreamAddCallback (stream: CUstream, callback: *mut c_void, user_data: *mut c_void, flags: c_uint) ["cuStreamAddCallback", 5000, Base, HostFunction, passed];
            cuStreamAddCallback_ptsz (stream: CUstream, callback: *mut c_void, user_data: *mut c_void, flags: c_uint) ["cuStreamAddCallback", 7000, PerThread, HostFunction, passed];
            cuLaunchHostFunc (stream: CUstream, call: *mut c_void, data: *mut c_void) ["cuLaunchHostFunc", 10000, Base, HostFunction, passed];
            cuLaunchHostFunc_ptsz (stream: CUstream, call: *mut c_void, data: *mut c_void) ["cuLaunchHostFunc", 10000, PerThread, HostFunction, passed];
            cuLaunchHostFunc_v2 (stream: CUstream, call: *mut c_void, user_data: *mut c_void, sync_mode: c_uint) ["cuLaunchHostFunc", 13010, Base, HostFunction, passed];
            cuLaunchHostFunc_v2_ptsz (stream: CUstream, call: *mut c_void, user_data: *mut c_void, sync_mode: c_uint) ["cuLaunchHostFunc", 13010, PerThread, HostFunction, passed];

            // Streams.
            cuCtxWaitEvent (ctx: CUcontext, h_event: CUevent) ["cuCtxWaitEvent", 12050, Base, Stream, passed];
            cuStreamCreate (stream: *mut CUstream, flags: c_uint) ["cuStreamCreate", 2000, Base, Stream, passed];
            cuStreamCreateWithPriority (stream: *mut CUstream, flags: c_uint, priority: c_int) ["cuStreamCreateWithPriority", 5050, Base, Stream, passed];
            cuStreamWaitEvent (stream: CUstream, event: CUevent, flags: c_uint) ["cuStreamWaitEvent", 3020, Base, Stream, passed];
            cuStreamWaitEvent_ptsz (stream: CUstream, event: CUevent, flags: c_uint) ["cuStreamWaitEvent", 7000, PerThread, Stream, passed];
            cuStreamCopyAttributes (dst_stream: CUstream, src_stream: CUstream) ["cuStreamCopyAttributes", 11000, Base, Stream, passed];
            cuStreamCopyAttributes_ptsz (dst: CUstream, src: CUstream) ["cuStreamCopyAttributes", 11000, PerThread, Stream, passed];
            cuStreamSetAttribute (stream: CUstream, attr: CUenum, param: *const c_void) ["cuStreamSetAttribute", 11000, Base, Stream, passed];
            cuStreamSetAttribute_ptsz (stream: CUstream, attr: CUenum, value: *const c_void) ["cuStreamSetAttribute", 11000, PerThread, Stream, passed];
            cuGreenCtxWaitEvent (ctx: CUgreenCtx, h_event: CUevent) ["cuGreenCtxWaitEvent", 12040, Base, Stream, passed];
            cuGreenCtxStreamCreate (stream: *mut CUstream, green_ctx: CUgreenCtx, flags: c_uint, priority: c_int) ["cuGreenCtxStreamCreate", 12050, Base, Stream, passed];
            cuStreamDestroy (stream: CUstream) ["cuStreamDestroy", 2000, Base, StreamEnd, hooked];
            cuStreamDestroy_v2 (stream: CUstream) ["cuStreamDestroy", 4000, Base, StreamEnd, hooked];
            cuStreamQuery (stream: CUstream) ["cuStreamQuery", 2000, Base, Poll, hooked];
            cuStreamQuery_ptsz (stream: CUstream) ["cuStreamQuery", 7000, PerThread, Poll, hooked];
            cuCtxSynchronize () ["cuCtxSynchronize", 2000, Base, Synchronize, hooked];
            cuCtxSynchronize_v2 (ctx: CUcontext) ["cuCtxSynchronize", 13000, Base, Synchronize, hooked];
            cuStreamSynchronize (stream: CUstream) ["cuStreamSynchronize", 2000, Base, Synchronize, hooked];
            cuStreamSynchronize_ptsz (stream: CUstream) ["cuStreamSynchronize", 7000, PerThread, Synchronize, hooked];
            cuEventSynchronize (event: CUevent) ["cuEventSynchronize", 2000, Base, Synchronize, hooked];

            // Questions.
            cuStreamGetPriority (stream: CUstream, priority: *mut c_int) ["cuStreamGetPriority", 5050, Base, Query, passed];
            cuStreamGetPriority_ptsz (stream: CUstream, priority: *mut c_int) ["cuStreamGetPriority", 7000, PerThread, Query, passed];
            cuStreamGetDevice (stream: CUstream, device: *mut CUdevice) ["cuStreamGetDevice", 12080, Base, Query, passed];
            cuStreamGetDevice_ptsz (stream: CUstream, device: *mut CUdevice) ["cuStreamGetDevice", 12080, PerThread, Query, passed];
            cuStreamGetFlags (stream: CUstream, flags: *mut c_uint) ["cuStreamGetFlags", 5050, Base, Query, passed];
            cuStreamGetFlags_ptsz (stream: CUstream, flags: *mut c_uint) ["cuStreamGetFlags", 7000, PerThread, Query, passed];
            cuStreamGetId (stream: CUstream, stream_id: *mut u64) ["cuStreamGetId", 12000, Base, Query, passed];
            cuStreamGetId_ptsz (stream: CUstream, stream_id: *mut u64) ["cuStreamGetId", 12000, PerThread, Query, passed];
            cuStreamGetCtx (stream: CUstream, ctx: *mut CUcontext) ["cuStreamGetCtx", 9020, Base, Query, hooked];
            cuStreamGetCtx_ptsz (stream: CUstream, ctx: *mut CUcontext) ["cuStreamGetCtx", 9020, PerThread, Query, hooked];
            cuStreamGetCtx_v2 (stream: CUstream, ctx: *mut CUcontext, p_green_ctx: *mut CUgreenCtx) ["cuStreamGetCtx", 12050, Base, Query, hooked];
            cuStreamGetCtx_v2_ptsz (stream: CUstream, ctx: *mut CUcontext, p_green_ctx: *mut CUgreenCtx) ["cuStreamGetCtx", 12050, PerThread, Query, hooked];
            cuStreamIsCapturing (stream: CUstream, status: *mut CUenum) ["cuStreamIsCapturing", 10000, Base, Query, passed];
            cuStreamIsCapturing_ptsz (stream: CUstream, status: *mut CUenum) ["cuStreamIsCapturing", 10000, PerThread, Query, passed];
            cuStreamGetCaptureInfo (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64) ["cuStreamGetCaptureInfo", 10010, Base, Query, passed];
            cuStreamGetCaptureInfo_ptsz (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64) ["cuStreamGetCaptureInfo", 10010, PerThread, Query, passed];
            cuStreamGetCaptureInfo_v2 (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, num_dependencies_out: *mut usize) ["cuStreamGetCaptureInfo", 11030, Base, Query, passed];
            cuStreamGetCaptureInfo_v2_ptsz (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, num_dependencies_out: *mut usize) ["cuStreamGetCaptureInfo", 11030, PerThread, Query, passed];
            cuStreamGetCaptureInfo_v3 (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, edge_data_out: *mut *const CUgraphEdgeData, num_dependencies_out: *mut usize) ["cuStreamGetCaptureInfo", 12030, Base, Query, passed];
            cuStreamGetCaptureInfo_v3_ptsz (stream: CUstream, capture_status_out: *mut CUenum, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, edge_data_out: *mut *const CUgraphEdgeData, num_dependencies_out: *mut usize) ["cuStreamGetCaptureInfo", 12030, PerThread, Query, passed];
            cuStreamGetAttribute (stream: CUstream, attr: CUenum, value: *mut c_void) ["cuStreamGetAttribute", 11000, Base, Query, passed];
            cuStreamGetAttribute_ptsz (stream: CUstream, attr: CUenum, value_out: *mut c_void) ["cuStreamGetAttribute", 11000, PerThread, Query, passed];
            cuOccupancyMaxActiveBlocksPerMultiprocessor (blocks: *mut c_int, function: CUfunction, block_threads: c_int, shared_bytes: usize) ["cuOccupancyMaxActiveBlocksPerMultiprocessor", 6050, Base, Query, passed];
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags (blocks: *mut c_int, function: CUfunction, block_threads: c_int, shared_bytes: usize, flags: c_uint) ["cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000, Base, Query, passed];
            cuOccupancyMaxPotentialBlockSize (min_grid_size: *mut c_int, block_size: *mut c_int, func: CUfunction, block_size_to_dynamic_s_mem_size: *mut c_void, dynamic_s_mem_size: usize, block_size_limit: c_int) ["cuOccupancyMaxPotentialBlockSize", 6050, Base, Query, passed];
            cuOccupancyMaxPotentialBlockSizeWithFlags (min_grid_size: *mut c_int, block_size: *mut c_int, func: CUfunction, block_size_to_dynamic_s_mem_size: *mut c_void, dynamic_s_mem_size: usize, block_size_limit: c_int, flags: c_uint) ["cuOccupancyMaxPotentialBlockSizeWithFlags", 7000, Base, Query, passed];
            cuOccupancyAvailableDynamicSMemPerBlock (dynamic_smem_size: *mut usize, func: CUfunction, num_blocks: c_int, block_size: c_int) ["cuOccupancyAvailableDynamicSMemPerBlock", 10020, Base, Query, passed];
            cuOccupancyMaxPotentialClusterSize (cluster_size: *mut c_int, func: CUfunction, config: *const CUlaunchConfig) ["cuOccupancyMaxPotentialClusterSize", 11070, Base, Query, passed];
            cuOccupancyMaxActiveClusters (num_clusters: *mut c_int, func: CUfunction, config: *const CUlaunchConfig) ["cuOccupancyMaxActiveClusters", 11070, Base, Query, passed];
            cuStreamGetGreenCtx (stream: CUstream, ph_ctx: *mut CUgreenCtx) ["cuStreamGetGreenCtx", 12040, Base, Query, hooked];
            cuStreamGetDevResource (stream: CUstream, resource: *mut c_void, kind: CUenum) ["cuStreamGetDevResource", 13010, Base, Query, passed];
            cuStreamGetDevResource_ptsz (stream: CUstream, resource: *mut c_void, kind: CUenum) ["cuStreamGetDevResource", 13010, PerThread, Query, passed];

            // Words in memory.
            cuStreamWaitValue32 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 8000, Base, MemoryOperation, passed];
            cuStreamWaitValue32_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 8000, PerThread, MemoryOperation, passed];
            cuStreamWaitValue32_v2 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 11070, Base, MemoryOperation, passed];
            cuStreamWaitValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWaitValue32", 11070, PerThread, MemoryOperation, passed];
            cuStreamWaitValue64 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 9000, Base, MemoryOperation, passed];
            cuStreamWaitValue64_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 9000, PerThread, MemoryOperation, passed];
            cuStreamWaitValue64_v2 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 11070, Base, MemoryOperation, passed];
            cuStreamWaitValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWaitValue64", 11070, PerThread, MemoryOperation, passed];
            cuStreamWriteValue32 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 8000, Base, MemoryOperation, passed];
            cuStreamWriteValue32_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 8000, PerThread, MemoryOperation, passed];
            cuStreamWriteValue32_v2 (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 11070, Base, MemoryOperation, passed];
            cuStreamWriteValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) ["cuStreamWriteValue32", 11070, PerThread, MemoryOperation, passed];
            cuStreamWriteValue64 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 9000, Base, MemoryOperation, passed];
            cuStreamWriteValue64_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 9000, PerThread, MemoryOperation, passed];
            cuStreamWriteValue64_v2 (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 11070, Base, MemoryOperation, passed];
            cuStreamWriteValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) ["cuStreamWriteValue64", 11070, PerThread, MemoryOperation, passed];
            cuStreamBatchMemOp (stream: CUstream, count: c_uint, param_array: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 8000, Base, MemoryOperation, passed];
            cuStreamBatchMemOp_ptsz (stream: CUstream, count: c_uint, param_array: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 8000, PerThread, MemoryOperation, passed];
            cuStreamBatchMemOp_v2 (stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 11070, Base, MemoryOperation, passed];
            cuStreamBatchMemOp_v2_ptsz (stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint) ["cuStreamBatchMemOp", 11070, PerThread, MemoryOperation, passed];

            // Events.
            cuEventCreate (event: *mut CUevent, flags: c_uint) ["cuEventCreate", 2000, Base, Event, passed];
            cuEventQuery (event: CUevent) ["cuEventQuery", 2000, Base, Event, passed];
            cuEventDestroy (h_event: CUevent) ["cuEventDestroy", 2000, Base, Event, passed];
            cuEventDestroy_v2 (event: CUevent) ["cuEventDestroy", 4000, Base, Event, passed];
            cuEventElapsedTime (milliseconds: *mut f32, start: CUevent, end: CUevent) ["cuEventElapsedTime", 2000, Base, Event, passed];
            cuEventElapsedTime_v2 (milliseconds: *mut f32, start: CUevent, end: CUevent) ["cuEventElapsedTime", 12080, Base, Event, passed];
            cuCtxRecordEvent (ctx: CUcontext, h_event: CUevent) ["cuCtxRecordEvent", 12050, Base, EventRecord, passed];
            cuEventRecord (event: CUevent, stream: CUstream) ["cuEventRecord", 2000, Base, EventRecord, hooked];
            cuEventRecord_ptsz (event: CUevent, stream: CUstream) ["cuEventRecord", 7000, PerThread, EventRecord, hooked];
            cuEventRecordWithFlags (event: CUevent, stream: CUstream, flags: c_uint) ["cuEventRecordWithFlags", 11010, Base, EventRecord, hooked];
            cuEventRecordWithFlags_ptsz (event: CUevent, stream: CUstream, flags: c_uint) ["cuEventRecordWithFlags", 11010, PerThread, EventRecord, hooked];
            cuGreenCtxRecordEvent (ctx: CUgreenCtx, h_event: CUevent) ["cuGreenCtxRecordEvent", 12040, Base, EventRecord, passed];

            // Capture.
            cuStreamBeginCaptureToCig (stream: CUstream, stream_cig_capture_params: *mut c_void) ["cuStreamBeginCaptureToCig", 13010, Base, Capture, hooked];
            cuStreamBeginCaptureToCig_ptsz (stream: CUstream, stream_cig_capture_params: *mut c_void) ["cuStreamBeginCaptureToCig", 13010, PerThread, Capture, hooked];
            cuStreamEndCaptureToCig (stream: CUstream) ["cuStreamEndCaptureToCig", 13010, Base, Capture, passed];
            cuStreamEndCaptureToCig_ptsz (stream: CUstream) ["cuStreamEndCaptureToCig", 13010, PerThread, Capture, passed];
            cuStreamBeginCapture (stream: CUstream) ["cuStreamBeginCapture", 10000, Base, Capture, hooked];
            cuStreamBeginCapture_ptsz (stream: CUstream) ["cuStreamBeginCapture", 10000, PerThread, Capture, hooked];
            cuStreamBeginCapture_v2 (stream: CUstream, mode: CUenum) ["cuStreamBeginCapture", 10010, Base, Capture, hooked];
            cuStreamBeginCapture_v2_ptsz (stream: CUstream, mode: CUenum) ["cuStreamBeginCapture", 10010, PerThread, Capture, hooked];
            cuStreamBeginRecaptureToGraph (stream: CUstream, mode: CUenum, graph: CUgraph, callback_func: *mut c_void, user_data: *mut c_void) ["cuStreamBeginRecaptureToGraph", 13030, Base, Capture, hooked];
            cuStreamBeginRecaptureToGraph_ptsz (stream: CUstream, mode: CUenum, graph: CUgraph, callback_func: *mut c_void, user_data: *mut c_void) ["cuStreamBeginRecaptureToGraph", 13030, PerThread, Capture, hooked];
            cuStreamBeginCaptureToGraph (stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, mode: CUenum) ["cuStreamBeginCaptureToGraph", 12030, Base, Capture, hooked];
            cuStreamBeginCaptureToGraph_ptsz (stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, mode: CUenum) ["cuStreamBeginCaptureToGraph", 12030, PerThread, Capture, hooked];
            cuThreadExchangeStreamCaptureMode (mode: *mut CUenum) ["cuThreadExchangeStreamCaptureMode", 10010, Base, Capture, passed];
            cuStreamEndCapture (stream: CUstream, graph: *mut CUgraph) ["cuStreamEndCapture", 10000, Base, Capture, passed];
            cuStreamEndCapture_ptsz (stream: CUstream, graph: *mut CUgraph) ["cuStreamEndCapture", 10000, PerThread, Capture, passed];
            cuStreamUpdateCaptureDependencies (stream: CUstream, dependencies: *mut CUgraphNode, num_dependencies: usize, flags: c_uint) ["cuStreamUpdateCaptureDependencies", 11030, Base, Capture, passed];
            cuStreamUpdateCaptureDependencies_ptsz (stream: CUstream, dependencies: *mut CUgraphNode, num_dependencies: usize, flags: c_uint) ["cuStreamUpdateCaptureDependencies", 11030, PerThread, Capture, passed];
            cuStreamUpdateCaptureDependencies_v2 (stream: CUstream, dependencies: *mut CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, flags: c_uint) ["cuStreamUpdateCaptureDependencies", 12030, Base, Capture, passed];
            cuStreamUpdateCaptureDependencies_v2_ptsz (stream: CUstream, dependencies: *mut CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, flags: c_uint) ["cuStreamUpdateCaptureDependencies", 12030, PerThread, Capture, passed];
        }
    };
}
