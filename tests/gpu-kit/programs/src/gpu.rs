//! The driver API with its errors as values: a context, a stream, the kit's kernels.
#![expect(unsafe_code, reason = "calls the driver API")]

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use anyhow::{Context as _, Result, bail};
use cudarc::driver::sys;

pub(crate) use cudarc::driver::sys::{CUevent, CUfunction, CUgraphExec, CUstream};

/// Calls the driver; its error's name becomes the error.
macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        let status = unsafe { sys::$name($($argument),*) };
        $crate::gpu::check(stringify!($name), status)
    }};
}

pub(crate) fn check(call: &str, status: sys::CUresult) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    bail!("{call}: {status:?}")
}

/// A closed gate is 0; an open one has this bit, as Headgate's has.
pub(crate) const OPEN: u32 = 1;

/// The first device, its primary context and the kernels.
#[derive(Debug)]
pub(crate) struct Gpu {
    device: i32,
    module: sys::CUmodule,
}

impl Gpu {
    pub(crate) fn start() -> Result<Self> {
        cu!(cuInit(0))?;
        let (mut device, mut context, mut module) = (0, null_mut(), null_mut());
        cu!(cuDeviceGet(&raw mut device, 0))?;
        cu!(cuDevicePrimaryCtxRetain(&raw mut context, device))?;
        cu!(cuCtxSetCurrent(context))?;
        let made = cubin(device)?.is_some_and(|image| {
            // One that this driver does not take is no loss: the PTX is the same kernels.
            cu!(cuModuleLoadData(&raw mut module, image.as_ptr().cast())).is_ok()
        });
        if !made {
            let ptx = concat!(include_str!("../../kernels/ptx/kit.ptx"), "\0");
            cu!(cuModuleLoadData(&raw mut module, ptx.as_ptr().cast()))
                .context("loading the kit's kernels")?;
        }
        Ok(Self { device, module })
    }

    pub(crate) fn attribute(&self, which: sys::CUdevice_attribute) -> Result<i32> {
        attribute(self.device, which)
    }

    pub(crate) fn name(&self) -> Result<String> {
        let mut bytes = [0u8; 128];
        cu!(cuDeviceGetName(bytes.as_mut_ptr().cast(), 127, self.device))?;
        Ok(CStr::from_bytes_until_nul(&bytes)?.to_string_lossy().into_owned())
    }

    pub(crate) fn driver_version() -> Result<i32> {
        let mut version = 0;
        cu!(cuDriverGetVersion(&raw mut version))?;
        Ok(version)
    }

    pub(crate) fn function(&self, name: &CStr) -> Result<CUfunction> {
        let mut function = null_mut();
        cu!(cuModuleGetFunction(&raw mut function, self.module, name.as_ptr()))?;
        Ok(function)
    }

    pub(crate) fn stream() -> Result<CUstream> {
        const NON_BLOCKING: u32 = 1;
        let mut stream = null_mut();
        cu!(cuStreamCreate(&raw mut stream, NON_BLOCKING))?;
        Ok(stream)
    }

    pub(crate) fn synchronise(stream: CUstream) -> Result<()> {
        cu!(cuStreamSynchronize(stream))
    }

    pub(crate) fn allocate(bytes: usize) -> Result<u64> {
        let mut address = 0;
        cu!(cuMemAlloc_v2(&raw mut address, bytes))?;
        cu!(cuMemsetD8_v2(address, 0, bytes))?;
        Ok(address)
    }

    pub(crate) fn read(address: u64, words: usize) -> Result<Vec<u64>> {
        let mut out = vec![0u64; words];
        cu!(cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), address, words * 8))?;
        Ok(out)
    }

    pub(crate) fn event(timing: bool) -> Result<CUevent> {
        const BLOCKING_SYNC: u32 = 1;
        const DISABLE_TIMING: u32 = 2;
        let mut event = null_mut();
        cu!(cuEventCreate(&raw mut event, if timing { 0 } else { BLOCKING_SYNC | DISABLE_TIMING }))?;
        Ok(event)
    }

    pub(crate) fn record(event: CUevent, stream: CUstream) -> Result<()> {
        cu!(cuEventRecord(event, stream))
    }

    pub(crate) fn wait(event: CUevent) -> Result<()> {
        cu!(cuEventSynchronize(event))
    }

    pub(crate) fn is_capturing(stream: CUstream) -> Result<bool> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        cu!(cuStreamIsCapturing(stream, &raw mut status))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    pub(crate) fn current_device() -> Result<i32> {
        let mut device = 0;
        cu!(cuCtxGetDevice(&raw mut device))?;
        Ok(device)
    }

    pub(crate) fn memory() -> Result<(usize, usize)> {
        let (mut free, mut total) = (0, 0);
        cu!(cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        Ok((free, total))
    }

    /// Launches without arguments.
    pub(crate) fn launch_nothing(function: CUfunction, stream: CUstream) -> Result<()> {
        cu!(cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, null_mut(), null_mut()))
    }

    /// A graph of `count` launches of some work.
    pub(crate) fn graph(work: &Work, stream: CUstream, count: u32) -> Result<CUgraphExec> {
        let (mut graph, mut exec) = (null_mut(), null_mut());
        cu!(cuStreamBeginCapture_v2(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))?;
        for _ in 0..count {
            work.launch(stream)?;
        }
        cu!(cuStreamEndCapture(stream, &raw mut graph))?;
        cu!(cuGraphInstantiateWithFlags(&raw mut exec, graph, 0))?;
        Ok(exec)
    }

    pub(crate) fn launch_graph(exec: CUgraphExec, stream: CUstream) -> Result<()> {
        cu!(cuGraphLaunch(exec, stream))
    }

    /// Starts the `trace` kernel and waits for it: pauses in device time, as pairs of begin and length.
    pub(crate) fn trace(&self, milliseconds: u64, threshold_ns: u64) -> Result<Vec<(u64, u64)>> {
        const CAPACITY: u32 = 8192;
        let function = self.function(c"trace")?;
        let stream = Self::stream()?;
        let mut out = Self::allocate((1 + 2 * CAPACITY as usize) * 8)?;
        let (mut capacity, mut duration, mut threshold) = (CAPACITY, milliseconds * 1_000_000, threshold_ns);
        let mut arguments: [*mut c_void; 4] = [
            (&raw mut out).cast(),
            (&raw mut capacity).cast(),
            (&raw mut duration).cast(),
            (&raw mut threshold).cast(),
        ];
        cu!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, arguments.as_mut_ptr(), null_mut()))?;
        Self::synchronise(stream)?;
        let words = Self::read(out, 1 + 2 * CAPACITY as usize)?;
        let count = usize::try_from(words[0])?.min(CAPACITY as usize);
        Ok(words[1..].chunks_exact(2).take(count).map(|pair| (pair[0], pair[1])).collect())
    }
}

fn attribute(device: i32, which: sys::CUdevice_attribute) -> Result<i32> {
    let mut value = 0;
    cu!(cuDeviceGetAttribute(&raw mut value, which, device))?;
    Ok(value)
}

/// The kernels compiled for this device's architecture, if the kit has them.
fn cubin(device: i32) -> Result<Option<Vec<u8>>> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let (major, minor) = (attribute(device, MAJOR)?, attribute(device, MINOR)?);
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).map(|kit| kit.join("kernels"));
    Ok(folder.and_then(|folder| std::fs::read(folder.join(format!("kit.sm_{major}{minor}.cubin"))).ok()))
}

/// A launch of the `work` kernel: so many steps in so many blocks.
#[derive(Debug)]
pub(crate) struct Work {
    function: CUfunction,
    sink: u64,
    pub(crate) steps: u32,
    blocks: u32,
}

impl Work {
    pub(crate) fn new(gpu: &Gpu, steps: u32, blocks: u32) -> Result<Self> {
        Ok(Self { function: gpu.function(c"work")?, sink: Gpu::allocate(8)?, steps, blocks })
    }

    pub(crate) fn launch(&self, stream: CUstream) -> Result<()> {
        let (mut sink, mut steps) = (self.sink, self.steps);
        let mut arguments: [*mut c_void; 2] = [(&raw mut sink).cast(), (&raw mut steps).cast()];
        let arguments = arguments.as_mut_ptr();
        cu!(cuLaunchKernel(self.function, self.blocks, 1, 1, 128, 1, 1, 0, stream, arguments, null_mut()))
    }
}

/// A page shared by descriptor and registered with the driver, as Headgate's hook does with its seat.
#[derive(Debug)]
pub(crate) struct Page {
    words: *mut u32,
    pub(crate) device: u64,
}

/// Words of the page: the gate, and what the GPU writes when it has passed it.
const GATE: usize = 0;
const PASSED: usize = 64;
const PAGE_BYTES: usize = 4096;

impl Page {
    /// A page of a sealed memfd; `read_only` asks the driver for a page that the GPU may only read.
    pub(crate) fn of_memfd(read_only: bool) -> Result<Self> {
        // SAFETY: a NUL-terminated name and valid flags.
        let file =
            unsafe { libc::memfd_create(c"kit".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        anyhow::ensure!(0 <= file, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: a descriptor of ours.
        let sized = unsafe { libc::ftruncate(file, PAGE_BYTES.cast_signed() as libc::off_t) };
        anyhow::ensure!(sized == 0, "ftruncate: {}", std::io::Error::last_os_error());
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: a descriptor of ours and valid seals.
        let sealed = unsafe { libc::fcntl(file, libc::F_ADD_SEALS, seals) };
        anyhow::ensure!(sealed == 0, "F_ADD_SEALS: {}", std::io::Error::last_os_error());
        Self::map(file, libc::MAP_SHARED, read_only)
    }

    fn map(file: i32, flags: i32, read_only: bool) -> Result<Self> {
        const PORTABLE_AND_MAPPED: u32 = 0x1 | 0x2;
        const READ_ONLY: u32 = 0x8;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping; the page lives until the program ends.
        let words = unsafe { libc::mmap(null_mut(), PAGE_BYTES, protection, flags, file, 0) };
        anyhow::ensure!(words != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let flags = PORTABLE_AND_MAPPED | if read_only { READ_ONLY } else { 0 };
        cu!(cuMemHostRegister_v2(words, PAGE_BYTES, flags))?;
        let mut device = 0;
        cu!(cuMemHostGetDevicePointer_v2(&raw mut device, words, 0))?;
        Ok(Self { words: words.cast(), device })
    }

    fn word(&self, index: usize) -> &std::sync::atomic::AtomicU32 {
        // SAFETY: within the page, which is never unmapped; the GPU writes whole aligned words.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.words.wrapping_add(index)) }
    }

    pub(crate) fn gate(&self) -> &std::sync::atomic::AtomicU32 {
        self.word(GATE)
    }

    pub(crate) fn set_gate(&self, value: u32) {
        self.word(GATE).store(value, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn passed(&self) -> u32 {
        self.word(PASSED).load(std::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn write(&self, stream: CUstream, value: u32) -> Result<()> {
        cu!(cuStreamWriteValue32_v2(stream, self.device + 4 * PASSED as u64, value, 0))
    }

    pub(crate) fn wait(&self, stream: CUstream) -> Result<()> {
        const AND: u32 = 2;
        cu!(cuStreamWaitValue32_v2(stream, self.device + 4 * GATE as u64, OPEN, AND))
    }

    /// Wait for the gate, then say so: what stands at the head of a batch of Headgate's.
    pub(crate) fn wait_and_write(&self, stream: CUstream, value: u32) -> Result<()> {
        // SAFETY: unions of numbers; all zero is a value of each.
        let mut operations: [sys::CUstreamBatchMemOpParams; 2] = unsafe { std::mem::zeroed() };
        operations[0].waitValue = sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st {
            operation: sys::CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_32,
            address: self.device + 4 * GATE as u64,
            __bindgen_anon_1:
                sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1 {
                    value: OPEN,
                },
            flags: 2,
            alias: 0,
        };
        operations[1].writeValue = sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st {
            operation: sys::CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_32,
            address: self.device + 4 * PASSED as u64,
            __bindgen_anon_1:
                sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st__bindgen_ty_1 { value },
            flags: 0,
            alias: 0,
        };
        cu!(cuStreamBatchMemOp_v2(stream, 2, operations.as_mut_ptr(), 0))
    }
}
