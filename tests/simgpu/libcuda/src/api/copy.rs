//! Copies and fills.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_void;
use std::sync::Arc;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUarray, CUdeviceptr, CUresult, CUstream};
use headgate_simgpu::protocol::{Command, Place, Rows};

use super::memory::device_range;
use super::{array, host, memory, twins};
use crate::driver::{Answer, Driver, driver};
use crate::objects::Stream;
use crate::{capture, current, raw};

/// A copy with its ends known.
#[derive(Clone, Copy)]
struct Copy {
    to: Rows,
    from: Rows,
    width: u64,
    height: u64,
}

/// When the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Return {
    /// When the copy is done, if the host is one of its ends.
    Done,
    /// As soon as the documentation allows ("API synchronization behavior"): at once for pinned memory; for pageable
    /// memory when it was staged, or, to the host, when the copy is done.
    Early,
}

fn span(rows: Rows, width: u64, height: u64) -> Option<u64> {
    rows.pitch.checked_mul(height.checked_sub(1)?)?.checked_add(width)
}

/// Managed memory is the host's, whatever form of address the program gives.
fn located(driver: &Driver, rows: Rows) -> Rows {
    match rows.at {
        Place::Device(address) => match device_range(driver, address, 1) {
            Ok(at) => Rows { at, ..rows },
            Err(_) => rows,
        },
        Place::Host(_) => rows,
    }
}

/// Checks that an end of a copy is memory the call may touch.
fn check(driver: &Driver, rows: Rows, width: u64, height: u64) -> Answer {
    let bytes = span(rows, width, height).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match rows.at {
        Place::Device(address) => device_range(driver, address, bytes).map(|_| ()),
        Place::Host(0) => Err(CUresult::ERROR_INVALID_VALUE),
        Place::Host(_) => Ok(()),
    }
}

fn is_pageable(driver: &Driver, rows: Rows, width: u64, height: u64) -> bool {
    match rows.at {
        Place::Device(_) => false,
        Place::Host(address) => {
            !host::is_pinned(driver, address, span(rows, width, height).unwrap_or(u64::MAX))
        }
    }
}

fn run(driver: &Driver, stream: &Stream, copy: Copy, back: Return) -> Answer {
    let Copy { to, from, width, height } = copy;
    if width == 0 || height == 0 {
        return Ok(());
    }
    check(driver, to, width, height)?;
    check(driver, from, width, height)?;
    let (to, from) = (located(driver, to), located(driver, from));
    if back == Return::Done {
        capture::forbid_in(stream)?;
        capture::forbid_implied(driver, stream)?;
        capture::forbid_unsafe_call(driver)?;
    }
    // A captured copy reads and writes the host's memory when the graph runs.
    let captured = capture::of(stream).is_some();
    let staged = !captured && back == Return::Early && is_pageable(driver, from, width, height);
    let command = Command::Copy { to, from, width, height, staged };
    if staged && matches!(to.at, Place::Device(_)) {
        return driver.submit_staged(stream, command);
    }
    let seq = driver.submit(stream, [command])?;
    let touches_host = matches!(to.at, Place::Host(_)) || matches!(from.at, Place::Host(_));
    let waits = match back {
        Return::Done => touches_host,
        Return::Early => is_pageable(driver, to, width, height),
    };
    if waits && !captured { driver.wait(stream, seq) } else { Ok(()) }
}

fn find(mode: ThreadMode, stream: CUstream) -> Result<(&'static Driver, Arc<Stream>), CUresult> {
    let driver = driver()?;
    let context = current::context(driver)?;
    Ok((driver, current::stream(driver, &context, stream, mode)?))
}

fn linear(mode: ThreadMode, stream: CUstream, to: Place, from: Place, bytes: usize, back: Return) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    let rows = |at| Rows { at, pitch: bytes as u64 };
    run(driver, &stream, Copy { to: rows(to), from: rows(from), width: bytes as u64, height: 1 }, back)
}

fn host_place<T>(pointer: *const T) -> Place {
    Place::Host(pointer.addr() as u64)
}

/// Device memory, or what must then be host memory: with unified addressing the address says which.
fn unified(address: u64) -> Result<Place, CUresult> {
    let is_device = memory::find(driver()?, address).is_some();
    Ok(if is_device { Place::Device(address) } else { Place::Host(address) })
}

fn copy(mode: ThreadMode, dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
    linear(mode, CUstream::NULL, unified(dst)?, unified(src)?, bytes, Return::Done)
}

fn copy_async(
    mode: ThreadMode,
    dst: CUdeviceptr,
    src: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, unified(dst)?, unified(src)?, bytes, Return::Early)
}

fn to_device(mode: ThreadMode, dst: CUdeviceptr, src: *const c_void, bytes: usize) -> Answer {
    linear(mode, CUstream::NULL, Place::Device(dst), host_place(src), bytes, Return::Done)
}

fn from_device(mode: ThreadMode, dst: *mut c_void, src: CUdeviceptr, bytes: usize) -> Answer {
    linear(mode, CUstream::NULL, host_place(dst), Place::Device(src), bytes, Return::Done)
}

fn on_device(mode: ThreadMode, dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
    linear(mode, CUstream::NULL, Place::Device(dst), Place::Device(src), bytes, Return::Done)
}

fn to_device_async(
    mode: ThreadMode,
    dst: CUdeviceptr,
    src: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, Place::Device(dst), host_place(src), bytes, Return::Early)
}

fn from_device_async(
    mode: ThreadMode,
    dst: *mut c_void,
    src: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, host_place(dst), Place::Device(src), bytes, Return::Early)
}

fn on_device_async(
    mode: ThreadMode,
    dst: CUdeviceptr,
    src: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, Place::Device(dst), Place::Device(src), bytes, Return::Early)
}

/// One end of a 2D copy: `CUmemorytype` 1 host, 2 device, 3 array, 4 unified.
fn end_of_2d(
    kind: u32,
    host: *const c_void,
    device: u64,
    array: *mut c_void,
    (x, y, pitch): (usize, usize, usize),
    width: usize,
) -> Result<Rows, CUresult> {
    let (base, pitch) = match kind {
        1 => (host_place(host), pitch),
        2 => (Place::Device(device), pitch),
        4 => (unified(device)?, pitch),
        3 => {
            let array = array::find(driver()?, CUarray(array))?;
            let row = array.shape.row_bytes();
            (Place::Device(array.address), usize::try_from(row).map_err(|_| CUresult::ERROR_INVALID_VALUE)?)
        }
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    // A pitch of zero means rows without gaps.
    let pitch = if pitch == 0 { x.checked_add(width).ok_or(CUresult::ERROR_INVALID_VALUE)? } else { pitch };
    if x.checked_add(width).is_none_or(|needed| needed > pitch) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let offset =
        y.checked_mul(pitch).and_then(|rows| rows.checked_add(x)).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let at = match base {
        Place::Host(address) => Place::Host(address.wrapping_add(offset as u64)),
        Place::Device(address) => Place::Device(address.wrapping_add(offset as u64)),
    };
    Ok(Rows { at, pitch: pitch as u64 })
}

fn parse_2d(copy: *const CUDA_MEMCPY2D) -> Result<Copy, CUresult> {
    let copy = raw::load(copy)?;
    let width = copy.WidthInBytes;
    let to = (copy.dstXInBytes, copy.dstY, copy.dstPitch);
    let from = (copy.srcXInBytes, copy.srcY, copy.srcPitch);
    Ok(Copy {
        to: end_of_2d(copy.dstMemoryType, copy.dstHost, copy.dstDevice, copy.dstArray, to, width)?,
        from: end_of_2d(copy.srcMemoryType, copy.srcHost, copy.srcDevice, copy.srcArray, from, width)?,
        width: width as u64,
        height: copy.Height as u64,
    })
}

/// One end of a 3D copy: its first row, and the distance of two slices.
fn end_of_3d(
    kind: u32,
    host: *const c_void,
    device: u64,
    array: CUarray,
    (x, y, z): (usize, usize, usize),
    (pitch, height): (usize, usize),
    (width, rows): (usize, usize),
) -> Result<(Rows, u64), CUresult> {
    let (pitch, height) = match kind {
        3 => {
            let shape = array::find(driver()?, array)?.shape;
            (shape.row_bytes(), shape.rows())
        }
        _ => {
            let pitch = if pitch == 0 { x.saturating_add(width) } else { pitch };
            let height = if height == 0 { y.saturating_add(rows) } else { height };
            (pitch as u64, height as u64)
        }
    };
    let slice = pitch.checked_mul(height).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let pitch_words = usize::try_from(pitch).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let first = end_of_2d(kind, host, device, array.0, (x, y, pitch_words), width)?;
    let skipped = slice.checked_mul(z as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok((Rows { at: moved(first.at, skipped), ..first }, slice))
}

fn moved(place: Place, by: u64) -> Place {
    match place {
        Place::Host(address) => Place::Host(address.wrapping_add(by)),
        Place::Device(address) => Place::Device(address.wrapping_add(by)),
    }
}

/// A 3D copy, slice by slice, checked.
fn slices(driver: &Driver, copy: *const CUDA_MEMCPY3D) -> Result<Vec<Copy>, CUresult> {
    let copy = raw::load(copy)?;
    if copy.srcLOD != 0 || copy.dstLOD != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let size = (copy.WidthInBytes, copy.Height);
    let (to, to_slice) = end_of_3d(
        copy.dstMemoryType,
        copy.dstHost,
        copy.dstDevice,
        copy.dstArray,
        (copy.dstXInBytes, copy.dstY, copy.dstZ),
        (copy.dstPitch, copy.dstHeight),
        size,
    )?;
    let (from, from_slice) = end_of_3d(
        copy.srcMemoryType,
        copy.srcHost,
        copy.srcDevice,
        copy.srcArray,
        (copy.srcXInBytes, copy.srcY, copy.srcZ),
        (copy.srcPitch, copy.srcHeight),
        size,
    )?;
    let (width, height) = (copy.WidthInBytes as u64, copy.Height as u64);
    let slices: Vec<Copy> = (0..copy.Depth as u64)
        .map(|z| Copy {
            to: Rows { at: moved(to.at, to_slice.wrapping_mul(z)), ..to },
            from: Rows { at: moved(from.at, from_slice.wrapping_mul(z)), ..from },
            width,
            height,
        })
        .collect();
    if width > 0 && height > 0 {
        for slice in &slices {
            check(driver, slice.to, width, height)?;
            check(driver, slice.from, width, height)?;
        }
    }
    Ok(slices)
}

fn run_3d(mode: ThreadMode, copy: *const CUDA_MEMCPY3D, stream: CUstream, back: Return) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    slices(driver, copy)?.into_iter().try_for_each(|slice| run(driver, &stream, slice, back))
}

/// The commands of a copy node of a graph.
pub(crate) fn commands_3d(driver: &Driver, copy: *const CUDA_MEMCPY3D) -> Result<Vec<Command>, CUresult> {
    let command = |slice: Copy| Command::Copy {
        to: located(driver, slice.to),
        from: located(driver, slice.from),
        width: slice.width,
        height: slice.height,
        staged: false,
    };
    Ok(slices(driver, copy)?.into_iter().map(command).collect())
}

fn copy_3d(mode: ThreadMode, copy: *const CUDA_MEMCPY3D) -> Answer {
    run_3d(mode, copy, CUstream::NULL, Return::Done)
}

fn copy_3d_async(mode: ThreadMode, copy: *const CUDA_MEMCPY3D, stream: CUstream) -> Answer {
    run_3d(mode, copy, stream, Return::Early)
}

/// The bytes of an array from an offset on, as one row.
fn in_array(array: CUarray, offset: usize, bytes: usize) -> Result<Place, CUresult> {
    let array = array::find(driver()?, array)?;
    let end = (offset as u64).checked_add(bytes as u64).filter(|&end| end <= array.shape.bytes());
    end.map(|_| Place::Device(array.address + offset as u64)).ok_or(CUresult::ERROR_INVALID_VALUE)
}

fn device_to_array(
    mode: ThreadMode,
    array: CUarray,
    offset: usize,
    src: CUdeviceptr,
    bytes: usize,
) -> Answer {
    linear(mode, CUstream::NULL, in_array(array, offset, bytes)?, Place::Device(src), bytes, Return::Done)
}

fn array_to_device(
    mode: ThreadMode,
    dst: CUdeviceptr,
    array: CUarray,
    offset: usize,
    bytes: usize,
) -> Answer {
    linear(mode, CUstream::NULL, Place::Device(dst), in_array(array, offset, bytes)?, bytes, Return::Done)
}

fn host_to_array(
    mode: ThreadMode,
    array: CUarray,
    offset: usize,
    src: *const c_void,
    bytes: usize,
) -> Answer {
    linear(mode, CUstream::NULL, in_array(array, offset, bytes)?, host_place(src), bytes, Return::Done)
}

fn array_to_host(mode: ThreadMode, dst: *mut c_void, array: CUarray, offset: usize, bytes: usize) -> Answer {
    linear(mode, CUstream::NULL, host_place(dst), in_array(array, offset, bytes)?, bytes, Return::Done)
}

fn host_to_array_async(
    mode: ThreadMode,
    array: CUarray,
    offset: usize,
    src: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, in_array(array, offset, bytes)?, host_place(src), bytes, Return::Early)
}

fn array_to_host_async(
    mode: ThreadMode,
    dst: *mut c_void,
    array: CUarray,
    offset: usize,
    bytes: usize,
    stream: CUstream,
) -> Answer {
    linear(mode, stream, host_place(dst), in_array(array, offset, bytes)?, bytes, Return::Early)
}

fn array_to_array(
    mode: ThreadMode,
    to: CUarray,
    to_offset: usize,
    from: CUarray,
    from_offset: usize,
    bytes: usize,
) -> Answer {
    let (to, from) = (in_array(to, to_offset, bytes)?, in_array(from, from_offset, bytes)?);
    linear(mode, CUstream::NULL, to, from, bytes, Return::Done)
}

fn copy_2d(mode: ThreadMode, copy: *const CUDA_MEMCPY2D) -> Answer {
    let (driver, stream) = find(mode, CUstream::NULL)?;
    run(driver, &stream, parse_2d(copy)?, Return::Done)
}

fn copy_2d_async(mode: ThreadMode, copy: *const CUDA_MEMCPY2D, stream: CUstream) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    run(driver, &stream, parse_2d(copy)?, Return::Early)
}

/// Fills are asynchronous in both forms, except that the plain ones use the default stream.
#[derive(Clone, Copy)]
struct Fill {
    at: u64,
    pitch: u64,
    value: u32,
    element: u32,
    width: usize,
    height: usize,
}

fn fill(mode: ThreadMode, stream: CUstream, fill: Fill) -> Answer {
    let (driver, stream) = find(mode, stream)?;
    let Fill { at, pitch, value, element, width, height } = fill;
    let (width, height) = (width as u64, height as u64);
    if width == 0 || height == 0 {
        return Ok(());
    }
    let row = width.checked_mul(element.into()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let pitch = if height == 1 { row } else { pitch };
    if pitch < row || !at.is_multiple_of(element.into()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    check(driver, Rows { at: Place::Device(at), pitch }, row, height)?;
    driver.submit(&stream, [Command::Fill { at, pitch, value, element, width, height }]).map(|_| ())
}

fn line(at: u64, value: u32, element: u32, width: usize) -> Fill {
    Fill { at, pitch: 0, value, element, width, height: 1 }
}

fn fill_8(mode: ThreadMode, dst: CUdeviceptr, value: u8, count: usize) -> Answer {
    fill(mode, CUstream::NULL, line(dst, value.into(), 1, count))
}

fn fill_16(mode: ThreadMode, dst: CUdeviceptr, value: u16, count: usize) -> Answer {
    fill(mode, CUstream::NULL, line(dst, value.into(), 2, count))
}

fn fill_32(mode: ThreadMode, dst: CUdeviceptr, value: u32, count: usize) -> Answer {
    fill(mode, CUstream::NULL, line(dst, value, 4, count))
}

fn fill_8_async(mode: ThreadMode, dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) -> Answer {
    fill(mode, stream, line(dst, value.into(), 1, count))
}

fn fill_16_async(mode: ThreadMode, dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) -> Answer {
    fill(mode, stream, line(dst, value.into(), 2, count))
}

fn fill_32_async(mode: ThreadMode, dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) -> Answer {
    fill(mode, stream, line(dst, value, 4, count))
}

macro_rules! fills_of_rows {
    ($($name:ident, $asynchronous:ident of $value:ty, $bytes:literal;)*) => {$(
        fn $name(mode: ThreadMode, dst: CUdeviceptr, pitch: usize, value: $value, width: usize, height: usize) -> Answer {
            $asynchronous(mode, dst, pitch, value, width, height, CUstream::NULL)
        }

        fn $asynchronous(
            mode: ThreadMode,
            dst: CUdeviceptr,
            pitch: usize,
            value: $value,
            width: usize,
            height: usize,
            stream: CUstream,
        ) -> Answer {
            let value = u32::from(value);
            fill(mode, stream, Fill { at: dst, pitch: pitch as u64, value, element: $bytes, width, height })
        }
    )*};
}
fills_of_rows! {
    fill_2d_8, fill_2d_8_async of u8, 1;
    fill_2d_16, fill_2d_16_async of u16, 2;
    fill_2d_32, fill_2d_32_async of u32, 4;
}

twins! {
    cuMemcpy, cuMemcpy_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) = copy;
    cuMemcpyAsync, cuMemcpyAsync_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) = copy_async;
    cuMemcpyHtoD_v2, cuMemcpyHtoD_v2_ptds (dst: CUdeviceptr, src: *const c_void, bytes: usize) = to_device;
    cuMemcpyDtoH_v2, cuMemcpyDtoH_v2_ptds (dst: *mut c_void, src: CUdeviceptr, bytes: usize) = from_device;
    cuMemcpyDtoD_v2, cuMemcpyDtoD_v2_ptds (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) = on_device;
    cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync_v2_ptsz (dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) = to_device_async;
    cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_ptsz (dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) = from_device_async;
    cuMemcpyDtoDAsync_v2, cuMemcpyDtoDAsync_v2_ptsz (dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) = on_device_async;
    cuMemcpy2D_v2, cuMemcpy2D_v2_ptds (copy: *const CUDA_MEMCPY2D) = copy_2d;
    cuMemcpy2DUnaligned_v2, cuMemcpy2DUnaligned_v2_ptds (copy: *const CUDA_MEMCPY2D) = copy_2d;
    cuMemcpy2DAsync_v2, cuMemcpy2DAsync_v2_ptsz (copy: *const CUDA_MEMCPY2D, stream: CUstream) = copy_2d_async;
    cuMemcpy3D_v2, cuMemcpy3D_v2_ptds (copy: *const CUDA_MEMCPY3D) = copy_3d;
    cuMemcpy3DAsync_v2, cuMemcpy3DAsync_v2_ptsz (copy: *const CUDA_MEMCPY3D, stream: CUstream) = copy_3d_async;
    cuMemcpyDtoA_v2, cuMemcpyDtoA_v2_ptds (array: CUarray, offset: usize, src: CUdeviceptr, bytes: usize) = device_to_array;
    cuMemcpyAtoD_v2, cuMemcpyAtoD_v2_ptds (dst: CUdeviceptr, array: CUarray, offset: usize, bytes: usize) = array_to_device;
    cuMemcpyHtoA_v2, cuMemcpyHtoA_v2_ptds (array: CUarray, offset: usize, src: *const c_void, bytes: usize) = host_to_array;
    cuMemcpyAtoH_v2, cuMemcpyAtoH_v2_ptds (dst: *mut c_void, array: CUarray, offset: usize, bytes: usize) = array_to_host;
    cuMemcpyHtoAAsync_v2, cuMemcpyHtoAAsync_v2_ptsz (array: CUarray, offset: usize, src: *const c_void, bytes: usize, stream: CUstream) = host_to_array_async;
    cuMemcpyAtoHAsync_v2, cuMemcpyAtoHAsync_v2_ptsz (dst: *mut c_void, array: CUarray, offset: usize, bytes: usize, stream: CUstream) = array_to_host_async;
    cuMemcpyAtoA_v2, cuMemcpyAtoA_v2_ptds (to: CUarray, to_offset: usize, from: CUarray, from_offset: usize, bytes: usize) = array_to_array;
    cuMemsetD8_v2, cuMemsetD8_v2_ptds (dst: CUdeviceptr, value: u8, count: usize) = fill_8;
    cuMemsetD16_v2, cuMemsetD16_v2_ptds (dst: CUdeviceptr, value: u16, count: usize) = fill_16;
    cuMemsetD32_v2, cuMemsetD32_v2_ptds (dst: CUdeviceptr, value: u32, count: usize) = fill_32;
    cuMemsetD8Async, cuMemsetD8Async_ptsz (dst: CUdeviceptr, value: u8, count: usize, stream: CUstream) = fill_8_async;
    cuMemsetD16Async, cuMemsetD16Async_ptsz (dst: CUdeviceptr, value: u16, count: usize, stream: CUstream) = fill_16_async;
    cuMemsetD32Async, cuMemsetD32Async_ptsz (dst: CUdeviceptr, value: u32, count: usize, stream: CUstream) = fill_32_async;
    cuMemsetD2D8_v2, cuMemsetD2D8_v2_ptds (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) = fill_2d_8;
    cuMemsetD2D16_v2, cuMemsetD2D16_v2_ptds (dst: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize) = fill_2d_16;
    cuMemsetD2D32_v2, cuMemsetD2D32_v2_ptds (dst: CUdeviceptr, pitch: usize, value: u32, width: usize, height: usize) = fill_2d_32;
    cuMemsetD2D8Async, cuMemsetD2D8Async_ptsz (dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize, stream: CUstream) = fill_2d_8_async;
    cuMemsetD2D16Async, cuMemsetD2D16Async_ptsz (dst: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize, stream: CUstream) = fill_2d_16_async;
    cuMemsetD2D32Async, cuMemsetD2D32Async_ptsz (dst: CUdeviceptr, pitch: usize, value: u32, width: usize, height: usize, stream: CUstream) = fill_2d_32_async;
}
