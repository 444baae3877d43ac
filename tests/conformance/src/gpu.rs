//! The driver API with its errors as values, and a context to work in.
#![expect(unsafe_code, reason = "calls the driver API")]
#![expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "handles are pointers in cuda.h only; the driver looks them up"
)]

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys;

pub use cudarc::driver::sys::{
    CUarray, CUdeviceptr, CUgraph, CUgraphExec, CUgraphNode, CUmemGenericAllocationHandle, CUmemoryPool,
    CUmipmappedArray, CUstream,
};

/// A driver's own error number.
pub type Code = u32;
/// `CUDA_ERROR_INVALID_VALUE`.
pub const INVALID_VALUE: Code = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: Code = 2;
/// `CUDA_ERROR_NOT_SUPPORTED`.
pub const NOT_SUPPORTED: Code = 801;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// Granularity of physical memory and of everything the suite takes.
pub const UNIT: u64 = 2 * MIB;

/// Calls the driver; its error number becomes the error.
macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        let status = unsafe { sys::$name($($argument),*) };
        $crate::gpu::check(status)
    }};
}

pub(crate) fn check(status: sys::CUresult) -> Result<(), Code> {
    match status as Code {
        0 => Ok(()),
        code => Err(code),
    }
}

/// A structure of `cuda.h`, all zero.
pub(crate) fn zeroed<T: Copy>() -> T {
    // SAFETY: used for structures of numbers, pointers and enumerations that have a zero value.
    unsafe { std::mem::zeroed() }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The first device and its primary context, current on this thread.
#[derive(Debug)]
pub struct Gpu {
    /// The device's ordinal.
    pub device: i32,
    context: sys::CUcontext,
}

impl Gpu {
    /// Starts the driver on the first device.
    ///
    /// # Errors
    /// The driver's own.
    pub fn start() -> Result<Self, Code> {
        Self::start_on(0)
    }

    /// Starts the driver on a device.
    ///
    /// # Errors
    /// The driver's own.
    pub fn start_on(ordinal: i32) -> Result<Self, Code> {
        cu!(cuInit(0))?;
        let (mut device, mut context) = (0, null_mut());
        cu!(cuDeviceGet(&raw mut device, ordinal))?;
        cu!(cuDevicePrimaryCtxRetain(&raw mut context, device))?;
        cu!(cuCtxSetCurrent(context))?;
        Ok(Self { device, context })
    }

    /// Makes the context current on another thread.
    ///
    /// # Errors
    /// The driver's own.
    pub fn enter(&self) -> Result<(), Code> {
        cu!(cuCtxSetCurrent(self.context))
    }

    /// Makes a context of its own and makes it current on this thread.
    ///
    /// # Errors
    /// The driver's own.
    pub fn make_context(&self) -> Result<sys::CUcontext, Code> {
        let mut context = null_mut();
        cu!(cuCtxCreate_v2(&raw mut context, 0, self.device))?;
        Ok(context)
    }

    /// One more user of the current context.
    ///
    /// # Errors
    /// The driver's own.
    pub fn attach(&self) -> Result<(), Code> {
        let mut context = null_mut();
        cu!(cuCtxAttach(&raw mut context, 0))
    }

    /// One user less of the current context, which must be this one.
    ///
    /// # Errors
    /// The driver's own.
    pub fn detach(&self, context: sys::CUcontext) -> Result<(), Code> {
        cu!(cuCtxDetach(context))
    }

    /// Ends everything in the primary context, and makes it anew.
    ///
    /// # Errors
    /// The driver's own.
    pub fn reset(&mut self) -> Result<(), Code> {
        cu!(cuDevicePrimaryCtxReset_v2(self.device))?;
        cu!(cuDevicePrimaryCtxRetain(&raw mut self.context, self.device))?;
        cu!(cuCtxSetCurrent(self.context))
    }

    /// The device's name.
    ///
    /// # Errors
    /// The driver's own.
    pub fn name(&self) -> Result<String, Code> {
        let mut text = [0i8; 256];
        cu!(cuDeviceGetName(text.as_mut_ptr(), 256, self.device))?;
        let text: Vec<u8> =
            text.iter().map(|&byte| byte.cast_unsigned()).take_while(|&byte| byte != 0).collect();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The CUDA version the driver supports, as 1000 x major + 10 x minor.
    ///
    /// # Errors
    /// The driver's own.
    pub fn driver_version(&self) -> Result<i32, Code> {
        let mut version = 0;
        cu!(cuDriverGetVersion(&raw mut version))?;
        Ok(version)
    }

    /// Free and total bytes.
    ///
    /// # Errors
    /// The driver's own.
    pub fn memory(&self) -> Result<(u64, u64), Code> {
        let (mut free, mut total) = (0usize, 0usize);
        cu!(cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        Ok((free as u64, total as u64))
    }

    /// Total bytes by the device query.
    ///
    /// # Errors
    /// The driver's own.
    pub fn total(&self) -> Result<u64, Code> {
        let mut total = 0usize;
        cu!(cuDeviceTotalMem_v2(&raw mut total, self.device))?;
        Ok(total as u64)
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// The driver's own.
    pub fn synchronise(&self) -> Result<(), Code> {
        cu!(cuCtxSynchronize())
    }

    /// `cuMemAlloc`.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocate(&self, bytes: u64) -> Result<CUdeviceptr, Code> {
        let mut address = 0;
        cu!(cuMemAlloc_v2(&raw mut address, size(bytes)))?;
        Ok(address)
    }

    /// `cuMemAllocManaged`.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocate_managed(&self, bytes: u64) -> Result<CUdeviceptr, Code> {
        const GLOBAL: u32 = 1;
        let mut address = 0;
        cu!(cuMemAllocManaged(&raw mut address, size(bytes), GLOBAL))?;
        Ok(address)
    }

    /// `cuMemAllocPitch` of 4-byte elements: address and pitch.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocate_pitch(&self, width_bytes: u64, height: u64) -> Result<(CUdeviceptr, u64), Code> {
        let (mut address, mut pitch) = (0, 0usize);
        cu!(cuMemAllocPitch_v2(&raw mut address, &raw mut pitch, size(width_bytes), size(height), 4))?;
        Ok((address, pitch as u64))
    }

    /// `cuMemFree`.
    ///
    /// # Errors
    /// The driver's own.
    pub fn free(&self, address: CUdeviceptr) -> Result<(), Code> {
        cu!(cuMemFree_v2(address))
    }

    /// `cuMemAllocAsync`, from the device's current pool or from `pool`.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocate_async(
        &self,
        bytes: u64,
        pool: Option<CUmemoryPool>,
        stream: CUstream,
    ) -> Result<CUdeviceptr, Code> {
        let mut address = 0;
        match pool {
            None => cu!(cuMemAllocAsync(&raw mut address, size(bytes), stream))?,
            Some(pool) => cu!(cuMemAllocFromPoolAsync(&raw mut address, size(bytes), pool, stream))?,
        }
        Ok(address)
    }

    /// `cuMemFreeAsync`.
    ///
    /// # Errors
    /// The driver's own.
    pub fn free_async(&self, address: CUdeviceptr, stream: CUstream) -> Result<(), Code> {
        cu!(cuMemFreeAsync(address, stream))
    }

    /// A stream that does not wait for the default one.
    ///
    /// # Errors
    /// The driver's own.
    pub fn stream(&self) -> Result<CUstream, Code> {
        const NON_BLOCKING: u32 = 1;
        let mut stream = null_mut();
        cu!(cuStreamCreate(&raw mut stream, NON_BLOCKING))?;
        Ok(stream)
    }

    /// Waits for a stream.
    ///
    /// # Errors
    /// The driver's own.
    pub fn synchronise_stream(&self, stream: CUstream) -> Result<(), Code> {
        cu!(cuStreamSynchronize(stream))
    }

    /// Ends a stream.
    ///
    /// # Errors
    /// The driver's own.
    pub fn end_stream(&self, stream: CUstream) -> Result<(), Code> {
        cu!(cuStreamDestroy_v2(stream))
    }

    /// A pool of device memory that keeps `threshold` bytes over a synchronisation.
    ///
    /// # Errors
    /// The driver's own.
    pub fn make_pool(&self, mut threshold: u64) -> Result<CUmemoryPool, Code> {
        let mut props: sys::CUmemPoolProps = zeroed();
        props.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        props.location = location(self.device);
        let mut pool = null_mut();
        cu!(cuMemPoolCreate(&raw mut pool, &raw const props))?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        cu!(cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()))?;
        Ok(pool)
    }

    /// The device's default pool.
    ///
    /// # Errors
    /// The driver's own.
    pub fn default_pool(&self) -> Result<CUmemoryPool, Code> {
        let mut pool = null_mut();
        cu!(cuDeviceGetDefaultMemPool(&raw mut pool, self.device))?;
        Ok(pool)
    }

    /// Bytes that a pool has of the device.
    ///
    /// # Errors
    /// The driver's own.
    pub fn pool_reserved(&self, pool: CUmemoryPool) -> Result<u64, Code> {
        let mut bytes = 0u64;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        cu!(cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()))?;
        Ok(bytes)
    }

    /// Makes a pool give back what it keeps beyond `keep` bytes.
    ///
    /// # Errors
    /// The driver's own.
    pub fn trim_pool(&self, pool: CUmemoryPool, keep: u64) -> Result<(), Code> {
        cu!(cuMemPoolTrimTo(pool, size(keep)))
    }

    /// Ends a pool.
    ///
    /// # Errors
    /// The driver's own.
    pub fn end_pool(&self, pool: CUmemoryPool) -> Result<(), Code> {
        cu!(cuMemPoolDestroy(pool))
    }

    /// Physical memory, on the device or on the host's first NUMA node.
    ///
    /// # Errors
    /// The driver's own.
    pub fn create(&self, bytes: u64, on_host: bool) -> Result<CUmemGenericAllocationHandle, Code> {
        let mut props = properties(self.device);
        if on_host {
            props.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA;
            props.location.id = 0;
        }
        let mut handle = 0;
        cu!(cuMemCreate(&raw mut handle, size(bytes), &raw const props, 0))?;
        Ok(handle)
    }

    /// Physical memory on another device than the context's.
    ///
    /// # Errors
    /// The driver's own.
    pub fn create_on(&self, device: i32, bytes: u64) -> Result<CUmemGenericAllocationHandle, Code> {
        let props = properties(device);
        let mut handle = 0;
        cu!(cuMemCreate(&raw mut handle, size(bytes), &raw const props, 0))?;
        Ok(handle)
    }

    /// Calls with nowhere to put the answer, and with flags that no version knows: what each comes to.
    pub fn without_outputs(&self) -> [Result<(), Code>; 6] {
        let mut memory = null_mut();
        [
            cu!(cuMemAlloc_v2(null_mut(), 4096)),
            cu!(cuMemAllocAsync(null_mut(), 4096, null_mut())),
            cu!(cuMemAllocPitch_v2(null_mut(), null_mut(), 64, 64, 4)),
            cu!(cuMemCreate(null_mut(), size(UNIT), std::ptr::null(), 0)),
            cu!(cuMemHostAlloc(null_mut(), 4096, 0)),
            cu!(cuMemHostAlloc(&raw mut memory, 4096, 1 << 30)),
        ]
    }

    /// Gives a handle back.
    ///
    /// # Errors
    /// The driver's own.
    pub fn release(&self, handle: CUmemGenericAllocationHandle) -> Result<(), Code> {
        cu!(cuMemRelease(handle))
    }

    /// Another handle to what is mapped at an address.
    ///
    /// # Errors
    /// The driver's own.
    pub fn retain(&self, address: CUdeviceptr) -> Result<CUmemGenericAllocationHandle, Code> {
        let mut handle = 0;
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(size(address));
        cu!(cuMemRetainAllocationHandle(&raw mut handle, address))?;
        Ok(handle)
    }

    /// Maps a handle's memory at a fresh address.
    ///
    /// # Errors
    /// The driver's own.
    pub fn map(&self, handle: CUmemGenericAllocationHandle, bytes: u64) -> Result<CUdeviceptr, Code> {
        let mut address = 0;
        cu!(cuMemAddressReserve(&raw mut address, size(bytes), 0, 0, 0))?;
        if let Err(code) = cu!(cuMemMap(address, size(bytes), 0, handle, 0)) {
            cu!(cuMemAddressFree(address, size(bytes)))?;
            return Err(code);
        }
        Ok(address)
    }

    /// Unmaps and gives the address back.
    ///
    /// # Errors
    /// The driver's own.
    pub fn unmap(&self, address: CUdeviceptr, bytes: u64) -> Result<(), Code> {
        cu!(cuMemUnmap(address, size(bytes)))?;
        cu!(cuMemAddressFree(address, size(bytes)))
    }

    /// Exports memory as a file descriptor.
    ///
    /// # Errors
    /// The driver's own.
    pub fn export(&self, handle: CUmemGenericAllocationHandle) -> Result<i32, Code> {
        let mut descriptor = -1i32;
        let kind = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        cu!(cuMemExportToShareableHandle((&raw mut descriptor).cast(), handle, kind, 0))?;
        Ok(descriptor)
    }

    /// Imports memory from a file descriptor.
    ///
    /// # Errors
    /// The driver's own.
    pub fn import(&self, descriptor: i32) -> Result<CUmemGenericAllocationHandle, Code> {
        let mut handle = 0;
        let kind = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        let shared =
            std::ptr::without_provenance_mut::<c_void>(usize::try_from(descriptor).unwrap_or(usize::MAX));
        cu!(cuMemImportFromShareableHandle(&raw mut handle, shared, kind))?;
        Ok(handle)
    }

    /// Closes a descriptor.
    pub fn close(&self, descriptor: i32) {
        // SAFETY: the descriptor was made by `export` and is closed once.
        unsafe { libc::close(descriptor) };
    }

    /// An array.
    ///
    /// # Errors
    /// The driver's own.
    pub fn array(&self, shape: Shape) -> Result<CUarray, Code> {
        let mut array = null_mut();
        cu!(cuArray3DCreate_v2(&raw mut array, &raw const shape.0))?;
        Ok(array)
    }

    /// An array by the two-dimensional call.
    ///
    /// # Errors
    /// The driver's own.
    pub fn flat_array(&self, shape: Shape) -> Result<CUarray, Code> {
        let flat = sys::CUDA_ARRAY_DESCRIPTOR {
            Width: shape.0.Width,
            Height: shape.0.Height,
            Format: shape.0.Format,
            NumChannels: shape.0.NumChannels,
        };
        let mut array = null_mut();
        cu!(cuArrayCreate_v2(&raw mut array, &raw const flat))?;
        Ok(array)
    }

    /// Ends an array.
    ///
    /// # Errors
    /// The driver's own.
    pub fn end_array(&self, array: CUarray) -> Result<(), Code> {
        cu!(cuArrayDestroy(array))
    }

    /// A mipmapped array.
    ///
    /// # Errors
    /// The driver's own.
    pub fn mipmap(&self, shape: Shape, levels: u32) -> Result<CUmipmappedArray, Code> {
        let mut mipmap = null_mut();
        cu!(cuMipmappedArrayCreate(&raw mut mipmap, &raw const shape.0, levels))?;
        Ok(mipmap)
    }

    /// Ends a mipmapped array.
    ///
    /// # Errors
    /// The driver's own.
    pub fn end_mipmap(&self, mipmap: CUmipmappedArray) -> Result<(), Code> {
        cu!(cuMipmappedArrayDestroy(mipmap))
    }

    /// A graph that allocates `bytes`, and the address. It gives them back if it is to.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocating_graph(&self, bytes: u64, give_back: bool) -> Result<(CUgraph, CUdeviceptr), Code> {
        let mut graph = null_mut();
        cu!(cuGraphCreate(&raw mut graph, 0))?;
        let mut params: sys::CUDA_MEM_ALLOC_NODE_PARAMS = zeroed();
        params.poolProps.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        params.poolProps.location = location(self.device);
        params.bytesize = size(bytes);
        let (mut took, mut gave) = (null_mut(), null_mut());
        cu!(cuGraphAddMemAllocNode(&raw mut took, graph, std::ptr::null(), 0, &raw mut params))?;
        if give_back {
            cu!(cuGraphAddMemFreeNode(&raw mut gave, graph, &raw const took, 1, params.dptr))?;
        }
        Ok((graph, params.dptr))
    }

    /// The same by capture of a stream.
    ///
    /// # Errors
    /// The driver's own.
    pub fn captured_graph(&self, bytes: u64, give_back: bool) -> Result<(CUgraph, CUdeviceptr), Code> {
        let stream = self.stream()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        if let Err(code) = cu!(cuStreamBeginCapture_v2(stream, mode)) {
            self.end_stream(stream)?;
            return Err(code);
        }
        let worked = self.allocate_async(bytes, None, stream).and_then(|at| {
            if give_back {
                self.free_async(at, stream)?;
            }
            Ok(at)
        });
        let mut graph = null_mut();
        let ended = cu!(cuStreamEndCapture(stream, &raw mut graph));
        self.end_stream(stream)?;
        ended.and(worked).map(|address| (graph, address))
    }

    /// Makes a graph ready.
    ///
    /// # Errors
    /// The driver's own.
    pub fn instantiate(&self, graph: CUgraph) -> Result<CUgraphExec, Code> {
        let mut exec = null_mut();
        cu!(cuGraphInstantiateWithFlags(&raw mut exec, graph, 0))?;
        Ok(exec)
    }

    /// Runs a graph and waits for it.
    ///
    /// # Errors
    /// The driver's own.
    pub fn run(&self, exec: CUgraphExec) -> Result<(), Code> {
        let stream = self.stream()?;
        let ran = cu!(cuGraphLaunch(exec, stream)).and_then(|()| self.synchronise_stream(stream));
        self.end_stream(stream)?;
        ran
    }

    /// Ends a graph and what was made ready of it.
    ///
    /// # Errors
    /// The driver's own.
    pub fn end_graph(&self, graph: CUgraph, exec: Option<CUgraphExec>) -> Result<(), Code> {
        if let Some(exec) = exec {
            cu!(cuGraphExecDestroy(exec))?;
        }
        cu!(cuGraphDestroy(graph))
    }

    /// Bytes that the device keeps for graphs.
    ///
    /// # Errors
    /// The driver's own.
    pub fn graph_reserved(&self) -> Result<u64, Code> {
        let mut bytes = 0u64;
        let attribute = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT;
        cu!(cuDeviceGetGraphMemAttribute(self.device, attribute, (&raw mut bytes).cast()))?;
        Ok(bytes)
    }

    /// Makes the device give back what it keeps for graphs.
    ///
    /// # Errors
    /// The driver's own.
    pub fn trim_graphs(&self) -> Result<(), Code> {
        cu!(cuDeviceGraphMemTrim(self.device))
    }

    /// A multicast object over this device.
    ///
    /// # Errors
    /// The driver's own.
    pub fn multicast(&self, bytes: u64) -> Result<CUmemGenericAllocationHandle, Code> {
        let mut props: sys::CUmulticastObjectProp = zeroed();
        props.numDevices = 1;
        props.size = size(bytes);
        let mut object = 0;
        cu!(cuMulticastCreate(&raw mut object, &raw const props))?;
        cu!(cuMulticastAddDevice(object, self.device))?;
        Ok(object)
    }

    /// Binds memory to a multicast object.
    ///
    /// # Errors
    /// The driver's own.
    pub fn bind(
        &self,
        object: CUmemGenericAllocationHandle,
        handle: CUmemGenericAllocationHandle,
        bytes: u64,
    ) -> Result<(), Code> {
        cu!(cuMulticastBindMem(object, 0, handle, 0, size(bytes), 0))
    }

    /// Unbinds it.
    ///
    /// # Errors
    /// The driver's own.
    pub fn unbind(&self, object: CUmemGenericAllocationHandle, bytes: u64) -> Result<(), Code> {
        cu!(cuMulticastUnbind(object, self.device, 0, size(bytes)))
    }

    /// Pinned host memory.
    ///
    /// # Errors
    /// The driver's own.
    pub fn allocate_host(&self, bytes: u64) -> Result<*mut c_void, Code> {
        let mut memory = null_mut();
        cu!(cuMemAllocHost_v2(&raw mut memory, size(bytes)))?;
        Ok(memory)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// The driver's own.
    pub fn free_host(&self, memory: *mut c_void) -> Result<(), Code> {
        cu!(cuMemFreeHost(memory))
    }

    /// Writes bytes to the device and reads them back.
    ///
    /// # Errors
    /// The driver's own; or 999 when they come back different.
    pub fn prove(&self, address: CUdeviceptr) -> Result<(), Code> {
        let written: Vec<u8> = (0..=255).collect();
        let mut read = [0u8; 256];
        cu!(cuMemcpyHtoD_v2(address, written.as_ptr().cast(), written.len()))?;
        cu!(cuMemcpyDtoH_v2(read.as_mut_ptr().cast(), address, read.len()))?;
        if read[..] == written[..] { Ok(()) } else { Err(999) }
    }

    /// `CU_POINTER_ATTRIBUTE_IS_MANAGED` and `CU_POINTER_ATTRIBUTE_MEMORY_TYPE` of an address.
    ///
    /// # Errors
    /// The driver's own.
    pub fn pointer(&self, address: CUdeviceptr) -> Result<(u32, u32), Code> {
        use sys::CUpointer_attribute as Attribute;
        let (mut managed, mut kind) = (0u32, 0u32);
        let (is_managed, memory_type) =
            (Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED, Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
        cu!(cuPointerGetAttribute((&raw mut managed).cast(), is_managed, address))?;
        cu!(cuPointerGetAttribute((&raw mut kind).cast(), memory_type, address))?;
        Ok((managed, kind))
    }

    /// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE`, `_DEVICE_ORDINAL` and `_DEVICE_POINTER` of an address, which need not be of anything.
    ///
    /// # Errors
    /// The driver's own.
    pub fn place(&self, address: CUdeviceptr) -> Result<(u32, i32, CUdeviceptr), Code> {
        use sys::CUpointer_attribute as Attribute;
        let (mut kind, mut device, mut pointer) = (u32::MAX, i32::MAX, CUdeviceptr::MAX);
        let mut which = [
            Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
            Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
        ];
        let mut places =
            [(&raw mut kind).cast(), (&raw mut device).cast(), (&raw mut pointer).cast::<c_void>()];
        cu!(cuPointerGetAttributes(3, which.as_mut_ptr(), places.as_mut_ptr(), address))?;
        Ok((kind, device, pointer))
    }
}

/// Shape of an array.
#[derive(Clone, Copy, Debug)]
pub struct Shape(sys::CUDA_ARRAY3D_DESCRIPTOR);

impl Shape {
    /// An array of single-precision elements with one channel. Dimensions of 0 are none.
    #[must_use]
    pub fn floats(width: u64, height: u64, depth: u64) -> Self {
        Self(sys::CUDA_ARRAY3D_DESCRIPTOR {
            Width: size(width),
            Height: size(height),
            Depth: size(depth),
            Format: sys::CUarray_format::CU_AD_FORMAT_FLOAT,
            NumChannels: 1,
            Flags: 0,
        })
    }

    /// With `CUDA_ARRAY3D_*` flags.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.0.Flags = flags;
        self
    }

    /// With other elements.
    #[must_use]
    pub fn elements(mut self, format: sys::CUarray_format, channels: u32) -> Self {
        (self.0.Format, self.0.NumChannels) = (format, channels);
        self
    }
}

fn location(device: i32) -> sys::CUmemLocation {
    let mut location: sys::CUmemLocation = zeroed();
    location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    location.id = device;
    location
}

fn properties(device: i32) -> sys::CUmemAllocationProp {
    let mut props: sys::CUmemAllocationProp = zeroed();
    props.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    props.requestedHandleTypes = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    props.location = location(device);
    props
}
