//! The driver API, room by room. What stands in these lists is implemented; every other row of the table falls through
//! to the function that answers `CUDA_ERROR_NOT_SUPPORTED`.

mod init;
mod device;
pub(crate) mod context;
mod memory;
mod pool;
mod vmm;
mod array;
mod share;
mod legacy;
mod oldest;
mod interop;
mod together;
mod checkpoint;
mod green;
pub(crate) mod graph;
mod capture;
mod host;
mod copy;
mod module;
mod kernel;
mod link;
mod launch;
pub(crate) mod stream;
mod memop;
pub(crate) mod event;

/// Defines the two thread modes of calls whose null stream means different streams.
macro_rules! twins {
    ($($name:ident, $twin:ident ($($arg:ident: $ty:ty),*) = $body:ident;)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
        pub(crate) fn $name($($arg: $ty),*) -> Answer {
            $body(ThreadMode::Base, $($arg),*)
        }
        #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
        pub(crate) fn $twin($($arg: $ty),*) -> Answer {
            $body(ThreadMode::PerThread, $($arg),*)
        }
    )*};
}
use twins;

#[allow(unused_imports, reason = "used by rows without a function of their own; there may be none")]
pub(crate) use crate::exports::fallback::*;

pub(crate) use graph::nodes::insert_captured;
pub(crate) use memory::enter as enter_allocation;

pub(crate) use init::{
    cuDriverGetVersion, cuGetErrorName, cuGetErrorString, cuGetExportTable, cuGetProcAddress,
    cuGetProcAddress_v2, cuInit, cuModuleGetLoadingMode,
};

pub(crate) use device::index as device_index;
pub(crate) use device::{
    cuDeviceCanAccessPeer, cuDeviceGet, cuDeviceGetAttribute, cuDeviceGetByPCIBusId, cuDeviceGetCount,
    cuDeviceGetDefaultMemPool, cuDeviceGetName, cuDeviceGetPCIBusId, cuDeviceGetUuid, cuDeviceGetUuid_v2,
    cuDeviceTotalMem_v2,
};

pub(crate) use context::{
    cuCtxCreate_v2, cuCtxCreate_v3, cuCtxCreate_v4, cuCtxDestroy_v2, cuCtxGetApiVersion, cuCtxGetCurrent,
    cuCtxGetDevice, cuCtxGetDevice_v2, cuCtxGetFlags, cuCtxGetLimit, cuCtxGetStreamPriorityRange,
    cuCtxPopCurrent_v2, cuCtxPushCurrent_v2, cuCtxSetCurrent, cuCtxSetLimit, cuCtxSynchronize,
    cuCtxSynchronize_v2, cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, cuDevicePrimaryCtxRetain,
    cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2,
};

pub(crate) use memory::{
    cuMemAlloc_v2, cuMemAllocManaged, cuMemAllocPitch_v2, cuMemFree_v2, cuMemFreeAsync, cuMemFreeAsync_ptsz,
    cuMemGetAddressRange_v2, cuMemGetInfo_v2, cuPointerGetAttribute, cuPointerGetAttributes,
};

pub(crate) use host::{
    cuMemAllocHost_v2, cuMemFreeHost, cuMemHostAlloc, cuMemHostGetDevicePointer_v2, cuMemHostGetFlags,
    cuMemHostRegister_v2, cuMemHostUnregister,
};

pub(crate) use copy::{
    cuMemcpy, cuMemcpy_ptds, cuMemcpy2D_v2, cuMemcpy2D_v2_ptds, cuMemcpy2DAsync_v2, cuMemcpy2DAsync_v2_ptsz,
    cuMemcpy2DUnaligned_v2, cuMemcpy2DUnaligned_v2_ptds, cuMemcpy3D_v2, cuMemcpy3D_v2_ptds,
    cuMemcpy3DAsync_v2, cuMemcpy3DAsync_v2_ptsz, cuMemcpyAsync, cuMemcpyAsync_ptsz, cuMemcpyAtoA_v2,
    cuMemcpyAtoA_v2_ptds, cuMemcpyAtoD_v2, cuMemcpyAtoD_v2_ptds, cuMemcpyAtoH_v2, cuMemcpyAtoH_v2_ptds,
    cuMemcpyAtoHAsync_v2, cuMemcpyAtoHAsync_v2_ptsz, cuMemcpyDtoA_v2, cuMemcpyDtoA_v2_ptds, cuMemcpyDtoD_v2,
    cuMemcpyDtoD_v2_ptds, cuMemcpyDtoDAsync_v2, cuMemcpyDtoDAsync_v2_ptsz, cuMemcpyDtoH_v2,
    cuMemcpyDtoH_v2_ptds, cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_ptsz, cuMemcpyHtoA_v2,
    cuMemcpyHtoA_v2_ptds, cuMemcpyHtoAAsync_v2, cuMemcpyHtoAAsync_v2_ptsz, cuMemcpyHtoD_v2,
    cuMemcpyHtoD_v2_ptds, cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync_v2_ptsz, cuMemsetD2D8_v2,
    cuMemsetD2D8_v2_ptds, cuMemsetD2D8Async, cuMemsetD2D8Async_ptsz, cuMemsetD2D16_v2, cuMemsetD2D16_v2_ptds,
    cuMemsetD2D16Async, cuMemsetD2D16Async_ptsz, cuMemsetD2D32_v2, cuMemsetD2D32_v2_ptds, cuMemsetD2D32Async,
    cuMemsetD2D32Async_ptsz, cuMemsetD8_v2, cuMemsetD8_v2_ptds, cuMemsetD8Async, cuMemsetD8Async_ptsz,
    cuMemsetD16_v2, cuMemsetD16_v2_ptds, cuMemsetD16Async, cuMemsetD16Async_ptsz, cuMemsetD32_v2,
    cuMemsetD32_v2_ptds, cuMemsetD32Async, cuMemsetD32Async_ptsz,
};

pub(crate) use module::{
    cuFuncGetAttribute, cuFuncGetModule, cuFuncGetName, cuFuncGetParamInfo, cuFuncSetAttribute,
    cuFuncSetCacheConfig, cuKernelGetFunction, cuLibraryGetKernel, cuLibraryGetModule, cuLibraryLoadData,
    cuLibraryLoadFromFile, cuLibraryUnload, cuModuleGetFunction, cuModuleGetGlobal_v2, cuModuleLoad,
    cuModuleLoadData, cuModuleLoadDataEx, cuModuleLoadFatBinary, cuModuleUnload,
};

pub(crate) use kernel::{
    cuKernelGetAttribute, cuKernelGetLibrary, cuKernelGetName, cuKernelGetParamInfo, cuKernelSetAttribute,
    cuKernelSetCacheConfig, cuLibraryGetGlobal,
};

pub(crate) use link::Link;
pub(crate) use link::{cuLinkAddData_v2, cuLinkAddFile_v2, cuLinkComplete, cuLinkCreate_v2, cuLinkDestroy};

pub(crate) use launch::{
    cuLaunchCooperativeKernel, cuLaunchCooperativeKernel_ptsz, cuLaunchHostFunc, cuLaunchHostFunc_ptsz,
    cuLaunchKernel, cuLaunchKernel_ptsz, cuLaunchKernelEx, cuLaunchKernelEx_ptsz,
    cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
};

pub(crate) use stream::{
    cuStreamCreate, cuStreamCreateWithPriority, cuStreamDestroy_v2, cuStreamGetCtx, cuStreamGetCtx_ptsz,
    cuStreamGetCtx_v2, cuStreamGetCtx_v2_ptsz, cuStreamGetFlags, cuStreamGetFlags_ptsz, cuStreamGetPriority,
    cuStreamGetPriority_ptsz, cuStreamQuery, cuStreamQuery_ptsz, cuStreamSynchronize,
    cuStreamSynchronize_ptsz, cuStreamWaitEvent, cuStreamWaitEvent_ptsz,
};

pub(crate) use memop::{
    cuStreamBatchMemOp_v2, cuStreamBatchMemOp_v2_ptsz, cuStreamWaitValue32_v2, cuStreamWaitValue32_v2_ptsz,
    cuStreamWaitValue64_v2, cuStreamWaitValue64_v2_ptsz, cuStreamWriteValue32_v2,
    cuStreamWriteValue32_v2_ptsz, cuStreamWriteValue64_v2, cuStreamWriteValue64_v2_ptsz,
};

pub(crate) use event::{
    cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventElapsedTime_v2, cuEventQuery, cuEventRecord,
    cuEventRecord_ptsz, cuEventRecordWithFlags, cuEventRecordWithFlags_ptsz, cuEventSynchronize,
};

pub(crate) use pool::{
    cuDeviceGetMemPool, cuDeviceSetMemPool, cuMemAllocAsync, cuMemAllocAsync_ptsz, cuMemAllocFromPoolAsync,
    cuMemAllocFromPoolAsync_ptsz, cuMemPoolCreate, cuMemPoolDestroy, cuMemPoolExportPointer,
    cuMemPoolExportToShareableHandle, cuMemPoolGetAccess, cuMemPoolGetAttribute,
    cuMemPoolImportFromShareableHandle, cuMemPoolImportPointer, cuMemPoolSetAccess, cuMemPoolSetAttribute,
    cuMemPoolTrimTo,
};

pub(crate) use vmm::{
    cuMemAddressFree, cuMemAddressReserve, cuMemCreate, cuMemExportToShareableHandle, cuMemGetAccess,
    cuMemGetAllocationGranularity, cuMemGetAllocationPropertiesFromHandle, cuMemImportFromShareableHandle,
    cuMemMap, cuMemRelease, cuMemRetainAllocationHandle, cuMemSetAccess, cuMemUnmap, cuMulticastAddDevice,
    cuMulticastBindMem, cuMulticastCreate, cuMulticastGetGranularity, cuMulticastUnbind,
};

pub(crate) use array::{
    cuArray3DCreate, cuArray3DCreate_v2, cuArray3DGetDescriptor_v2, cuArrayCreate, cuArrayCreate_v2,
    cuArrayDestroy, cuArrayGetDescriptor_v2, cuArrayGetMemoryRequirements, cuMipmappedArrayCreate,
    cuMipmappedArrayDestroy, cuMipmappedArrayGetLevel, cuMipmappedArrayGetMemoryRequirements,
};

pub(crate) use share::{
    cuDestroyExternalMemory, cuExternalMemoryGetMappedBuffer, cuImportExternalMemory, cuIpcCloseMemHandle,
    cuIpcGetEventHandle, cuIpcGetMemHandle, cuIpcOpenEventHandle, cuIpcOpenMemHandle, cuIpcOpenMemHandle_v2,
};

pub(crate) use graph::build::{
    cuGraphClone, cuGraphCreate, cuGraphDestroy, cuGraphDestroyNode, cuGraphNodeFindInClone,
};

pub(crate) use graph::nodes::{
    cuGraphAddBatchMemOpNode, cuGraphAddChildGraphNode, cuGraphAddEmptyNode, cuGraphAddEventRecordNode,
    cuGraphAddEventWaitNode, cuGraphAddHostNode, cuGraphAddKernelNode, cuGraphAddKernelNode_v2,
    cuGraphAddMemAllocNode, cuGraphAddMemFreeNode, cuGraphAddMemcpyNode, cuGraphAddMemsetNode,
    cuGraphAddNode, cuGraphAddNode_v2, cuGraphAddNode_v3, cuGraphMemAllocNodeGetParams,
};

pub(crate) use graph::edges::{
    cuGraphAddDependencies, cuGraphAddDependencies_v2, cuGraphGetEdges, cuGraphGetEdges_v2, cuGraphGetNodes,
    cuGraphGetRootNodes, cuGraphNodeGetDependencies, cuGraphNodeGetDependencies_v2,
    cuGraphNodeGetDependentNodes, cuGraphNodeGetDependentNodes_v2, cuGraphRemoveDependencies,
    cuGraphRemoveDependencies_v2,
};

pub(crate) use graph::params::{
    cuGraphBatchMemOpNodeGetParams, cuGraphBatchMemOpNodeSetParams, cuGraphChildGraphNodeGetGraph,
    cuGraphEventRecordNodeGetEvent, cuGraphEventRecordNodeSetEvent, cuGraphEventWaitNodeGetEvent,
    cuGraphEventWaitNodeSetEvent, cuGraphExecBatchMemOpNodeSetParams, cuGraphExecChildGraphNodeSetParams,
    cuGraphExecEventRecordNodeSetEvent, cuGraphExecEventWaitNodeSetEvent, cuGraphExecHostNodeSetParams,
    cuGraphExecKernelNodeSetParams, cuGraphExecKernelNodeSetParams_v2, cuGraphExecMemcpyNodeSetParams,
    cuGraphExecMemsetNodeSetParams, cuGraphExecNodeSetParams, cuGraphHostNodeGetParams,
    cuGraphHostNodeSetParams, cuGraphKernelNodeCopyAttributes, cuGraphKernelNodeGetAttribute,
    cuGraphKernelNodeGetParams, cuGraphKernelNodeGetParams_v2, cuGraphKernelNodeSetAttribute,
    cuGraphKernelNodeSetParams, cuGraphKernelNodeSetParams_v2, cuGraphMemFreeNodeGetParams,
    cuGraphMemcpyNodeGetParams, cuGraphMemcpyNodeSetParams, cuGraphMemsetNodeGetParams,
    cuGraphMemsetNodeSetParams, cuGraphNodeGetContainingGraph, cuGraphNodeGetEnabled, cuGraphNodeGetType,
    cuGraphNodeSetEnabled, cuGraphNodeSetParams, cuGraphNodeSetParams_v2,
};

pub(crate) use graph::ready::{
    cuGraphExecDestroy, cuGraphExecGetFlags, cuGraphExecUpdate, cuGraphExecUpdate_v2, cuGraphInstantiate,
    cuGraphInstantiate_v2, cuGraphInstantiateWithFlags, cuGraphInstantiateWithParams,
    cuGraphInstantiateWithParams_ptsz, cuGraphLaunch, cuGraphLaunch_ptsz, cuGraphUpload, cuGraphUpload_ptsz,
};

pub(crate) use graph::memory::{
    cuDeviceGetGraphMemAttribute, cuDeviceGraphMemTrim, cuDeviceSetGraphMemAttribute,
};

pub(crate) use capture::{
    cuStreamBeginCapture, cuStreamBeginCapture_ptsz, cuStreamBeginCapture_v2, cuStreamBeginCapture_v2_ptsz,
    cuStreamBeginCaptureToGraph, cuStreamBeginCaptureToGraph_ptsz, cuStreamEndCapture,
    cuStreamEndCapture_ptsz, cuStreamGetCaptureInfo, cuStreamGetCaptureInfo_ptsz, cuStreamGetCaptureInfo_v2,
    cuStreamGetCaptureInfo_v2_ptsz, cuStreamGetCaptureInfo_v3, cuStreamGetCaptureInfo_v3_ptsz,
    cuStreamIsCapturing, cuStreamIsCapturing_ptsz, cuStreamUpdateCaptureDependencies,
    cuStreamUpdateCaptureDependencies_ptsz, cuStreamUpdateCaptureDependencies_v2,
    cuStreamUpdateCaptureDependencies_v2_ptsz, cuThreadExchangeStreamCaptureMode,
};

pub(crate) use legacy::{
    cuFuncSetBlockShape, cuFuncSetSharedSize, cuLaunch, cuLaunchGrid, cuLaunchGridAsync, cuParamSetSize,
    cuParamSetf, cuParamSeti, cuParamSetv,
};

pub(crate) use together::cuLaunchCooperativeKernelMultiDevice;

pub(crate) use green::{
    cuCtxFromGreenCtx, cuCtxGetDevResource, cuDevResourceGenerateDesc, cuDevSmResourceSplitByCount,
    cuDeviceGetDevResource, cuGreenCtxCreate, cuGreenCtxDestroy, cuGreenCtxGetDevResource, cuGreenCtxGetId,
    cuGreenCtxRecordEvent, cuGreenCtxStreamCreate, cuGreenCtxWaitEvent, cuStreamGetGreenCtx,
};

pub(crate) use pool::{cuMemGetDefaultMemPool, cuMemGetMemPool, cuMemSetMemPool};

pub(crate) use vmm::{cuMulticastBindAddr, cuMulticastBindAddr_v2, cuMulticastBindMem_v2};

pub(crate) use stream::{cuStreamGetDevice, cuStreamGetDevice_ptsz, cuStreamGetId, cuStreamGetId_ptsz};

pub(crate) use checkpoint::{
    cuCheckpointProcessCheckpoint, cuCheckpointProcessGetRestoreThreadId, cuCheckpointProcessGetState,
    cuCheckpointProcessLock, cuCheckpointProcessRestore, cuCheckpointProcessUnlock,
};

pub(crate) use oldest::{
    cuCtxAttach, cuCtxCreate, cuCtxDestroy, cuCtxDetach, cuCtxPopCurrent, cuCtxPushCurrent, cuDeviceTotalMem,
    cuEventDestroy, cuMemFree, cuMemGetInfo, cuStreamDestroy,
};

pub(crate) use interop::{
    cuGLCtxCreate, cuGLCtxCreate_v2, cuGraphicsMapResources, cuGraphicsMapResources_ptsz,
    cuGraphicsResourceGetMappedMipmappedArray, cuGraphicsResourceGetMappedPointer,
    cuGraphicsResourceGetMappedPointer_v2, cuGraphicsResourceSetMapFlags, cuGraphicsResourceSetMapFlags_v2,
    cuGraphicsSubResourceGetMappedArray, cuGraphicsUnmapResources, cuGraphicsUnmapResources_ptsz,
    cuGraphicsUnregisterResource, cuVDPAUCtxCreate, cuVDPAUCtxCreate_v2,
};
