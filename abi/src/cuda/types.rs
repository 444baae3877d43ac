//! C types of the CUDA driver API (`cuda.h`), as thin as they can be.
//!
//! Enumerations are plain integers here: a newer driver or program may pass values this build has never heard
//! of, and they must travel through unchanged.

#![allow(non_snake_case, reason = "field names are those of cuda.h, so that the two can be compared by eye")]

use core::ffi::{c_int, c_uint, c_void};
use core::fmt;

/// Ordinal of a device as this process counts them.
pub type CUdevice = c_int;
/// Address in device memory.
pub type CUdeviceptr = u64;
/// Bit set or enumeration whose values pass through unread.
pub type CUenum = c_uint;

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub *mut c_void);

        impl $name {
            /// The null handle.
            pub const NULL: Self = Self(core::ptr::null_mut());

            /// Handle from its numeric value.
            #[must_use]
            pub const fn from_addr(addr: usize) -> Self { Self(core::ptr::without_provenance_mut(addr)) }

            /// Numeric value of the handle.
            #[must_use]
            pub fn addr(self) -> usize { self.0.addr() }

            /// Whether this is the null handle.
            #[must_use]
            pub fn is_null(self) -> bool { self.0.is_null() }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.addr())
            }
        }
    )*};
}

handles! {
    /// A context: one process's address space on one device.
    CUcontext;
    /// A stream: work in it runs in order.
    CUstream;
    /// An event: a mark in a stream.
    CUevent;
    /// A loaded module.
    CUmodule;
    /// A kernel of a module. From CUDA 13 on, callers also pass a [`CUkernel`] here.
    CUfunction;
    /// A library: a module independent of any context.
    CUlibrary;
    /// A kernel of a library.
    CUkernel;
    /// A memory pool for stream-ordered allocation.
    CUmemoryPool;
    /// A graph under construction.
    CUgraph;
    /// A graph made ready to launch.
    CUgraphExec;
    /// A node of a graph.
    CUgraphNode;
    /// A host object whose life a graph may share.
    CUuserObject;
    /// An array: memory laid out for textures and surfaces.
    CUarray;
    /// An array at several levels of detail.
    CUmipmappedArray;
    /// A context that owns a share of the SMs.
    CUgreenCtx;
    /// Such a share, described.
    CUdevResourceDesc;
    /// Memory of another programming interface.
    CUexternalMemory;
    /// A semaphore of another programming interface.
    CUexternalSemaphore;
    /// A resource shared with graphics.
    CUgraphicsResource;
    /// A texture reference.
    CUtexref;
    /// A surface reference.
    CUsurfref;
    /// A link of several code objects under way.
    CUlinkState;
}

pub use super::descriptors::*;

/// The legacy default stream's explicit handle (`CU_STREAM_LEGACY`).
pub const CU_STREAM_LEGACY: usize = 0x1;
/// The per-thread default stream's explicit handle (`CU_STREAM_PER_THREAD`).
pub const CU_STREAM_PER_THREAD: usize = 0x2;

/// 16-byte device identity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CUuuid {
    /// The bytes in the order of the text form.
    pub bytes: [u8; 16],
}

/// `CUlaunchConfig`: what `cuLaunchKernelEx` takes in place of separate arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUlaunchConfig {
    /// Width of the grid in blocks.
    pub gridDimX: c_uint,
    /// Height of the grid in blocks.
    pub gridDimY: c_uint,
    /// Depth of the grid in blocks.
    pub gridDimZ: c_uint,
    /// X dimension of each block in threads.
    pub blockDimX: c_uint,
    /// Y dimension of each block in threads.
    pub blockDimY: c_uint,
    /// Z dimension of each block in threads.
    pub blockDimZ: c_uint,
    /// Dynamic shared memory of each block, in bytes.
    pub sharedMemBytes: c_uint,
    /// Stream to launch in.
    pub hStream: CUstream,
    /// `numAttrs` attributes of 72 bytes each, or null.
    pub attrs: *mut CUlaunchAttribute,
    /// Number of attributes.
    pub numAttrs: c_uint,
}

/// `CUlaunchAttribute`: an identifier and a 64-byte value.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct CUlaunchAttribute {
    /// Which attribute (`CUlaunchAttributeID`).
    pub id: c_uint,
    /// Padding of the C structure.
    pub pad: [u8; 4],
    /// The value, by identifier.
    pub value: [u8; 64],
}

/// `CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
pub const CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// One entry of `cuStreamBatchMemOp`: a 48-byte union whose first word says which member it is.
///
/// ```text
///  0 u32 operation   8 u64 address   16 u32/u64 value   24 u32 flags   32 u64 alias   40 u64 (unused)
/// ```
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CUstreamBatchMemOpParams {
    /// `CUstreamBatchMemOpType`.
    pub operation: c_uint,
    /// Padding of the C structure.
    pub pad0: c_uint,
    /// Address the operation reads or writes.
    pub address: CUdeviceptr,
    /// 32-bit operations use the low half.
    pub value: u64,
    /// Wait or write flags.
    pub flags: c_uint,
    /// Padding of the C structure.
    pub pad1: c_uint,
    /// Driver-private.
    pub alias: CUdeviceptr,
    /// Rest of the union.
    pub pad2: u64,
}

/// `CU_STREAM_MEM_OP_WAIT_VALUE_32`.
pub const CU_STREAM_MEM_OP_WAIT_VALUE_32: c_uint = 1;
/// `CU_STREAM_MEM_OP_WRITE_VALUE_32`.
pub const CU_STREAM_MEM_OP_WRITE_VALUE_32: c_uint = 2;
/// `CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES`.
pub const CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES: c_uint = 3;
/// `CU_STREAM_MEM_OP_WAIT_VALUE_64`.
pub const CU_STREAM_MEM_OP_WAIT_VALUE_64: c_uint = 4;
/// `CU_STREAM_MEM_OP_WRITE_VALUE_64`.
pub const CU_STREAM_MEM_OP_WRITE_VALUE_64: c_uint = 5;
/// `CU_STREAM_MEM_OP_BARRIER`.
pub const CU_STREAM_MEM_OP_BARRIER: c_uint = 6;
/// `CU_STREAM_WAIT_VALUE_GEQ`: cyclic, i.e. `(int32_t)(*addr - value) >= 0`.
pub const CU_STREAM_WAIT_VALUE_GEQ: c_uint = 0;
/// `CU_STREAM_WAIT_VALUE_EQ`.
pub const CU_STREAM_WAIT_VALUE_EQ: c_uint = 1;
/// `CU_STREAM_WAIT_VALUE_AND`.
pub const CU_STREAM_WAIT_VALUE_AND: c_uint = 2;
/// `CU_STREAM_WAIT_VALUE_NOR`.
pub const CU_STREAM_WAIT_VALUE_NOR: c_uint = 3;

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_MEMCPY2D {
    /// Source X in bytes.
    pub srcXInBytes: usize,
    /// Source Y.
    pub srcY: usize,
    /// `CUmemorytype` of the source.
    pub srcMemoryType: c_uint,
    /// Source address when host.
    pub srcHost: *const c_void,
    /// Source address when device.
    pub srcDevice: CUdeviceptr,
    /// Source array when array.
    pub srcArray: *mut c_void,
    /// Source pitch in bytes (ignored for arrays).
    pub srcPitch: usize,
    /// Destination X in bytes.
    pub dstXInBytes: usize,
    /// Destination Y.
    pub dstY: usize,
    /// `CUmemorytype` of the destination.
    pub dstMemoryType: c_uint,
    /// Destination address when host.
    pub dstHost: *mut c_void,
    /// Destination address when device.
    pub dstDevice: CUdeviceptr,
    /// Destination array when array.
    pub dstArray: *mut c_void,
    /// Destination pitch in bytes (ignored for arrays).
    pub dstPitch: usize,
    /// Width of the copy in bytes.
    pub WidthInBytes: usize,
    /// Height of the copy in rows.
    pub Height: usize,
}

/// A status of the driver API (`CUresult`). Any value a driver returns can be held and handed on.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CUresult(pub c_uint);

macro_rules! results {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl CUresult {
            $(
                #[doc = concat!("`CUDA_", stringify!($name), "`: ", $text, ".")]
                pub const $name: Self = Self($value);
            )*

            /// The enumerator's name in `cuda.h`, for the codes this build knows.
            #[must_use]
            pub fn name(self) -> Option<&'static core::ffi::CStr> {
                match self.0 {
                    $($value => core::ffi::CStr::from_bytes_with_nul(
                        concat!("CUDA_", stringify!($name), "\0").as_bytes()).ok(),)*
                    _ => None,
                }
            }

            /// What the code means, for the codes this build knows.
            #[must_use]
            pub fn text(self) -> Option<&'static core::ffi::CStr> {
                match self.0 {
                    $($value => core::ffi::CStr::from_bytes_with_nul(concat!($text, "\0").as_bytes()).ok(),)*
                    _ => None,
                }
            }
        }
    };
}

results! {
    SUCCESS = 0, "no error";
    ERROR_INVALID_VALUE = 1, "invalid argument";
    ERROR_OUT_OF_MEMORY = 2, "out of memory";
    ERROR_NOT_INITIALIZED = 3, "initialization error";
    ERROR_DEINITIALIZED = 4, "driver shutting down";
    ERROR_STUB_LIBRARY = 34, "driver is a stub library";
    ERROR_DEVICE_UNAVAILABLE = 46, "device(s) is/are busy or unavailable";
    ERROR_NO_DEVICE = 100, "no CUDA-capable device is detected";
    ERROR_INVALID_DEVICE = 101, "invalid device ordinal";
    ERROR_INVALID_IMAGE = 200, "device kernel image is invalid";
    ERROR_INVALID_CONTEXT = 201, "invalid device context";
    ERROR_MAP_FAILED = 205, "mapping of buffer object failed";
    ERROR_ALREADY_MAPPED = 208, "resource already mapped";
    ERROR_NO_BINARY_FOR_GPU = 209, "no kernel image is available for execution on the device";
    ERROR_ECC_UNCORRECTABLE = 214, "uncorrectable ECC error encountered";
    ERROR_UNSUPPORTED_LIMIT = 215, "limit is not supported on this architecture";
    ERROR_INVALID_PTX = 218, "a PTX JIT compilation failed";
    ERROR_INVALID_GRAPHICS_CONTEXT = 219, "invalid OpenGL or DirectX context";
    ERROR_INVALID_SOURCE = 300, "device kernel image is invalid";
    ERROR_FILE_NOT_FOUND = 301, "file not found";
    ERROR_OPERATING_SYSTEM = 304, "OS call failed or operation not supported on this OS";
    ERROR_INVALID_HANDLE = 400, "invalid resource handle";
    ERROR_ILLEGAL_STATE = 401, "the operation cannot be performed in the present state";
    ERROR_LOSSY_QUERY = 402, "the result would lose part of what was asked for";
    ERROR_NOT_FOUND = 500, "named symbol not found";
    ERROR_NOT_READY = 600, "device not ready";
    ERROR_ILLEGAL_ADDRESS = 700, "an illegal memory access was encountered";
    ERROR_LAUNCH_OUT_OF_RESOURCES = 701, "too many resources requested for launch";
    ERROR_LAUNCH_TIMEOUT = 702, "the launch timed out and was terminated";
    ERROR_PEER_ACCESS_ALREADY_ENABLED = 704, "peer access is already enabled";
    ERROR_PRIMARY_CONTEXT_ACTIVE = 708, "cannot set while device is active in this process";
    ERROR_CONTEXT_IS_DESTROYED = 709, "context is destroyed";
    ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712, "part or all of the requested memory range is already mapped";
    ERROR_HOST_MEMORY_NOT_REGISTERED = 713, "pointer does not correspond to a registered memory region";
    ERROR_HARDWARE_STACK_ERROR = 714, "hardware stack error";
    ERROR_ILLEGAL_INSTRUCTION = 715, "an illegal instruction was encountered";
    ERROR_MISALIGNED_ADDRESS = 716, "misaligned address";
    ERROR_INVALID_ADDRESS_SPACE = 717, "operation not supported on global/shared address space";
    ERROR_INVALID_PC = 718, "invalid program counter";
    ERROR_LAUNCH_FAILED = 719, "unspecified launch failure";
    ERROR_COOPERATIVE_LAUNCH_TOO_LARGE = 720, "too many blocks in cooperative launch";
    ERROR_NOT_PERMITTED = 800, "operation not permitted";
    ERROR_NOT_SUPPORTED = 801, "operation not supported";
    ERROR_SYSTEM_NOT_READY = 802, "system not yet initialized";
    ERROR_STREAM_CAPTURE_UNSUPPORTED = 900, "operation not permitted when stream is capturing";
    ERROR_STREAM_CAPTURE_INVALIDATED = 901, "operation failed due to a previous error during capture";
    ERROR_STREAM_CAPTURE_MERGE = 902, "operation would result in a merge of separate capture sequences";
    ERROR_STREAM_CAPTURE_UNMATCHED = 903, "capture was not ended in the same stream as it began";
    ERROR_STREAM_CAPTURE_UNJOINED = 904, "capturing stream has unjoined work";
    ERROR_STREAM_CAPTURE_ISOLATION = 905, "dependency created on uncaptured work in another stream";
    ERROR_STREAM_CAPTURE_IMPLICIT = 906, "operation would make the legacy stream depend on a capturing blocking stream";
    ERROR_CAPTURED_EVENT = 907, "operation not permitted on an event last recorded in a capturing stream";
    ERROR_STREAM_CAPTURE_WRONG_THREAD = 908, "attempt to terminate a thread-local capture sequence from another thread";
    ERROR_GRAPH_EXEC_UPDATE_FAILURE = 910, "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update";
    ERROR_INVALID_RESOURCE_TYPE = 914, "an invalid resource type";
    ERROR_INVALID_RESOURCE_CONFIGURATION = 915, "an invalid resource configuration";
    ERROR_UNKNOWN = 999, "unknown error";
}

impl CUresult {
    /// Whether the call succeeded.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for CUresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{}", name.to_string_lossy()),
            None => write!(f, "CUresult({})", self.0),
        }
    }
}

const _: () = assert!(size_of::<CUlaunchConfig>() == 56);
const _: () = assert!(size_of::<CUlaunchAttribute>() == 72);
const _: () = assert!(size_of::<CUstreamBatchMemOpParams>() == 48);
const _: () = assert!(size_of::<CUDA_MEMCPY2D>() == 128);
