//! Copies of rectangles and boxes, row by row: what lies between the rows does not travel.

use core::ffi::{c_uint, c_void};

use headgate_abi::cuda::types::{CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUdeviceptr, CUresult, CUstream};

use super::copy::{self, Rows};
use crate::client::state::client;
use crate::client::{Answer, raw};
use crate::word::Word as _;

/// `CUmemorytype`. Arrays do not travel, so no handle is of one.
const HOST: c_uint = 1;
const DEVICE: c_uint = 2;
const UNIFIED: c_uint = 4;

/// One end: where it begins, and how far apart its rows and its slices are.
#[derive(Clone, Copy)]
struct End {
    is_host: bool,
    address: u64,
    pitch: usize,
    slice: usize,
}

/// What a descriptor says of an end.
struct Described {
    kind: c_uint,
    host: u64,
    device: CUdeviceptr,
    /// Bytes, rows and slices before the beginning.
    at: [usize; 3],
    pitch: usize,
    /// Rows of a slice.
    rows: usize,
}

/// What is copied.
#[derive(Clone, Copy)]
struct Extent {
    width: usize,
    height: usize,
    depth: usize,
}

impl Described {
    fn end(&self, extent: Extent) -> Result<End, CUresult> {
        let wrong = CUresult::ERROR_INVALID_VALUE;
        let [x, y, z] = self.at;
        // A pitch of 0 says that there is one row.
        let pitch = if self.pitch == 0 && extent.height == 1 { x + extent.width } else { self.pitch };
        if pitch < x.saturating_add(extent.width) && (1 < extent.height || 1 < extent.depth) {
            return Err(wrong);
        }
        let slice = pitch.checked_mul(self.rows).ok_or(wrong)?;
        let (rows, slices) = (y.checked_mul(pitch).ok_or(wrong)?, z.checked_mul(slice).ok_or(wrong)?);
        let offset = x.checked_add(rows).and_then(|sum| sum.checked_add(slices)).ok_or(wrong)?;
        let (is_host, base) = match self.kind {
            HOST => (true, self.host),
            DEVICE => (false, self.device),
            UNIFIED => (!copy::is_device(client()?, self.device, 1)?, self.device),
            _ => return Err(wrong),
        };
        let address = base.checked_add(offset as u64).ok_or(wrong)?;
        Ok(End { is_host, address, pitch, slice })
    }
}

impl End {
    fn row(self, y: usize, z: usize) -> u64 {
        self.address + (y * self.pitch + z * self.slice) as u64
    }
}

fn copy_rows(stream: CUstream, to: End, from: End, extent: Extent, asynchronous: bool) -> Answer {
    let Extent { width, height, depth } = extent;
    for z in 0..depth {
        if from.is_host || to.is_host {
            if !from.is_host {
                let rows = Rows { bytes: width, count: height, to_step: to.pitch, from_step: from.pitch };
                let there = copy::host_pointer(to.row(0, z));
                copy::read_rows(stream, there, from.row(0, z), &rows, asynchronous)?;
                continue;
            }
            if !to.is_host {
                let rows = Rows { bytes: width, count: height, to_step: to.pitch, from_step: from.pitch };
                let source: *const c_void = copy::host_pointer(from.row(0, z)).cast_const();
                copy::write_rows(stream, to.row(0, z), source, &rows, asynchronous)?;
                continue;
            }
            for y in 0..height {
                let source: *const c_void = copy::host_pointer(from.row(y, z)).cast_const();
                copy::anywhere(stream, to.row(y, z), source.to_word(), width, asynchronous)?;
            }
            continue;
        }
        for y in 0..height {
            copy::on_device(stream, to.row(y, z), from.row(y, z), width)?;
        }
    }
    Ok(())
}

fn copy_box(
    stream: CUstream,
    to: &Described,
    from: &Described,
    extent: Extent,
    asynchronous: bool,
) -> Answer {
    let Extent { width, height, depth } = extent;
    if width == 0 || height == 0 || depth == 0 {
        return Ok(());
    }
    let (to, from) = (to.end(extent)?, from.end(extent)?);
    let flat = |end: End| {
        (height == 1 || end.pitch == width) && (depth == 1 || end.slice == width.saturating_mul(height))
    };
    let whole = width.checked_mul(height).and_then(|bytes| bytes.checked_mul(depth));
    match whole {
        Some(width) if flat(to) && flat(from) => {
            copy_rows(stream, to, from, Extent { width, height: 1, depth: 1 }, asynchronous)
        }
        Some(_) => copy_rows(stream, to, from, extent, asynchronous),
        None => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

fn rectangle(stream: CUstream, copy: *const CUDA_MEMCPY2D, asynchronous: bool) -> Answer {
    let copy = raw::load(copy)?;
    let from = Described {
        kind: copy.srcMemoryType,
        host: copy.srcHost.to_word(),
        device: copy.srcDevice,
        at: [copy.srcXInBytes, copy.srcY, 0],
        pitch: copy.srcPitch,
        rows: copy.Height,
    };
    let to = Described {
        kind: copy.dstMemoryType,
        host: copy.dstHost.to_word(),
        device: copy.dstDevice,
        at: [copy.dstXInBytes, copy.dstY, 0],
        pitch: copy.dstPitch,
        rows: copy.Height,
    };
    let extent = Extent { width: copy.WidthInBytes, height: copy.Height, depth: 1 };
    copy_box(stream, &to, &from, extent, asynchronous)
}

pub fn cuMemcpy2D_v2(copy: *const CUDA_MEMCPY2D) -> Answer {
    copy::may_wait()?;
    rectangle(CUstream::NULL, copy, false)
}

/// Rows of any length travel alike.
pub fn cuMemcpy2DUnaligned_v2(copy: *const CUDA_MEMCPY2D) -> Answer {
    cuMemcpy2D_v2(copy)
}

pub fn cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> Answer {
    rectangle(stream, copy, true)
}

fn cuboid(stream: CUstream, copy: *const CUDA_MEMCPY3D, asynchronous: bool) -> Answer {
    let copy = raw::load(copy)?;
    let from = Described {
        kind: copy.srcMemoryType,
        host: copy.srcHost.to_word(),
        device: copy.srcDevice,
        at: [copy.srcXInBytes, copy.srcY, copy.srcZ],
        pitch: copy.srcPitch,
        rows: copy.srcHeight,
    };
    let to = Described {
        kind: copy.dstMemoryType,
        host: copy.dstHost.to_word(),
        device: copy.dstDevice,
        at: [copy.dstXInBytes, copy.dstY, copy.dstZ],
        pitch: copy.dstPitch,
        rows: copy.dstHeight,
    };
    let extent = Extent { width: copy.WidthInBytes, height: copy.Height, depth: copy.Depth };
    copy_box(stream, &to, &from, extent, asynchronous)
}

pub fn cuMemcpy3D_v2(copy: *const CUDA_MEMCPY3D) -> Answer {
    copy::may_wait()?;
    cuboid(CUstream::NULL, copy, false)
}

pub fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) -> Answer {
    cuboid(stream, copy, true)
}
