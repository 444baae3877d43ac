//! The structures through which `cuda.h` describes memory and graph nodes. Layouts are asserted at the end.

#![allow(non_snake_case, reason = "field names are those of cuda.h, so that the two can be compared by eye")]

use core::ffi::{c_int, c_uint, c_void};

use super::types::{
    CUarray, CUcontext, CUdeviceptr, CUenum, CUfunction, CUgraphNode, CUkernel, CUstream,
    CUstreamBatchMemOpParams,
};

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

structures! {
    /// `CUmemLocation`: where memory lies. `id` is read by type: a device's ordinal or a NUMA node.
    CUmemLocation = 8 {
        /// `CUmemLocationType`.
        kind: CUenum,
        /// Device ordinal or NUMA node.
        id: c_int,
    }

    /// `CUmemAccessDesc`: who may do what.
    CUmemAccessDesc = 12 {
        /// Who.
        location: CUmemLocation,
        /// `CUmemAccess_flags`.
        flags: CUenum,
    }

    /// `CUmemAllocationProp`: what physical memory is asked for.
    CUmemAllocationProp = 32 {
        /// `CUmemAllocationType`.
        kind: CUenum,
        /// Bit set of `CUmemAllocationHandleType` it shall be exportable as.
        requestedHandleTypes: CUenum,
        /// Where.
        location: CUmemLocation,
        /// Of no meaning on Linux.
        win32HandleMetaData: *mut c_void,
        /// Compression wanted.
        compressionType: u8,
        /// Usable for peer-to-peer transfers of other devices.
        gpuDirectRDMACapable: u8,
        /// Bit set of intended uses.
        usage: u16,
        /// Must be zero.
        reserved: [u8; 4],
    }

    /// `CUmemPoolProps`: what pool is asked for.
    CUmemPoolProps = 88 {
        /// `CUmemAllocationType`.
        allocType: CUenum,
        /// Bit set of `CUmemAllocationHandleType` it shall be exportable as.
        handleTypes: CUenum,
        /// Where.
        location: CUmemLocation,
        /// Of no meaning on Linux.
        win32SecurityAttributes: *mut c_void,
        /// Most bytes, 0 for the system's own limit.
        maxSize: usize,
        /// Bit set of intended uses.
        usage: u16,
        /// Usable for peer-to-peer transfers of other devices.
        gpuDirectRDMACapable: u8,
        /// Must be zero.
        reserved: [u8; 53],
    }

    /// `CUmemPoolPtrExportData`: an allocation of a pool, for another process.
    CUmemPoolPtrExportData = 64 {
        /// Opaque.
        reserved: [u8; 64],
    }

    /// `CUipcMemHandle`: an allocation, for another process.
    CUipcMemHandle = 64 {
        /// Opaque.
        reserved: [u8; 64],
    }

    /// `CUipcEventHandle`: an event, for another process.
    CUipcEventHandle = 64 {
        /// Opaque.
        reserved: [u8; 64],
    }

    /// `CUmulticastObjectProp`: what multicast object is asked for.
    CUmulticastObjectProp = 32 {
        /// Devices in the team.
        numDevices: c_uint,
        /// Most bytes that each device may bind.
        size: usize,
        /// Bit set of `CUmemAllocationHandleType` it shall be exportable as.
        handleTypes: u64,
        /// Must be zero.
        flags: u64,
    }

    /// `CUDA_ARRAY_DESCRIPTOR`.
    CUDA_ARRAY_DESCRIPTOR = 24 {
        /// Elements in a row.
        Width: usize,
        /// Rows; 0 for a one-dimensional array.
        Height: usize,
        /// `CUarray_format`.
        Format: CUenum,
        /// Channels of an element: 1, 2 or 4.
        NumChannels: c_uint,
    }

    /// `CUDA_ARRAY_DESCRIPTOR_v1`.
    CUDA_ARRAY_DESCRIPTOR_v1 = 16 {
        /// Elements in a row.
        Width: c_uint,
        /// Rows; 0 for a one-dimensional array.
        Height: c_uint,
        /// `CUarray_format`.
        Format: CUenum,
        /// Channels of an element: 1, 2 or 4.
        NumChannels: c_uint,
    }

    /// `CUDA_ARRAY3D_DESCRIPTOR`.
    CUDA_ARRAY3D_DESCRIPTOR = 40 {
        /// Elements in a row.
        Width: usize,
        /// Rows; 0 for a one-dimensional array.
        Height: usize,
        /// Slices or layers; 0 for at most two dimensions.
        Depth: usize,
        /// `CUarray_format`.
        Format: CUenum,
        /// Channels of an element: 1, 2 or 4.
        NumChannels: c_uint,
        /// `CUDA_ARRAY3D_*` bits.
        Flags: c_uint,
    }

    /// `CUDA_ARRAY3D_DESCRIPTOR_v1`.
    CUDA_ARRAY3D_DESCRIPTOR_v1 = 24 {
        /// Elements in a row.
        Width: c_uint,
        /// Rows; 0 for a one-dimensional array.
        Height: c_uint,
        /// Slices or layers; 0 for at most two dimensions.
        Depth: c_uint,
        /// `CUarray_format`.
        Format: CUenum,
        /// Channels of an element: 1, 2 or 4.
        NumChannels: c_uint,
        /// `CUDA_ARRAY3D_*` bits.
        Flags: c_uint,
    }

    /// `CUDA_ARRAY_MEMORY_REQUIREMENTS`.
    CUDA_ARRAY_MEMORY_REQUIREMENTS = 32 {
        /// Bytes the array takes.
        size: usize,
        /// Alignment it needs.
        alignment: usize,
        /// Zero.
        reserved: [c_uint; 4],
    }

    /// `CUDA_MEMCPY3D`.
    CUDA_MEMCPY3D = 200 {
        /// Source X in bytes.
        srcXInBytes: usize,
        /// Source Y.
        srcY: usize,
        /// Source Z.
        srcZ: usize,
        /// Source level of detail; must be 0.
        srcLOD: usize,
        /// `CUmemorytype` of the source.
        srcMemoryType: CUenum,
        /// Source address when host.
        srcHost: *const c_void,
        /// Source address when device.
        srcDevice: CUdeviceptr,
        /// Source array when array.
        srcArray: CUarray,
        /// Must be null.
        reserved0: *mut c_void,
        /// Source pitch in bytes (ignored for arrays).
        srcPitch: usize,
        /// Source height in rows (ignored for arrays and where the depth is 1).
        srcHeight: usize,
        /// Destination X in bytes.
        dstXInBytes: usize,
        /// Destination Y.
        dstY: usize,
        /// Destination Z.
        dstZ: usize,
        /// Destination level of detail; must be 0.
        dstLOD: usize,
        /// `CUmemorytype` of the destination.
        dstMemoryType: CUenum,
        /// Destination address when host.
        dstHost: *mut c_void,
        /// Destination address when device.
        dstDevice: CUdeviceptr,
        /// Destination array when array.
        dstArray: CUarray,
        /// Must be null.
        reserved1: *mut c_void,
        /// Destination pitch in bytes (ignored for arrays).
        dstPitch: usize,
        /// Destination height in rows (ignored for arrays and where the depth is 1).
        dstHeight: usize,
        /// Width of the copy in bytes.
        WidthInBytes: usize,
        /// Height of the copy in rows.
        Height: usize,
        /// Depth of the copy in slices.
        Depth: usize,
    }

    /// `CUDA_MEMCPY3D_PEER`: as [`CUDA_MEMCPY3D`], with contexts in the place of the words that must be null.
    CUDA_MEMCPY3D_PEER = 200 {
        /// The copy; `reserved0` and `reserved1` are the contexts of source and destination.
        copy: CUDA_MEMCPY3D,
    }

    /// `CUDA_EXTERNAL_MEMORY_HANDLE_DESC`.
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC = 104 {
        /// `CUexternalMemoryHandleType`.
        kind: CUenum,
        /// The first word of the handle: the file descriptor, where the type is one.
        handle: u64,
        /// The second word of the handle.
        name: u64,
        /// Bytes of the memory object.
        size: u64,
        /// `CUDA_EXTERNAL_MEMORY_DEDICATED` or 0.
        flags: c_uint,
        /// Must be zero.
        reserved: [c_uint; 16],
    }

    /// `CUDA_EXTERNAL_MEMORY_BUFFER_DESC`.
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC = 88 {
        /// Where in the memory object the buffer begins.
        offset: u64,
        /// Bytes of the buffer.
        size: u64,
        /// Must be zero.
        flags: c_uint,
        /// Must be zero.
        reserved: [c_uint; 16],
    }

    /// `CUDA_LAUNCH_PARAMS`: one device's part of a cooperative launch over several.
    CUDA_LAUNCH_PARAMS = 56 {
        /// What to launch.
        function: CUfunction,
        /// Width of the grid in blocks.
        gridDimX: c_uint,
        /// Height of the grid in blocks.
        gridDimY: c_uint,
        /// Depth of the grid in blocks.
        gridDimZ: c_uint,
        /// X dimension of each block in threads.
        blockDimX: c_uint,
        /// Y dimension of each block in threads.
        blockDimY: c_uint,
        /// Z dimension of each block in threads.
        blockDimZ: c_uint,
        /// Dynamic shared memory of each block, in bytes.
        sharedMemBytes: c_uint,
        /// Stream to launch in.
        hStream: CUstream,
        /// Addresses of the parameters.
        kernelParams: *mut *mut c_void,
    }

    /// `CUDA_KERNEL_NODE_PARAMS_v1`.
    CUDA_KERNEL_NODE_PARAMS_v1 = 56 {
        /// What to launch.
        func: CUfunction,
        /// Width of the grid in blocks.
        gridDimX: c_uint,
        /// Height of the grid in blocks.
        gridDimY: c_uint,
        /// Depth of the grid in blocks.
        gridDimZ: c_uint,
        /// X dimension of each block in threads.
        blockDimX: c_uint,
        /// Y dimension of each block in threads.
        blockDimY: c_uint,
        /// Z dimension of each block in threads.
        blockDimZ: c_uint,
        /// Dynamic shared memory of each block, in bytes.
        sharedMemBytes: c_uint,
        /// Addresses of the parameters, or null.
        kernelParams: *mut *mut c_void,
        /// Packed parameters, or null.
        extra: *mut *mut c_void,
    }

    /// `CUDA_KERNEL_NODE_PARAMS_v2` and `_v3`.
    CUDA_KERNEL_NODE_PARAMS = 72 {
        /// As in the first form. Null where `kern` says what to launch.
        launch: CUDA_KERNEL_NODE_PARAMS_v1,
        /// What to launch, where `func` is null.
        kern: CUkernel,
        /// Context to launch it in, null for the current one.
        ctx: CUcontext,
    }

    /// `CUDA_MEMSET_NODE_PARAMS_v1`.
    CUDA_MEMSET_NODE_PARAMS = 40 {
        /// First address.
        dst: CUdeviceptr,
        /// Bytes from row to row; not read for one row.
        pitch: usize,
        /// What to write.
        value: c_uint,
        /// Bytes of an element: 1, 2 or 4.
        elementSize: c_uint,
        /// Elements in a row.
        width: usize,
        /// Rows.
        height: usize,
    }

    /// `CUDA_HOST_NODE_PARAMS_v1`.
    CUDA_HOST_NODE_PARAMS = 16 {
        /// Function to call.
        call: *mut c_void,
        /// Its argument.
        userData: *mut c_void,
    }

    /// `CUDA_BATCH_MEM_OP_NODE_PARAMS`.
    CUDA_BATCH_MEM_OP_NODE_PARAMS = 32 {
        /// Context to work in.
        ctx: CUcontext,
        /// Number of operations.
        count: c_uint,
        /// The operations.
        paramArray: *mut CUstreamBatchMemOpParams,
        /// Must be zero.
        flags: c_uint,
    }

    /// `CUDA_MEM_ALLOC_NODE_PARAMS`.
    CUDA_MEM_ALLOC_NODE_PARAMS = 120 {
        /// Where the memory shall be.
        poolProps: CUmemPoolProps,
        /// Who else may use it.
        accessDescs: *const CUmemAccessDesc,
        /// Number of those.
        accessDescCount: usize,
        /// Bytes asked for.
        bytesize: usize,
        /// Set by the driver: the address.
        dptr: CUdeviceptr,
    }

    /// `CUgraphNodeParams`: any node, by type.
    CUgraphNodeParams = 256 {
        /// `CUgraphNodeType`.
        kind: CUenum,
        /// Must be zero.
        reserved0: [c_int; 3],
        /// The parameters of that type.
        payload: [u64; 29],
        /// Must be zero.
        reserved2: i64,
    }

    /// `CUgraphEdgeData`.
    CUgraphEdgeData = 8 {
        /// When the edge fires, in the words of the node it comes from.
        from_port: u8,
        /// What it holds back, in the words of the node it goes to.
        to_port: u8,
        /// `CUgraphDependencyType`.
        kind: u8,
        /// Must be zero.
        reserved: [u8; 5],
    }

    /// `CUgraphExecUpdateResultInfo`.
    CUgraphExecUpdateResultInfo = 24 {
        /// `CUgraphExecUpdateResult`.
        result: CUenum,
        /// The node at fault.
        errorNode: CUgraphNode,
        /// Where the edge at fault comes from.
        errorFromNode: CUgraphNode,
    }

    /// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
    CUDA_GRAPH_INSTANTIATE_PARAMS = 32 {
        /// `CUgraphInstantiate_flags`.
        flags: u64,
        /// Stream to upload in.
        hUploadStream: CUstream,
        /// Set by the driver: the node at fault.
        hErrNode_out: CUgraphNode,
        /// Set by the driver: `CUgraphInstantiateResult`.
        result_out: CUenum,
    }
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
pub const CU_MEM_LOCATION_TYPE_DEVICE: CUenum = 1;
/// `CU_MEM_LOCATION_TYPE_HOST`.
pub const CU_MEM_LOCATION_TYPE_HOST: CUenum = 2;
/// `CU_MEM_LOCATION_TYPE_HOST_NUMA`.
pub const CU_MEM_LOCATION_TYPE_HOST_NUMA: CUenum = 3;
/// `CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT`.
pub const CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT: CUenum = 4;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
pub const CU_MEM_ALLOCATION_TYPE_PINNED: CUenum = 1;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub const CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR: CUenum = 1;
/// `CU_GRAPH_NODE_TYPE_MEM_ALLOC`.
pub const CU_GRAPH_NODE_TYPE_MEM_ALLOC: CUenum = 10;
/// `CU_GRAPH_NODE_TYPE_MEM_FREE`.
pub const CU_GRAPH_NODE_TYPE_MEM_FREE: CUenum = 11;
/// `CUDA_ARRAY3D_LAYERED`.
pub const CUDA_ARRAY3D_LAYERED: c_uint = 0x1;
/// `CUDA_ARRAY3D_CUBEMAP`.
pub const CUDA_ARRAY3D_CUBEMAP: c_uint = 0x4;
/// `CUDA_ARRAY3D_SPARSE`: the array takes memory only where memory is mapped into it.
pub const CUDA_ARRAY3D_SPARSE: c_uint = 0x40;
/// `CUDA_ARRAY3D_DEFERRED_MAPPING`: the array takes memory when it is mapped.
pub const CUDA_ARRAY3D_DEFERRED_MAPPING: c_uint = 0x80;
