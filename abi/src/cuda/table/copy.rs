//! Rows of the table: copies and fills.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_copy {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $crate::cuda_rows_launch! { [$visit] [$($context)*] $($before)*
            // Copies that wait for the device.
            cuMemcpy (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpy", 4000, Base, SynchronousCopy, hooked];
            cuMemcpy_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpy", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyPeer (dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext, bytes: usize) ["cuMemcpyPeer", 4000, Base, SynchronousCopy, passed];
            cuMemcpyPeer_ptds (dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext, bytes: usize) ["cuMemcpyPeer", 7000, PerThread, SynchronousCopy, passed];
            cuMemcpyHtoD (dst_device: u32, src_host: *const c_void, bytes: c_uint) ["cuMemcpyHtoD", 2000, Base, SynchronousCopy, passed];
            cuMemcpyHtoD_v2 (dst: CUdeviceptr, src: *const c_void, bytes: usize) ["cuMemcpyHtoD", 3020, Base, SynchronousCopy, hooked];
            cuMemcpyHtoD_v2_ptds (dst: CUdeviceptr, src: *const c_void, bytes: usize) ["cuMemcpyHtoD", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyDtoH (dst_host: *mut c_void, src_device: u32, bytes: c_uint) ["cuMemcpyDtoH", 2000, Base, SynchronousCopy, passed];
            cuMemcpyDtoH_v2 (dst: *mut c_void, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoH", 3020, Base, SynchronousCopy, hooked];
            cuMemcpyDtoH_v2_ptds (dst: *mut c_void, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoH", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpyHtoA (dst_array: CUarray, dst_offset: c_uint, src_host: *const c_void, bytes: c_uint) ["cuMemcpyHtoA", 2000, Base, SynchronousCopy, passed];
            cuMemcpyHtoA_v2 (dst_array: CUarray, dst_offset: usize, src_host: *const c_void, bytes: usize) ["cuMemcpyHtoA", 3020, Base, SynchronousCopy, passed];
            cuMemcpyHtoA_v2_ptds (dst_array: CUarray, dst_offset: usize, src_host: *const c_void, bytes: usize) ["cuMemcpyHtoA", 7000, PerThread, SynchronousCopy, passed];
            cuMemcpyAtoH (dst_host: *mut c_void, src_array: CUarray, src_offset: c_uint, bytes: c_uint) ["cuMemcpyAtoH", 2000, Base, SynchronousCopy, passed];
            cuMemcpyAtoH_v2 (dst_host: *mut c_void, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoH", 3020, Base, SynchronousCopy, passed];
            cuMemcpyAtoH_v2_ptds (dst_host: *mut c_void, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoH", 7000, PerThread, SynchronousCopy, passed];
            cuMemcpy2D (p_copy: *const c_void) ["cuMemcpy2D", 2000, Base, SynchronousCopy, passed];
            cuMemcpy2D_v2 (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2D", 3020, Base, SynchronousCopy, hooked];
            cuMemcpy2D_v2_ptds (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2D", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpy2DUnaligned (p_copy: *const c_void) ["cuMemcpy2DUnaligned", 2000, Base, SynchronousCopy, passed];
            cuMemcpy2DUnaligned_v2 (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2DUnaligned", 3020, Base, SynchronousCopy, hooked];
            cuMemcpy2DUnaligned_v2_ptds (copy: *const CUDA_MEMCPY2D) ["cuMemcpy2DUnaligned", 7000, PerThread, SynchronousCopy, hooked];
            cuMemcpy3D (p_copy: *const c_void) ["cuMemcpy3D", 2000, Base, SynchronousCopy, passed];
            cuMemcpy3D_v2 (p_copy: *const CUDA_MEMCPY3D) ["cuMemcpy3D", 3020, Base, SynchronousCopy, passed];
            cuMemcpy3D_v2_ptds (p_copy: *const CUDA_MEMCPY3D) ["cuMemcpy3D", 7000, PerThread, SynchronousCopy, passed];
            cuMemcpy3DPeer (p_copy: *const CUDA_MEMCPY3D_PEER) ["cuMemcpy3DPeer", 4000, Base, SynchronousCopy, passed];
            cuMemcpy3DPeer_ptds (p_copy: *const CUDA_MEMCPY3D_PEER) ["cuMemcpy3DPeer", 7000, PerThread, SynchronousCopy, passed];

            // Copies and fills in stream order.
            cuMemcpyDtoD (dst_device: u32, src_device: u32, bytes: c_uint) ["cuMemcpyDtoD", 2000, Base, Copy, passed];
            cuMemcpyDtoD_v2 (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoD", 3020, Base, Copy, passed];
            cuMemcpyDtoD_v2_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) ["cuMemcpyDtoD", 7000, PerThread, Copy, passed];
            cuMemcpyDtoA (dst_array: CUarray, dst_offset: c_uint, src_device: u32, bytes: c_uint) ["cuMemcpyDtoA", 2000, Base, Copy, passed];
            cuMemcpyDtoA_v2 (dst_array: CUarray, dst_offset: usize, src_device: CUdeviceptr, bytes: usize) ["cuMemcpyDtoA", 3020, Base, Copy, passed];
            cuMemcpyDtoA_v2_ptds (dst_array: CUarray, dst_offset: usize, src_device: CUdeviceptr, bytes: usize) ["cuMemcpyDtoA", 7000, PerThread, Copy, passed];
            cuMemcpyAtoD (dst_device: u32, src_array: CUarray, src_offset: c_uint, bytes: c_uint) ["cuMemcpyAtoD", 2000, Base, Copy, passed];
            cuMemcpyAtoD_v2 (dst_device: CUdeviceptr, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoD", 3020, Base, Copy, passed];
            cuMemcpyAtoD_v2_ptds (dst_device: CUdeviceptr, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoD", 7000, PerThread, Copy, passed];
            cuMemcpyAtoA (dst_array: CUarray, dst_offset: c_uint, src_array: CUarray, src_offset: c_uint, bytes: c_uint) ["cuMemcpyAtoA", 2000, Base, Copy, passed];
            cuMemcpyAtoA_v2 (dst_array: CUarray, dst_offset: usize, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoA", 3020, Base, Copy, passed];
            cuMemcpyAtoA_v2_ptds (dst_array: CUarray, dst_offset: usize, src_array: CUarray, src_offset: usize, bytes: usize) ["cuMemcpyAtoA", 7000, PerThread, Copy, passed];
            cuMemcpyAsync (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyAsync", 4000, Base, Copy, passed];
            cuMemcpyAsync_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyAsync", 7000, PerThread, Copy, passed];
            cuMemcpyPeerAsync (dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext, bytes: usize, stream: CUstream) ["cuMemcpyPeerAsync", 4000, Base, Copy, passed];
            cuMemcpyPeerAsync_ptsz (dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext, bytes: usize, stream: CUstream) ["cuMemcpyPeerAsync", 7000, PerThread, Copy, passed];
            cuMemcpyHtoDAsync (dst_device: u32, src_host: *const c_void, bytes: c_uint, stream: CUstream) ["cuMemcpyHtoDAsync", 2000, Base, Copy, passed];
            cuMemcpyHtoDAsync_v2 (dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoDAsync", 3020, Base, Copy, passed];
            cuMemcpyHtoDAsync_v2_ptsz (dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoDAsync", 7000, PerThread, Copy, passed];
            cuMemcpyDtoHAsync (dst_host: *mut c_void, src_device: u32, bytes: c_uint, stream: CUstream) ["cuMemcpyDtoHAsync", 2000, Base, Copy, passed];
            cuMemcpyDtoHAsync_v2 (dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoHAsync", 3020, Base, Copy, passed];
            cuMemcpyDtoHAsync_v2_ptsz (dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoHAsync", 7000, PerThread, Copy, passed];
            cuMemcpyDtoDAsync (dst_device: u32, src_device: u32, bytes: c_uint, stream: CUstream) ["cuMemcpyDtoDAsync", 3000, Base, Copy, passed];
            cuMemcpyDtoDAsync_v2 (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoDAsync", 3020, Base, Copy, passed];
            cuMemcpyDtoDAsync_v2_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) ["cuMemcpyDtoDAsync", 7000, PerThread, Copy, passed];
            cuMemcpyHtoAAsync (dst_array: CUarray, dst_offset: c_uint, src_host: *const c_void, bytes: c_uint, stream: CUstream) ["cuMemcpyHtoAAsync", 2000, Base, Copy, passed];
            cuMemcpyHtoAAsync_v2 (dst_array: CUarray, dst_offset: usize, src_host: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoAAsync", 3020, Base, Copy, passed];
            cuMemcpyHtoAAsync_v2_ptsz (dst_array: CUarray, dst_offset: usize, src_host: *const c_void, bytes: usize, stream: CUstream) ["cuMemcpyHtoAAsync", 7000, PerThread, Copy, passed];
            cuMemcpyAtoHAsync (dst_host: *mut c_void, src_array: CUarray, src_offset: c_uint, bytes: c_uint, stream: CUstream) ["cuMemcpyAtoHAsync", 2000, Base, Copy, passed];
            cuMemcpyAtoHAsync_v2 (dst_host: *mut c_void, src_array: CUarray, src_offset: usize, bytes: usize, stream: CUstream) ["cuMemcpyAtoHAsync", 3020, Base, Copy, passed];
            cuMemcpyAtoHAsync_v2_ptsz (dst_host: *mut c_void, src_array: CUarray, src_offset: usize, bytes: usize, stream: CUstream) ["cuMemcpyAtoHAsync", 7000, PerThread, Copy, passed];
            cuMemcpy2DAsync (p_copy: *const c_void, stream: CUstream) ["cuMemcpy2DAsync", 2000, Base, Copy, passed];
            cuMemcpy2DAsync_v2 (copy: *const CUDA_MEMCPY2D, stream: CUstream) ["cuMemcpy2DAsync", 3020, Base, Copy, passed];
            cuMemcpy2DAsync_v2_ptsz (copy: *const CUDA_MEMCPY2D, stream: CUstream) ["cuMemcpy2DAsync", 7000, PerThread, Copy, passed];
            cuMemcpy3DAsync (p_copy: *const c_void, stream: CUstream) ["cuMemcpy3DAsync", 2000, Base, Copy, passed];
            cuMemcpy3DAsync_v2 (p_copy: *const CUDA_MEMCPY3D, stream: CUstream) ["cuMemcpy3DAsync", 3020, Base, Copy, passed];
            cuMemcpy3DAsync_v2_ptsz (p_copy: *const CUDA_MEMCPY3D, stream: CUstream) ["cuMemcpy3DAsync", 7000, PerThread, Copy, passed];
            cuMemcpy3DPeerAsync (p_copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) ["cuMemcpy3DPeerAsync", 4000, Base, Copy, passed];
            cuMemcpy3DPeerAsync_ptsz (p_copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) ["cuMemcpy3DPeerAsync", 7000, PerThread, Copy, passed];
            cuMemcpyBatchAsync (dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut c_void, attrs_idxs: *mut usize, num_attrs: usize, fail_idx: *mut usize, stream: CUstream) ["cuMemcpyBatchAsync", 12080, Base, Copy, passed];
            cuMemcpyBatchAsync_ptsz (dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut c_void, attrs_idxs: *mut usize, num_attrs: usize, fail_idx: *mut usize, stream: CUstream) ["cuMemcpyBatchAsync", 12080, PerThread, Copy, passed];
            cuMemcpyBatchAsync_v2 (dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut c_void, attrs_idxs: *mut usize, num_attrs: usize, stream: CUstream) ["cuMemcpyBatchAsync", 13000, Base, Copy, passed];
            cuMemcpyBatchAsync_v2_ptsz (dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut c_void, attrs_idxs: *mut usize, num_attrs: usize, stream: CUstream) ["cuMemcpyBatchAsync", 13000, PerThread, Copy, passed];
            cuMemcpy3DBatchAsync (num_ops: usize, op_list: *mut c_void, fail_idx: *mut usize, flags: u64, stream: CUstream) ["cuMemcpy3DBatchAsync", 12080, Base, Copy, passed];
            cuMemcpy3DBatchAsync_ptsz (num_ops: usize, op_list: *mut c_void, fail_idx: *mut usize, flags: u64, stream: CUstream) ["cuMemcpy3DBatchAsync", 12080, PerThread, Copy, passed];
            cuMemcpy3DBatchAsync_v2 (num_ops: usize, op_list: *mut c_void, flags: u64, stream: CUstream) ["cuMemcpy3DBatchAsync", 13000, Base, Copy, passed];
            cuMemcpy3DBatchAsync_v2_ptsz (num_ops: usize, op_list: *mut c_void, flags: u64, stream: CUstream) ["cuMemcpy3DBatchAsync", 13000, PerThread, Copy, passed];
            cuMemcpyWithAttributesAsync (dst: CUdeviceptr, src: CUdeviceptr, size: usize, attr: *mut c_void, stream: CUstream) ["cuMemcpyWithAttributesAsync", 13020, Base, Copy, passed];
            cuMemcpyWithAttributesAsync_ptsz (dst: CUdeviceptr, src: CUdeviceptr, size: usize, attr: *mut c_void, stream: CUstream) ["cuMemcpyWithAttributesAsync", 13020, PerThread, Copy, passed];
            cuMemcpy3DWithAttributesAsync (op: *mut c_void, flags: u64, stream: CUstream) ["cuMemcpy3DWithAttributesAsync", 13020, Base, Copy, passed];
            cuMemcpy3DWithAttributesAsync_ptsz (op: *mut c_void, flags: u64, stream: CUstream) ["cuMemcpy3DWithAttributesAsync", 13020, PerThread, Copy, passed];
            cuMemsetD8 (dst_device: u32, uc: u8, n: c_uint) ["cuMemsetD8", 2000, Base, Copy, passed];
            cuMemsetD8_v2 (dst: CUdeviceptr, value: u8, count: usize) ["cuMemsetD8", 3020, Base, Copy, passed];
            cuMemsetD8_v2_ptds (dst: CUdeviceptr, value: u8, count: usize) ["cuMemsetD8", 7000, PerThread, Copy, passed];
            cuMemsetD16 (dst_device: u32, us: u16, n: c_uint) ["cuMemsetD16", 2000, Base, Copy, passed];
            cuMemsetD16_v2 (dst: CUdeviceptr, value: u16, count: usize) ["cuMemsetD16", 3020, Base, Copy, passed];
            cuMemsetD16_v2_ptds (dst: CUdeviceptr, value: u16, count: usize) ["cuMemsetD16", 7000, PerThread, Copy, passed];
            cuMemsetD32 (dst_device: u32, ui: c_uint, n: c_uint) ["cuMemsetD32", 2000, Base, Copy, passed];
            cuMemsetD32_v2 (dst: CUdeviceptr, value: u32, count: usize) ["cuMemsetD32", 3020, Base, Copy, passed];
            cuMemsetD32_v2_ptds (dst: CUdeviceptr, value: u32, count: usize) ["cuMemsetD32", 7000, PerThread, Copy, passed];
            cuMemsetD2D8 (dst_device: u32, dst_pitch: c_uint, uc: u8, width: c_uint, height: c_uint) ["cuMemsetD2D8", 2000, Base, Copy, passed];
            cuMemsetD2D8_v2 (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) ["cuMemsetD2D8", 3020, Base, Copy, passed];
            cuMemsetD2D8_v2_ptds (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) ["cuMemsetD2D8", 7000, PerThread, Copy, passed];
            cuMemsetD2D16 (dst_device: u32, dst_pitch: c_uint, us: u16, width: c_uint, height: c_uint) ["cuMemsetD2D16", 2000, Base, Copy, passed];
            cuMemsetD2D16_v2 (dst_device: CUdeviceptr, dst_pitch: usize, us: u16, width: usize, height: usize) ["cuMemsetD2D16", 3020, Base, Copy, passed];
            cuMemsetD2D16_v2_ptds (dst_device: CUdeviceptr, dst_pitch: usize, us: u16, width: usize, height: usize) ["cuMemsetD2D16", 7000, PerThread, Copy, passed];
            cuMemsetD2D32 (dst_device: u32, dst_pitch: c_uint, ui: c_uint, width: c_uint, height: c_uint) ["cuMemsetD2D32", 2000, Base, Copy, passed];
            cuMemsetD2D32_v2 (dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize) ["cuMemsetD2D32", 3020, Base, Copy, passed];
            cuMemsetD2D32_v2_ptds (dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize) ["cuMemsetD2D32", 7000, PerThread, Copy, passed];
            cuMemsetD8Async (dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) ["cuMemsetD8Async", 3020, Base, Copy, passed];
            cuMemsetD8Async_ptsz (dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) ["cuMemsetD8Async", 7000, PerThread, Copy, passed];
            cuMemsetD16Async (dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) ["cuMemsetD16Async", 3020, Base, Copy, passed];
            cuMemsetD16Async_ptsz (dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) ["cuMemsetD16Async", 7000, PerThread, Copy, passed];
            cuMemsetD32Async (dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) ["cuMemsetD32Async", 3020, Base, Copy, passed];
            cuMemsetD32Async_ptsz (dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) ["cuMemsetD32Async", 7000, PerThread, Copy, passed];
            cuMemsetD2D8Async (dst_device: CUdeviceptr, dst_pitch: usize, uc: u8, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D8Async", 3020, Base, Copy, passed];
            cuMemsetD2D8Async_ptsz (dst_device: CUdeviceptr, dst_pitch: usize, uc: u8, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D8Async", 7000, PerThread, Copy, passed];
            cuMemsetD2D16Async (dst_device: CUdeviceptr, dst_pitch: usize, us: u16, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D16Async", 3020, Base, Copy, passed];
            cuMemsetD2D16Async_ptsz (dst_device: CUdeviceptr, dst_pitch: usize, us: u16, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D16Async", 7000, PerThread, Copy, passed];
            cuMemsetD2D32Async (dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D32Async", 3020, Base, Copy, passed];
            cuMemsetD2D32Async_ptsz (dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize, stream: CUstream) ["cuMemsetD2D32Async", 7000, PerThread, Copy, passed];
            cuMemBatchDecompressAsync (params_array: *mut c_void, count: usize, flags: c_uint, error_index: *mut usize, stream: CUstream) ["cuMemBatchDecompressAsync", 12060, Base, Copy, passed];
            cuMemBatchDecompressAsync_ptsz (params_array: *mut c_void, count: usize, flags: c_uint, error_index: *mut usize, stream: CUstream) ["cuMemBatchDecompressAsync", 12060, PerThread, Copy, passed];
            cuFabricCpyBatchAsync (num_ops: usize, op_list: *mut c_void, flags: u64, stream: CUstream) ["cuFabricCpyBatchAsync", 13050, Base, Copy, passed];
            cuFabricCpyBatchAsync_ptsz (num_ops: usize, op_list: *mut c_void, flags: u64, stream: CUstream) ["cuFabricCpyBatchAsync", 13050, PerThread, Copy, passed];
        }
    };
}
