//! Copies of rectangles and boxes, memory mapped side by side, and the driver's linker, line by line as in [`crate::transcript`].
#![expect(unsafe_code, reason = "calls the driver API")]

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use cudarc::driver::sys;

use crate::gpu::{Code, Gpu, UNIT, check, zeroed};
use crate::transcript::{Case, Lines};

/// The cases in order.
pub const CASES: &[Case] = &[
    ("copies/rectangles and boxes leave what is beside them alone", rectangles),
    ("copies/pinned memory is read when its stream has come there", in_order),
    ("memory/mappings side by side are one memory", mappings),
    ("code/the linker gives what loads, and says what is wrong", links),
];

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        check(unsafe { sys::$name($($argument),*) })
    }};
}

const HOST: sys::CUmemorytype = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
const DEVICE: sys::CUmemorytype = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
/// Bytes of a row of the memory that is copied to.
const PITCH: usize = 16;
/// All of that memory.
const BYTES: usize = 2 * 6 * PITCH;

fn rectangles(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (memory, other) = (gpu.allocate(BYTES as u64)?, gpu.allocate(BYTES as u64)?);
    let source: Vec<u8> = (1..=48).collect();
    let mut seen = vec![0u8; BYTES];
    let stream = gpu.stream()?;
    for to in [memory, other] {
        cu!(cuMemsetD8_v2(to, 0xee, BYTES))?;
    }
    let mut flat = sys::CUDA_MEMCPY2D {
        srcXInBytes: 1,
        srcY: 1,
        srcMemoryType: HOST,
        srcHost: source.as_ptr().cast(),
        srcDevice: 0,
        srcArray: null_mut(),
        srcPitch: 8,
        dstXInBytes: 3,
        dstY: 2,
        dstMemoryType: DEVICE,
        dstHost: null_mut(),
        dstDevice: memory,
        dstArray: null_mut(),
        dstPitch: PITCH,
        WidthInBytes: 5,
        Height: 3,
    };
    cu!(cuMemcpy2D_v2(&raw const flat))?;
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), memory, BYTES))?;
    lines.note("to the device", &seen);
    flat.srcMemoryType = DEVICE;
    flat.srcDevice = memory;
    flat.srcPitch = PITCH;
    flat.dstDevice = other;
    cu!(cuMemcpy2DAsync_v2(&raw const flat, stream))?;
    gpu.synchronise_stream(stream)?;
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), other, BYTES))?;
    lines.note("on the device", &seen);
    cu!(cuMemsetD2D16_v2(other + 2, PITCH, 0x0102, 3, 4))?;
    cu!(cuMemsetD2D8Async(memory + 5, PITCH, 9, 2, 5, stream))?;
    gpu.synchronise_stream(stream)?;

    let solid = sys::CUDA_MEMCPY3D {
        srcXInBytes: 1,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: other,
        srcArray: null_mut(),
        reserved0: null_mut(),
        srcPitch: PITCH,
        srcHeight: 6,
        dstXInBytes: 0,
        dstY: 1,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: HOST,
        dstHost: seen.as_mut_ptr().cast(),
        dstDevice: 0,
        dstArray: null_mut(),
        reserved1: null_mut(),
        dstPitch: 10,
        dstHeight: 5,
        WidthInBytes: 7,
        Height: 4,
        Depth: 2,
    };
    seen.fill(0);
    cu!(cuMemcpy3D_v2(&raw const solid))?;
    lines.note("a box, back", &seen[..100]);
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), memory, BYTES))?;
    lines.note("filled", &seen);
    flat.WidthInBytes = PITCH + 1;
    lines.note("wider than a row", cu!(cuMemcpy2D_v2(&raw const flat)).is_err());
    gpu.end_stream(stream)?;
    gpu.free(other)?;
    gpu.free(memory)
}

/// `CU_STREAM_WAIT_VALUE_GEQ`.
const AT_LEAST: u32 = 0;

/// Pinned memory of this program. It is the device's to read until the program knows that it has.
struct Pinned {
    at: *mut u8,
    bytes: usize,
}

impl Pinned {
    fn take(bytes: usize) -> Result<Self, Code> {
        let mut at = null_mut();
        cu!(cuMemHostAlloc(&raw mut at, bytes, 0))?;
        Ok(Self { at: at.cast(), bytes })
    }

    fn fill(&self, value: u8) {
        // SAFETY: so many bytes were allocated there; the streams that read them wait for a word that is written later.
        unsafe { self.at.write_bytes(value, self.bytes) };
    }

    fn give_back(self) -> Result<(), Code> {
        cu!(cuMemFreeHost(self.at.cast()))
    }
}

/// How often each value occurs in device memory.
fn contents(memory: u64, bytes: usize) -> Result<Vec<(u8, usize)>, Code> {
    let mut seen = vec![0u8; bytes];
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), memory, bytes))?;
    let mut times = [0; 256];
    for &byte in &seen {
        times[usize::from(byte)] += 1;
    }
    Ok((0..=u8::MAX).zip(times).filter(|&(_, count)| count > 0).collect())
}

/// A program holds a stream up by a word, and fills the memory of a copy in it only then.
fn in_order(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    const BYTES: usize = 700_000;
    let (held, behind, free) = (gpu.stream()?, gpu.stream()?, gpu.stream()?);
    let (word, memory, other) =
        (gpu.allocate(4096)?, gpu.allocate(BYTES as u64)?, gpu.allocate(BYTES as u64)?);
    cu!(cuMemsetD32_v2(word, 0, 1))?;
    cu!(cuMemsetD8_v2(memory, 0, BYTES))?;
    let pinned = Pinned::take(BYTES)?;
    let source: *const c_void = pinned.at.cast();

    pinned.fill(1);
    cu!(cuStreamWaitValue32_v2(held, word, 1, AT_LEAST))?;
    cu!(cuMemcpyHtoDAsync_v2(memory, source, BYTES, held))?;
    pinned.fill(2);
    cu!(cuStreamWriteValue32_v2(free, word, 1, 0))?;
    gpu.synchronise_stream(held)?;
    lines.note("filled before the stream came there", contents(memory, BYTES)?);

    // The memory is filled by a copy of another stream that is held up as well.
    cu!(cuStreamWaitValue32_v2(held, word, 2, AT_LEAST))?;
    cu!(cuMemsetD8Async(memory, 3, BYTES, held))?;
    cu!(cuMemcpyDtoHAsync_v2(pinned.at.cast(), memory, BYTES, held))?;
    let mut event = null_mut();
    cu!(cuEventCreate(&raw mut event, 0))?;
    cu!(cuEventRecord(event, held))?;
    cu!(cuStreamWaitEvent(behind, event, 0))?;
    cu!(cuMemcpyHtoDAsync_v2(other, source, BYTES, behind))?;
    cu!(cuStreamWriteValue32_v2(free, word, 2, 0))?;
    gpu.synchronise_stream(behind)?;
    lines.note("filled by the device", contents(other, BYTES)?);

    // Rows, and calls behind them that wait for all of the context's work.
    let rows = sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: HOST,
        srcHost: source,
        srcDevice: 0,
        srcArray: null_mut(),
        srcPitch: 1000,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: DEVICE,
        dstHost: null_mut(),
        dstDevice: memory,
        dstArray: null_mut(),
        dstPitch: 1000,
        WidthInBytes: 600,
        Height: 500,
    };
    cu!(cuStreamWaitValue32_v2(held, word, 3, AT_LEAST))?;
    cu!(cuMemcpy2DAsync_v2(&raw const rows, held))?;
    pinned.fill(4);
    cu!(cuStreamWriteValue32_v2(free, word, 3, 0))?;
    gpu.free(other)?;
    pinned.give_back()?;
    gpu.synchronise_stream(held)?;
    lines.note("rows", contents(memory, BYTES)?);

    cu!(cuEventDestroy_v2(event))?;
    for stream in [held, behind, free] {
        gpu.end_stream(stream)?;
    }
    gpu.free(memory)?;
    gpu.free(word)
}

fn mappings(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let bytes = usize::try_from(UNIT).unwrap_or(usize::MAX);
    let (before, _) = gpu.memory()?;
    let taken = || gpu.memory().map(|(free, _)| before - free);
    // For this program alone: nothing is asked to be exportable.
    let mut wanted: sys::CUmemAllocationProp = zeroed();
    wanted.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    wanted.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    wanted.location.id = gpu.device;
    let mut handles = [0; 2];
    for handle in &mut handles {
        cu!(cuMemCreate(handle, bytes, &raw const wanted, 0))?;
    }
    let mut address = 0;
    cu!(cuMemAddressReserve(&raw mut address, 2 * bytes, 0, 0, 0))?;
    for (place, handle) in (address..).step_by(bytes).zip(handles) {
        cu!(cuMemMap(place, bytes, 0, handle, 0))?;
    }
    let flags = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    let access = sys::CUmemAccessDesc { location: wanted.location, flags };
    cu!(cuMemSetAccess(address, 2 * bytes, &raw const access, 1))?;
    let mut told: sys::CUmemAllocationProp = zeroed();
    cu!(cuMemGetAllocationPropertiesFromHandle(&raw mut told, handles[1]))?;
    lines.note("told", (told.type_, told.location.type_, told.location.id));
    let (sent, mut seen) = ([7u8; 64], [0u8; 64]);
    let across = address + UNIT - 32;
    cu!(cuMemcpyHtoD_v2(across, sent.as_ptr().cast(), 64))?;
    cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), across, 64))?;
    lines.note("across both", seen == sent);
    let beyond = cu!(cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), across + UNIT, 64));
    lines.note("beyond them", beyond.is_err());
    let kept = gpu.retain(address)?;
    for handle in handles {
        gpu.release(handle)?;
    }
    lines.note("mapped", taken()?);
    cu!(cuMemUnmap(address, 2 * bytes))?;
    lines.note("retained", taken()?);
    gpu.release(kept)?;
    lines.note("released", taken()?);
    lines.note("released twice", gpu.release(kept).is_err());
    cu!(cuMemAddressFree(address, 2 * bytes))
}

const GOOD: &CStr = c".version 7.0
.target sm_50
.address_size 64
.visible .entry nothing() { ret; }
";
const BAD: &CStr = c".version 7.0
.target sm_50
.address_size 64
.visible .entry broken() { frobnicate; }
";

/// Links one text: the code of adding it, whether anything was said, and whether the image has the kernel.
fn link(text: &CStr, kernel: &CStr) -> Result<(Option<Code>, bool, Option<Code>), Code> {
    use sys::CUjit_option_enum::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    const LOG_BYTES: usize = 512;
    let mut log = [0u8; LOG_BYTES];
    let mut keys = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
    let mut state = null_mut();
    cu!(cuLinkCreate_v2(2, keys.as_mut_ptr(), values.as_mut_ptr(), &raw mut state))?;
    let kind = sys::CUjitInputType::CU_JIT_INPUT_PTX;
    let bytes = text.to_bytes_with_nul();
    let data = bytes.as_ptr().cast_mut().cast();
    let name = c"text".as_ptr();
    let added = cu!(cuLinkAddData_v2(state, kind, data, bytes.len(), name, 0, null_mut(), null_mut())).err();
    let said = log[0] != 0;
    let mut found = None;
    if added.is_none() {
        let (mut image, mut length, mut module, mut function) = (null_mut(), 0usize, null_mut(), null_mut());
        cu!(cuLinkComplete(state, &raw mut image, &raw mut length))?;
        cu!(cuModuleLoadData(&raw mut module, image))?;
        found = cu!(cuModuleGetFunction(&raw mut function, module, kernel.as_ptr())).err();
        cu!(cuModuleUnload(module))?;
    }
    cu!(cuLinkDestroy(state))?;
    Ok((added, said, found))
}

fn links(_: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    lines.note("a kernel that is there", link(GOOD, c"nothing")?);
    lines.note("a kernel that is not", link(GOOD, c"something")?);
    lines.note("a text that is wrong", link(BAD, c"broken")?);
    let destroyed = cu!(cuLinkDestroy(null_mut()));
    lines.note("nothing to end", destroyed.is_err());
    Ok(())
}
