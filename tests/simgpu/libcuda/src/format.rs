//! Shapes of arrays: how many bytes their elements, rows and levels take.
//!
//! Arrays lie here as plain rows without gaps; real devices tile them. What an array takes of the device is its bytes
//! rounded up to the granule of ordinary allocations (512 bytes), once for an array or a whole mipmap.

use headgate_abi::cuda::types::{CUDA_ARRAY3D_CUBEMAP, CUDA_ARRAY3D_LAYERED, CUresult};

/// An array's shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) width: u64,
    /// 0 for one dimension.
    pub(crate) height: u64,
    /// 0 for at most two dimensions; layers or faces where the flags say so.
    pub(crate) depth: u64,
    pub(crate) format: u32,
    pub(crate) channels: u32,
    pub(crate) flags: u32,
}

/// How a format's elements are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Element {
    /// Bytes of an element, or of a block of elements.
    bytes: u64,
    /// Elements along each side of a block.
    side: u64,
}

/// Bytes of one channel, or of the whole element where the format says how many channels it has.
fn element(format: u32, channels: u32) -> Option<Element> {
    let plain = |bytes: u64| {
        matches!(channels, 1 | 2 | 4).then_some(Element { bytes: bytes * u64::from(channels), side: 1 })
    };
    let whole = |bytes: u64, wanted: u32| (channels == wanted).then_some(Element { bytes, side: 1 });
    let blocks = |bytes: u64, wanted: u32| (channels == wanted).then_some(Element { bytes, side: 4 });
    match format {
        0x01 | 0x08 => plain(1),
        0x02 | 0x09 | 0x10 => plain(2),
        0x03 | 0x0a | 0x20 => plain(4),
        0xc0 | 0xc6 => whole(1, 1),
        0xc1 | 0xc7 => whole(2, 2),
        0xc2 | 0xc8 => whole(4, 4),
        0xc3 | 0xc9 => whole(2, 1),
        0xc4 | 0xca => whole(4, 2),
        0xc5 | 0xcb => whole(8, 4),
        0x50 => whole(4, 4),
        // Block compression: BC1 and BC4 take 8 bytes for 4 x 4 elements, the others 16.
        0x91 | 0x92 => blocks(8, 4),
        0x97 | 0x98 => blocks(8, 1),
        0x93..=0x96 | 0x9d | 0x9e => blocks(16, 4),
        0x99 | 0x9a => blocks(16, 2),
        0x9b | 0x9c => blocks(16, 3),
        _ => None,
    }
}

impl Shape {
    /// Checks a shape, as `cuArray3DCreate` documents it.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for formats that hold several planes (video) and for arrays whose memory is mapped later.
    pub(crate) fn check(&self) -> Result<(), CUresult> {
        const SURFACE: u32 = 0x2;
        const TEXTURE_GATHER: u32 = 0x8;
        const COLOR_ATTACHMENT: u32 = 0x20;
        const KNOWN: u32 =
            CUDA_ARRAY3D_LAYERED | SURFACE | CUDA_ARRAY3D_CUBEMAP | TEXTURE_GATHER | COLOR_ATTACHMENT;
        if self.flags & !KNOWN != 0 || matches!(self.format, 0x9f..=0xb5 | 0x51..=0x5e) {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let is_layered = self.flags & CUDA_ARRAY3D_LAYERED != 0;
        let is_cube = self.flags & CUDA_ARRAY3D_CUBEMAP != 0;
        let faces = if is_layered { self.depth.is_multiple_of(6) } else { self.depth == 6 };
        let sides_fit = self.width > 0
            && (self.depth == 0 || self.height > 0 || is_layered)
            && (!is_cube || (self.width == self.height && self.depth > 0 && faces))
            && (!is_layered || self.depth > 0);
        let most = [self.width, self.height, self.depth].into_iter().max().unwrap_or(0);
        if !sides_fit || most > 1 << 17 || element(self.format, self.channels).is_none() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Ok(())
    }

    fn element(&self) -> Element {
        // Shapes are checked before they are kept.
        element(self.format, self.channels).unwrap_or(Element { bytes: 1, side: 1 })
    }

    /// Bytes of a row of elements, or of blocks.
    pub(crate) fn row_bytes(&self) -> u64 {
        let element = self.element();
        self.width.div_ceil(element.side).saturating_mul(element.bytes)
    }

    /// Rows of a slice.
    pub(crate) fn rows(&self) -> u64 {
        self.height.max(1).div_ceil(self.element().side)
    }

    /// Bytes of a slice.
    pub(crate) fn slice_bytes(&self) -> u64 {
        self.row_bytes().saturating_mul(self.rows())
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> u64 {
        self.slice_bytes().saturating_mul(self.depth.max(1))
    }

    /// Levels of detail down to one element.
    pub(crate) fn levels_max(&self) -> u32 {
        let depth = if self.is_stack() { 0 } else { self.depth };
        u64::BITS - self.width.max(self.height).max(depth).leading_zeros()
    }

    /// The shape of a level of detail. Layers and faces do not shrink.
    pub(crate) fn level(&self, level: u32) -> Self {
        let shrink = |side: u64| if side == 0 { 0 } else { (side >> level).max(1) };
        let depth = if self.is_stack() { self.depth } else { shrink(self.depth) };
        Self { width: shrink(self.width), height: shrink(self.height), depth, ..*self }
    }

    fn is_stack(&self) -> bool {
        self.flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP) != 0
    }
}
