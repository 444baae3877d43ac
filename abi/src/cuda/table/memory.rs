//! Rows of the table: everything that takes, gives back, maps, shares or reports memory.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_memory {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $crate::cuda_rows_copy! { [$visit] [$($context)*] $($before)*
            // What there is.
            cuDeviceTotalMem (bytes: *mut c_uint, dev: CUdevice) ["cuDeviceTotalMem", 2000, Base, MemoryView, hooked];
            cuDeviceTotalMem_v2 (bytes: *mut usize, dev: CUdevice) ["cuDeviceTotalMem", 3020, Base, MemoryView, hooked];
            cuMemGetInfo (free: *mut c_uint, total: *mut c_uint) ["cuMemGetInfo", 2000, Base, MemoryView, hooked];
            cuMemGetInfo_v2 (free: *mut usize, total: *mut usize) ["cuMemGetInfo", 3020, Base, MemoryView, hooked];
            cuMemPoolGetAttribute (pool: CUmemoryPool, attr: CUenum, value: *mut c_void) ["cuMemPoolGetAttribute", 11020, Base, MemoryView, passed];
            cuDeviceGetGraphMemAttribute (device: CUdevice, attr: CUenum, value: *mut c_void) ["cuDeviceGetGraphMemAttribute", 11040, Base, MemoryView, passed];

            // Questions.
            cuDeviceGetMemPool (pool: *mut CUmemoryPool, dev: CUdevice) ["cuDeviceGetMemPool", 11020, Base, Query, passed];
            cuDeviceGetDefaultMemPool (pool: *mut CUmemoryPool, dev: CUdevice) ["cuDeviceGetDefaultMemPool", 11020, Base, Query, passed];
            cuMemGetAddressRange (pbase: *mut u32, psize: *mut c_uint, dptr: u32) ["cuMemGetAddressRange", 2000, Base, Query, passed];
            cuMemGetAddressRange_v2 (base: *mut CUdeviceptr, bytes: *mut usize, dptr: CUdeviceptr) ["cuMemGetAddressRange", 3020, Base, Query, passed];
            cuArrayGetDescriptor (p_array_descriptor: *mut CUDA_ARRAY_DESCRIPTOR_v1, array: CUarray) ["cuArrayGetDescriptor", 2000, Base, Query, passed];
            cuArrayGetDescriptor_v2 (p_array_descriptor: *mut CUDA_ARRAY_DESCRIPTOR, array: CUarray) ["cuArrayGetDescriptor", 3020, Base, Query, passed];
            cuArrayGetSparseProperties (sparse_properties: *mut c_void, array: CUarray) ["cuArrayGetSparseProperties", 11010, Base, Query, passed];
            cuMipmappedArrayGetSparseProperties (sparse_properties: *mut c_void, mipmap: CUmipmappedArray) ["cuMipmappedArrayGetSparseProperties", 11010, Base, Query, passed];
            cuArrayGetMemoryRequirements (memory_requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: CUarray, device: CUdevice) ["cuArrayGetMemoryRequirements", 11060, Base, Query, passed];
            cuMipmappedArrayGetMemoryRequirements (memory_requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, mipmap: CUmipmappedArray, device: CUdevice) ["cuMipmappedArrayGetMemoryRequirements", 11060, Base, Query, passed];
            cuArrayGetPlane (p_plane_array: *mut CUarray, array: CUarray, plane_idx: c_uint) ["cuArrayGetPlane", 11020, Base, Query, passed];
            cuArray3DGetDescriptor (p_array_descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR_v1, array: CUarray) ["cuArray3DGetDescriptor", 2000, Base, Query, passed];
            cuArray3DGetDescriptor_v2 (p_array_descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, array: CUarray) ["cuArray3DGetDescriptor", 3020, Base, Query, passed];
            cuMipmappedArrayGetLevel (p_level_array: *mut CUarray, mipmap: CUmipmappedArray, level: c_uint) ["cuMipmappedArrayGetLevel", 5000, Base, Query, passed];
            cuMemGetAccess (flags: *mut u64, location: *const CUmemLocation, ptr: CUdeviceptr) ["cuMemGetAccess", 10020, Base, Query, passed];
            cuMemGetAllocationGranularity (granularity: *mut usize, prop: *const CUmemAllocationProp, option: CUenum) ["cuMemGetAllocationGranularity", 10020, Base, Query, passed];
            cuMemGetAllocationPropertiesFromHandle (prop: *mut CUmemAllocationProp, handle: u64) ["cuMemGetAllocationPropertiesFromHandle", 10020, Base, Query, passed];
            cuMemPoolGetAccess (flags: *mut CUenum, mem_pool: CUmemoryPool, location: *mut CUmemLocation) ["cuMemPoolGetAccess", 11020, Base, Query, passed];
            cuMemGetDefaultMemPool (pool_out: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUenum) ["cuMemGetDefaultMemPool", 13000, Base, Query, passed];
            cuMemGetMemPool (pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUenum) ["cuMemGetMemPool", 13000, Base, Query, passed];
            cuMulticastGetGranularity (granularity: *mut usize, prop: *const CUmulticastObjectProp, option: CUenum) ["cuMulticastGetGranularity", 12010, Base, Query, passed];
            cuLogicalEndpointGetLimits (bind_alignment: *mut u64, max_size: *mut u64, prop: *const c_void) ["cuLogicalEndpointGetLimits", 13030, Base, Query, passed];
            cuLogicalEndpointQuery (le_id: u32, count: u32, query_status: *mut c_int) ["cuLogicalEndpointQuery", 13030, Base, Query, passed];
            cuPointerGetAttribute (data: *mut c_void, attribute: CUenum, ptr: CUdeviceptr) ["cuPointerGetAttribute", 4000, Base, Query, passed];
            cuMemGetLocationInfo (ptr: CUdeviceptr, size: usize, summary_granularity: usize, sampling_granularity: usize, location_out: *mut CUmemLocation) ["cuMemGetLocationInfo", 13040, Base, Query, passed];
            cuMemRangeGetAttribute (data: *mut c_void, data_size: usize, attribute: CUenum, dev_ptr: CUdeviceptr, count: usize) ["cuMemRangeGetAttribute", 8000, Base, Query, passed];
            cuMemRangeGetAttributes (data: *mut *mut c_void, data_sizes: *mut usize, attributes: *mut CUenum, num_attributes: usize, dev_ptr: CUdeviceptr, count: usize) ["cuMemRangeGetAttributes", 8000, Base, Query, passed];
            cuPointerSetAttribute (value: *const c_void, attribute: CUenum, ptr: CUdeviceptr) ["cuPointerSetAttribute", 6000, Base, Query, passed];
            cuPointerGetAttributes (count: c_uint, attributes: *mut CUenum, data: *mut *mut c_void, ptr: CUdeviceptr) ["cuPointerGetAttributes", 7000, Base, Query, passed];

            // Plain and stream-ordered memory.
            cuMemAlloc (dptr: *mut u32, bytes: c_uint) ["cuMemAlloc", 2000, Base, Allocate, hooked];
            cuMemAlloc_v2 (dptr: *mut CUdeviceptr, bytes: usize) ["cuMemAlloc", 3020, Base, Allocate, hooked];
            cuMemAllocPitch (dptr: *mut u32, p_pitch: *mut c_uint, width_in_bytes: c_uint, height: c_uint, element_size_bytes: c_uint) ["cuMemAllocPitch", 2000, Base, Allocate, hooked];
            cuMemAllocPitch_v2 (dptr: *mut CUdeviceptr, pitch: *mut usize, width_bytes: usize, height: usize, element_bytes: c_uint) ["cuMemAllocPitch", 3020, Base, Allocate, hooked];
            cuMemAllocAsync (dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemAllocAsync", 11020, Base, Allocate, hooked];
            cuMemAllocAsync_ptsz (dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemAllocAsync", 11020, PerThread, Allocate, hooked];
            cuMemFree (dptr: u32) ["cuMemFree", 2000, Base, Free, hooked];
            cuMemFree_v2 (dptr: CUdeviceptr) ["cuMemFree", 3020, Base, Free, hooked];
            cuMemFreeAsync (dptr: CUdeviceptr, stream: CUstream) ["cuMemFreeAsync", 11020, Base, Free, hooked];
            cuMemFreeAsync_ptsz (dptr: CUdeviceptr, stream: CUstream) ["cuMemFreeAsync", 11020, PerThread, Free, hooked];

            // Managed memory.
            cuMemAllocManaged (dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) ["cuMemAllocManaged", 6000, Base, Managed, hooked];
            cuMemPrefetchAsync (dev_ptr: CUdeviceptr, count: usize, dst_device: CUdevice, stream: CUstream) ["cuMemPrefetchAsync", 8000, Base, ManagedHint, passed];
            cuMemPrefetchAsync_ptsz (dev_ptr: CUdeviceptr, count: usize, dst_device: CUdevice, stream: CUstream) ["cuMemPrefetchAsync", 8000, PerThread, ManagedHint, passed];
            cuMemPrefetchAsync_v2 (dev_ptr: CUdeviceptr, count: usize, location: CUmemLocation, flags: c_uint, stream: CUstream) ["cuMemPrefetchAsync", 12020, Base, ManagedHint, passed];
            cuMemPrefetchAsync_v2_ptsz (dev_ptr: CUdeviceptr, count: usize, location: CUmemLocation, flags: c_uint, stream: CUstream) ["cuMemPrefetchAsync", 12020, PerThread, ManagedHint, passed];
            cuMemAdvise (dev_ptr: CUdeviceptr, count: usize, advice: CUenum, device: CUdevice) ["cuMemAdvise", 8000, Base, ManagedHint, passed];
            cuMemAdvise_v2 (dev_ptr: CUdeviceptr, count: usize, advice: CUenum, location: CUmemLocation) ["cuMemAdvise", 12020, Base, ManagedHint, passed];
            cuMemPrefetchBatchAsync (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetch_locs: *mut CUmemLocation, prefetch_loc_idxs: *mut usize, num_prefetch_locs: usize, flags: u64, stream: CUstream) ["cuMemPrefetchBatchAsync", 13000, Base, ManagedHint, passed];
            cuMemPrefetchBatchAsync_ptsz (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetch_locs: *mut CUmemLocation, prefetch_loc_idxs: *mut usize, num_prefetch_locs: usize, flags: u64, stream: CUstream) ["cuMemPrefetchBatchAsync", 13000, PerThread, ManagedHint, passed];
            cuMemDiscardBatchAsync (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, flags: u64, stream: CUstream) ["cuMemDiscardBatchAsync", 13000, Base, ManagedHint, passed];
            cuMemDiscardBatchAsync_ptsz (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, flags: u64, stream: CUstream) ["cuMemDiscardBatchAsync", 13000, PerThread, ManagedHint, passed];
            cuMemDiscardAndPrefetchBatchAsync (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetch_locs: *mut CUmemLocation, prefetch_loc_idxs: *mut usize, num_prefetch_locs: usize, flags: u64, stream: CUstream) ["cuMemDiscardAndPrefetchBatchAsync", 13000, Base, ManagedHint, passed];
            cuMemDiscardAndPrefetchBatchAsync_ptsz (dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetch_locs: *mut CUmemLocation, prefetch_loc_idxs: *mut usize, num_prefetch_locs: usize, flags: u64, stream: CUstream) ["cuMemDiscardAndPrefetchBatchAsync", 13000, PerThread, ManagedHint, passed];
            cuStreamAttachMemAsync (stream: CUstream, dptr: CUdeviceptr, length: usize, flags: c_uint) ["cuStreamAttachMemAsync", 6000, Base, ManagedHint, passed];
            cuStreamAttachMemAsync_ptsz (stream: CUstream, dptr: CUdeviceptr, length: usize, flags: c_uint) ["cuStreamAttachMemAsync", 7000, PerThread, ManagedHint, passed];

            // Pools.
            cuMemAllocFromPoolAsync (dptr: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream) ["cuMemAllocFromPoolAsync", 11020, Base, PoolAllocate, hooked];
            cuMemAllocFromPoolAsync_ptsz (dptr: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream) ["cuMemAllocFromPoolAsync", 11020, PerThread, PoolAllocate, hooked];
            cuDeviceSetMemPool (dev: CUdevice, pool: CUmemoryPool) ["cuDeviceSetMemPool", 11020, Base, Pool, passed];
            cuMemPoolTrimTo (pool: CUmemoryPool, min_bytes_to_keep: usize) ["cuMemPoolTrimTo", 11020, Base, Pool, hooked];
            cuMemPoolSetAttribute (pool: CUmemoryPool, attr: CUenum, value: *mut c_void) ["cuMemPoolSetAttribute", 11020, Base, Pool, hooked];
            cuMemPoolSetAccess (pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize) ["cuMemPoolSetAccess", 11020, Base, Pool, passed];
            cuMemPoolCreate (pool: *mut CUmemoryPool, pool_props: *const CUmemPoolProps) ["cuMemPoolCreate", 11020, Base, Pool, hooked];
            cuMemPoolDestroy (pool: CUmemoryPool) ["cuMemPoolDestroy", 11020, Base, Pool, hooked];
            cuMemSetMemPool (location: *mut CUmemLocation, kind: CUenum, pool: CUmemoryPool) ["cuMemSetMemPool", 13000, Base, Pool, passed];
            cuDeviceGraphMemTrim (device: CUdevice) ["cuDeviceGraphMemTrim", 11040, Base, Pool, hooked];
            cuDeviceSetGraphMemAttribute (device: CUdevice, attr: CUenum, value: *mut c_void) ["cuDeviceSetGraphMemAttribute", 11040, Base, Pool, passed];

            // Physical memory and the addresses it is mapped at.
            cuMemCreate (handle: *mut u64, size: usize, prop: *const CUmemAllocationProp, flags: u64) ["cuMemCreate", 10020, Base, PhysicalMemory, hooked];
            cuMemAddressReserve (ptr: *mut CUdeviceptr, size: usize, alignment: usize, addr: CUdeviceptr, flags: u64) ["cuMemAddressReserve", 10020, Base, VirtualMemory, passed];
            cuMemAddressFree (ptr: CUdeviceptr, size: usize) ["cuMemAddressFree", 10020, Base, VirtualMemory, passed];
            cuMemRelease (handle: u64) ["cuMemRelease", 10020, Base, VirtualMemory, hooked];
            cuMemMap (ptr: CUdeviceptr, size: usize, offset: usize, handle: u64, flags: u64) ["cuMemMap", 10020, Base, VirtualMemory, hooked];
            cuMemMapArrayAsync (map_info_list: *mut c_void, count: c_uint, stream: CUstream) ["cuMemMapArrayAsync", 11010, Base, VirtualMemory, hooked];
            cuMemMapArrayAsync_ptsz (map_info_list: *mut c_void, count: c_uint, stream: CUstream) ["cuMemMapArrayAsync", 11010, PerThread, VirtualMemory, hooked];
            cuMemUnmap (ptr: CUdeviceptr, size: usize) ["cuMemUnmap", 10020, Base, VirtualMemory, hooked];
            cuMemSetAccess (ptr: CUdeviceptr, size: usize, desc: *const CUmemAccessDesc, count: usize) ["cuMemSetAccess", 10020, Base, VirtualMemory, passed];
            cuMemRetainAllocationHandle (handle: *mut u64, addr: *mut c_void) ["cuMemRetainAllocationHandle", 11000, Base, VirtualMemory, hooked];

            // Arrays and mipmaps.
            cuArrayCreate (array: *mut CUarray, p_allocate_array: *const CUDA_ARRAY_DESCRIPTOR_v1) ["cuArrayCreate", 2000, Base, Array, hooked];
            cuArrayCreate_v2 (array: *mut CUarray, p_allocate_array: *const CUDA_ARRAY_DESCRIPTOR) ["cuArrayCreate", 3020, Base, Array, hooked];
            cuArray3DCreate (array: *mut CUarray, p_allocate_array: *const CUDA_ARRAY3D_DESCRIPTOR_v1) ["cuArray3DCreate", 2000, Base, Array, hooked];
            cuArray3DCreate_v2 (array: *mut CUarray, p_allocate_array: *const CUDA_ARRAY3D_DESCRIPTOR) ["cuArray3DCreate", 3020, Base, Array, hooked];
            cuMipmappedArrayCreate (array: *mut CUmipmappedArray, p_mipmapped_array_desc: *const CUDA_ARRAY3D_DESCRIPTOR, num_mipmap_levels: c_uint) ["cuMipmappedArrayCreate", 5000, Base, Array, hooked];
            cuArrayDestroy (array: CUarray) ["cuArrayDestroy", 2000, Base, ArrayEnd, hooked];
            cuMipmappedArrayDestroy (mipmap: CUmipmappedArray) ["cuMipmappedArrayDestroy", 5000, Base, ArrayEnd, hooked];

            // Multicast objects and logical endpoints.
            cuMulticastCreate (mc_handle: *mut u64, prop: *const CUmulticastObjectProp) ["cuMulticastCreate", 12010, Base, Multicast, hooked];
            cuMulticastAddDevice (mc_handle: u64, dev: CUdevice) ["cuMulticastAddDevice", 12010, Base, Multicast, passed];
            cuMulticastBindMem (mc_handle: u64, mc_offset: usize, mem_handle: u64, mem_offset: usize, size: usize, flags: u64) ["cuMulticastBindMem", 12010, Base, Multicast, hooked];
            cuMulticastBindMem_v2 (mc_handle: u64, dev: CUdevice, mc_offset: usize, mem_handle: u64, mem_offset: usize, size: usize, flags: u64) ["cuMulticastBindMem", 13010, Base, Multicast, hooked];
            cuMulticastBindAddr (mc_handle: u64, mc_offset: usize, memptr: CUdeviceptr, size: usize, flags: u64) ["cuMulticastBindAddr", 12010, Base, Multicast, hooked];
            cuMulticastBindAddr_v2 (mc_handle: u64, dev: CUdevice, mc_offset: usize, memptr: CUdeviceptr, size: usize, flags: u64) ["cuMulticastBindAddr", 13010, Base, Multicast, hooked];
            cuMulticastUnbind (mc_handle: u64, dev: CUdevice, mc_offset: usize, size: usize) ["cuMulticastUnbind", 12010, Base, Multicast, hooked];
            cuLogicalEndpointIdReserve (base_le_id: *mut u32, count: u32) ["cuLogicalEndpointIdReserve", 13030, Base, Multicast, passed];
            cuLogicalEndpointIdRelease (base_le_id: u32, count: u32) ["cuLogicalEndpointIdRelease", 13030, Base, Multicast, passed];
            cuLogicalEndpointCreate (le_id: u32, prop: *const c_void) ["cuLogicalEndpointCreate", 13030, Base, Multicast, hooked];
            cuLogicalEndpointAddDevice (le_id: u32, dev: CUdevice) ["cuLogicalEndpointAddDevice", 13030, Base, Multicast, passed];
            cuLogicalEndpointDestroy (le_id: u32) ["cuLogicalEndpointDestroy", 13030, Base, Multicast, hooked];
            cuLogicalEndpointBindAddr (le_id: u32, dev: CUdevice, offset: u64, ptr: *mut c_void, size: u64, flags: u64) ["cuLogicalEndpointBindAddr", 13030, Base, Multicast, hooked];
            cuLogicalEndpointBindMem (le_id: u32, dev: CUdevice, offset: u64, mem_handle: u64, mem_offset: u64, size: u64, flags: u64) ["cuLogicalEndpointBindMem", 13030, Base, Multicast, hooked];
            cuLogicalEndpointUnbind (le_id: u32, dev: CUdevice, offset: u64, size: u64) ["cuLogicalEndpointUnbind", 13030, Base, Multicast, hooked];
            cuLogicalEndpointExport (handle: *mut c_void, le_id: u32, handle_type: CUenum) ["cuLogicalEndpointExport", 13030, Base, Multicast, passed];
            cuLogicalEndpointImport (le_id: u32, handle: *const c_void, handle_type: CUenum) ["cuLogicalEndpointImport", 13030, Base, Multicast, passed];

            // Memory and events of other processes.
            cuIpcGetEventHandle (array: *mut CUipcEventHandle, event: CUevent) ["cuIpcGetEventHandle", 4010, Base, Ipc, passed];
            cuIpcOpenEventHandle (ph_event: *mut CUevent, handle: CUipcEventHandle) ["cuIpcOpenEventHandle", 4010, Base, Ipc, passed];
            cuIpcGetMemHandle (array: *mut CUipcMemHandle, dptr: CUdeviceptr) ["cuIpcGetMemHandle", 4010, Base, Ipc, passed];
            cuIpcOpenMemHandle (pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) ["cuIpcOpenMemHandle", 4010, Base, Ipc, passed];
            cuIpcOpenMemHandle_v2 (pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) ["cuIpcOpenMemHandle", 11000, Base, Ipc, passed];
            cuIpcCloseMemHandle (dptr: CUdeviceptr) ["cuIpcCloseMemHandle", 4010, Base, Ipc, passed];
            cuMemGetHandleForAddressRange (handle: *mut c_void, dptr: CUdeviceptr, size: usize, handle_type: CUenum, flags: u64) ["cuMemGetHandleForAddressRange", 11070, Base, Ipc, passed];
            cuMemExportToShareableHandle (shareable_handle: *mut c_void, handle: u64, handle_type: CUenum, flags: u64) ["cuMemExportToShareableHandle", 10020, Base, Ipc, hooked];
            cuMemImportFromShareableHandle (handle: *mut u64, os_handle: *mut c_void, sh_handle_type: CUenum) ["cuMemImportFromShareableHandle", 10020, Base, Ipc, hooked];
            cuMemPoolExportToShareableHandle (handle_out: *mut c_void, pool: CUmemoryPool, handle_type: CUenum, flags: u64) ["cuMemPoolExportToShareableHandle", 11020, Base, Ipc, passed];
            cuMemPoolImportFromShareableHandle (pool_out: *mut CUmemoryPool, handle: *mut c_void, handle_type: CUenum, flags: u64) ["cuMemPoolImportFromShareableHandle", 11020, Base, Ipc, passed];
            cuMemPoolExportPointer (share_data_out: *mut CUmemPoolPtrExportData, ptr: CUdeviceptr) ["cuMemPoolExportPointer", 11020, Base, Ipc, passed];
            cuMemPoolImportPointer (ptr_out: *mut CUdeviceptr, pool: CUmemoryPool, share_data: *mut CUmemPoolPtrExportData) ["cuMemPoolImportPointer", 11020, Base, Ipc, passed];

            // Memory of other programming interfaces.
            cuImportExternalMemory (ext_mem_out: *mut CUexternalMemory, mem_handle_desc: *const CUDA_EXTERNAL_MEMORY_HANDLE_DESC) ["cuImportExternalMemory", 10000, Base, External, passed];
            cuExternalMemoryGetMappedBuffer (dev_ptr: *mut CUdeviceptr, ext_mem: CUexternalMemory, buffer_desc: *const CUDA_EXTERNAL_MEMORY_BUFFER_DESC) ["cuExternalMemoryGetMappedBuffer", 10000, Base, External, passed];
            cuExternalMemoryGetMappedMipmappedArray (mipmap: *mut CUmipmappedArray, ext_mem: CUexternalMemory, mipmap_desc: *const c_void) ["cuExternalMemoryGetMappedMipmappedArray", 10000, Base, External, passed];
            cuDestroyExternalMemory (ext_mem: CUexternalMemory) ["cuDestroyExternalMemory", 10000, Base, External, passed];
            cuImportExternalSemaphore (ext_sem_out: *mut CUexternalSemaphore, sem_handle_desc: *const c_void) ["cuImportExternalSemaphore", 10000, Base, External, passed];
            cuSignalExternalSemaphoresAsync (ext_sem_array: *const CUexternalSemaphore, params_array: *const c_void, num_ext_sems: c_uint, stream: CUstream) ["cuSignalExternalSemaphoresAsync", 10000, Base, External, passed];
            cuSignalExternalSemaphoresAsync_ptsz (ext_sem_array: *const CUexternalSemaphore, params_array: *const c_void, num_ext_sems: c_uint, stream: CUstream) ["cuSignalExternalSemaphoresAsync", 10000, PerThread, External, passed];
            cuWaitExternalSemaphoresAsync (ext_sem_array: *const CUexternalSemaphore, params_array: *const c_void, num_ext_sems: c_uint, stream: CUstream) ["cuWaitExternalSemaphoresAsync", 10000, Base, External, passed];
            cuWaitExternalSemaphoresAsync_ptsz (ext_sem_array: *const CUexternalSemaphore, params_array: *const c_void, num_ext_sems: c_uint, stream: CUstream) ["cuWaitExternalSemaphoresAsync", 10000, PerThread, External, passed];
            cuDestroyExternalSemaphore (ext_sem: CUexternalSemaphore) ["cuDestroyExternalSemaphore", 10000, Base, External, passed];

            // Host memory.
            cuMemAllocHost (pp: *mut *mut c_void, bytes: c_uint) ["cuMemAllocHost", 2000, Base, HostMemory, passed];
            cuMemAllocHost_v2 (ptr: *mut *mut c_void, bytes: usize) ["cuMemAllocHost", 3020, Base, HostMemory, passed];
            cuMemFreeHost (ptr: *mut c_void) ["cuMemFreeHost", 2000, Base, HostMemory, passed];
            cuMemHostAlloc (ptr: *mut *mut c_void, bytes: usize, flags: c_uint) ["cuMemHostAlloc", 2020, Base, HostMemory, passed];
            cuMemHostGetDevicePointer (pdptr: *mut u32, p: *mut c_void, flags: c_uint) ["cuMemHostGetDevicePointer", 2020, Base, HostMemory, passed];
            cuMemHostGetDevicePointer_v2 (dptr: *mut CUdeviceptr, ptr: *mut c_void, flags: c_uint) ["cuMemHostGetDevicePointer", 3020, Base, HostMemory, passed];
            cuMemHostGetFlags (flags: *mut c_uint, ptr: *mut c_void) ["cuMemHostGetFlags", 2030, Base, HostMemory, passed];
            cuMemHostRegister (p: *mut c_void, bytes: usize, flags: c_uint) ["cuMemHostRegister", 4000, Base, HostMemory, passed];
            cuMemHostRegister_v2 (ptr: *mut c_void, bytes: usize, flags: c_uint) ["cuMemHostRegister", 6050, Base, HostMemory, passed];
            cuMemHostUnregister (ptr: *mut c_void) ["cuMemHostUnregister", 4000, Base, HostMemory, passed];
        }
    };
}
