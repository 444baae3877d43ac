//! What a worker tells of a kernel, so that the client needs not ask again.

use super::codec::{Malformed, Put, Reader};
use crate::image::Layout;
use crate::limits::PARAMETER_BYTES_MAX;

/// Function attributes told: `CU_FUNC_ATTRIBUTE_*` 0 to 15.
pub const FUNCTION_ATTRIBUTES: usize = 16;

/// A kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Described {
    /// `cuFuncGetAttribute`, by number; `None` where the driver refuses.
    pub attributes: [Option<i32>; FUNCTION_ATTRIBUTES],
    /// Where its parameters lie; `None` where the driver cannot tell.
    pub layout: Option<Layout>,
}

impl Described {
    /// Adds it to a payload.
    pub fn encode(&self, to: &mut Vec<u8>) {
        for attribute in self.attributes {
            to.varint(attribute.map_or(0, |value| u64::from(value.cast_unsigned()) + 1));
        }
        match &self.layout {
            None => to.varint(0),
            Some(layout) => {
                to.varint(layout.len() as u64 + 1);
                for &(offset, bytes) in layout {
                    to.varint(offset.into());
                    to.varint(bytes.into());
                }
            }
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut attributes = [None; FUNCTION_ATTRIBUTES];
        for attribute in &mut attributes {
            *attribute = match from.varint()?.checked_sub(1) {
                None => None,
                Some(bits) => Some(u32::try_from(bits).map_err(|_| Malformed::Overlong)?.cast_signed()),
            };
        }
        let layout = match from.varint()?.checked_sub(1) {
            None => None,
            Some(count) if count <= PARAMETER_BYTES_MAX as u64 => {
                let mut layout = Layout::new();
                for _ in 0..count {
                    layout.push((from.varint32()?, from.varint32()?));
                }
                Some(layout)
            }
            Some(length) => return Err(Malformed::TooLong { length, most: PARAMETER_BYTES_MAX }),
        };
        Ok(Self { attributes, layout })
    }
}
