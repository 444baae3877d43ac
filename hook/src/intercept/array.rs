//! Arrays and mipmapped arrays: memory asked for by dimensions and format instead of bytes.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_DESCRIPTOR_v1, CUDA_ARRAY3D_CUBEMAP, CUDA_ARRAY3D_DEFERRED_MAPPING,
    CUDA_ARRAY3D_DESCRIPTOR, CUDA_ARRAY3D_DESCRIPTOR_v1, CUDA_ARRAY3D_LAYERED, CUDA_ARRAY3D_SPARSE, CUarray,
    CUenum, CUmipmappedArray,
};

use super::place::{self, Stop};
use crate::driver::{self, Out};
use crate::ledger::{self, arrays, blocks};
use crate::log;
use crate::verdict::{Bypass, Verdict};

/// What is asked for, in one form whatever the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    width: u64,
    height: u64,
    depth: u64,
    format: CUenum,
    channels: u32,
    flags: u32,
}

macro_rules! shapes {
    ($($structure:ident: $shape:ident => $depth:expr, $flags:expr;)*) => {$(
        impl From<$structure> for Shape {
            #[allow(clippy::useless_conversion, reason = "the oldest forms have 32-bit dimensions")]
            fn from($shape: $structure) -> Self {
                Self {
                    width: $shape.Width as u64,
                    height: $shape.Height as u64,
                    depth: $depth as u64,
                    format: $shape.Format,
                    channels: $shape.NumChannels,
                    flags: $flags,
                }
            }
        }
    )*};
}

shapes! {
    CUDA_ARRAY_DESCRIPTOR: shape => 0, 0;
    CUDA_ARRAY_DESCRIPTOR_v1: shape => 0, 0;
    CUDA_ARRAY3D_DESCRIPTOR: shape => shape.Depth, shape.Flags;
    CUDA_ARRAY3D_DESCRIPTOR_v1: shape => shape.Depth, shape.Flags;
}

/// Bits of one element, by `CUarray_format`; for formats that say so themselves, whatever the channels.
fn element_bits(format: CUenum, channels: u32) -> u64 {
    let channels = u64::from(channels.max(1));
    match format {
        0x01 | 0x08 => 8 * channels,
        0x02 | 0x09 | 0x10 => 16 * channels,
        0x03 | 0x0a | 0x20 => 32 * channels,
        // Block compression: 8 or 16 bytes for 4 x 4 elements.
        0x91 | 0x92 | 0x97 | 0x98 => 4,
        0x93..=0x96 | 0x99..=0x9e => 8,
        // Normalised integers of 1, 2 and 4 channels, 8 and 16 bits each.
        0xc0 | 0xc6 => 8,
        0xc1 | 0xc3 | 0xc7 | 0xc9 => 16,
        0xc2 | 0xc4 | 0xc8 | 0xca | 0x50 => 32,
        0xc5 | 0xcb => 64,
        // Video: luma at full, chroma at a quarter, half or full resolution.
        0xb0 | 0x53 | 0x59 => 12,
        0xa2 | 0xa5 | 0x51 | 0x55 | 0x5b => 16,
        0x9f | 0xa1 | 0x54 | 0x5a | 0xb2 | 0xb4 | 0x52 | 0x57 | 0x5d => 24,
        0xa3 | 0xa4 | 0xa6 | 0xa7 | 0xa8 | 0xa9 | 0x56 | 0x5c => 32,
        0xb3 | 0xb5 | 0x58 | 0x5e => 48,
        0xb1 => 64,
        // A format newer than this table: as wide as any known element.
        _ => 128,
    }
}

const fn is_block_compressed(format: CUenum) -> bool {
    matches!(format, 0x91..=0x9e)
}

impl Shape {
    /// Whether the array takes memory when it is made; others are given memory later, which is charged itself.
    fn takes_memory(&self) -> bool {
        self.flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING) == 0
    }

    /// Bytes of one level of detail. A dimension of 0 means there is none.
    fn bytes(&self, level: u32) -> u64 {
        let shrink = |length: u64| length.checked_shr(level).unwrap_or(0).max(1);
        let layered = self.flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP) != 0;
        let (mut width, mut height) = (shrink(self.width), shrink(self.height));
        let depth = if layered { self.depth.max(1) } else { shrink(self.depth) };
        if is_block_compressed(self.format) {
            width = width.next_multiple_of(4);
            height = height.next_multiple_of(4);
        }
        let elements = width.saturating_mul(height).saturating_mul(depth);
        elements.saturating_mul(element_bits(self.format, self.channels)).div_ceil(8)
    }

    fn levels(&self, asked: u32) -> u32 {
        let layered = self.flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP) != 0;
        let longest = self.width.max(self.height).max(if layered { 0 } else { self.depth }).max(1);
        asked.clamp(1, longest.ilog2() + 1)
    }

    fn mipmap_bytes(&self, levels: u32) -> u64 {
        (0..self.levels(levels)).fold(0u64, |sum, level| sum.saturating_add(self.bytes(level)))
    }
}

/// `cuArrayCreate`, `cuArray3DCreate`.
pub(crate) fn create<D: Into<Shape>>(
    array: Out<CUarray>,
    shape: Option<D>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let shape = shape.map(Into::into);
    take(
        shape,
        shape.map_or(0, |shape| shape.bytes(0)),
        move |device| array.get().map(|array| (array.addr(), driver::array_bytes(array, device))),
        |array| driver::destroy_array(CUarray::from_addr(array)),
    )
}

/// `cuMipmappedArrayCreate`.
pub(crate) fn create_mipmap(
    mipmap: Out<CUmipmappedArray>,
    shape: Option<CUDA_ARRAY3D_DESCRIPTOR>,
    levels: u32,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let shape = shape.map(Shape::from);
    take(
        shape,
        shape.map_or(0, |shape| shape.mipmap_bytes(levels)),
        move |device| mipmap.get().map(|mipmap| (mipmap.addr(), driver::mipmap_bytes(mipmap, device))),
        |mipmap| driver::destroy_mipmap(CUmipmappedArray::from_addr(mipmap)),
    )
}

/// Charges an estimate, and settles it with what the driver says of the array it `made`.
fn take(
    shape: Option<Shape>,
    estimate: u64,
    made: impl FnOnce(i32) -> Option<(usize, Option<u64>)>,
    undo: impl FnOnce(usize) -> CUresult,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let reserve = || {
        let place = place::here()?;
        let shape = shape.ok_or(Stop::Bypass(Bypass::DriverWillRefuse))?;
        if !shape.takes_memory() {
            return Err(Stop::Bypass(Bypass::MappedLater));
        }
        Ok((place, place.reserve(estimate)?))
    };
    let (place, mut held) = match reserve() {
        Ok(reserved) => reserved,
        Err(stop) => return Stop::verdict(stop),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        let Some((handle, actual)) = status.is_success().then(|| made(place.device)).flatten() else {
            ledger::credit(held.charge);
            return status;
        };
        if let Some(actual) = actual
            && ledger::settle(&mut held.charge, actual).is_err()
        {
            let undone = undo(handle);
            log::event(format_args!("array undone: {undone:?}"));
            ledger::credit(held.charge);
            return CUresult::ERROR_OUT_OF_MEMORY;
        }
        arrays::hold(handle, held);
        status
    })
}

/// `cuArrayDestroy`, `cuMipmappedArrayDestroy`.
pub(crate) fn destroy(array: usize) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let held = arrays::let_go(array);
    Verdict::ForwardThen(move |status: CUresult| {
        match held {
            Some(held) if status.is_success() => held.end(),
            Some(held) => arrays::hold(array, held),
            None => {}
        }
        if status.is_success() {
            blocks::array_ended(array);
        }
        status
    })
}
