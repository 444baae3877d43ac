//! Options of the compiler and the linker, as programs pass them, and where they want to read what was said.

use core::ffi::{c_char, c_uint, c_void};

use headgate_abi::cuda::types::{CUenum, CUresult};

use crate::client::{Answer, raw};
use crate::wire::Said;
use crate::word::Word as _;
use crate::worker::compiler::{
    ERROR_LOG, ERROR_LOG_BYTES, INFORMATION_LOG, INFORMATION_LOG_BYTES, WALL_TIME, travels,
};

/// Most options looked at.
const OPTIONS_MAX: usize = 64;
/// Options that name things in the program's memory and change what is made: symbols' addresses, kernels and variables
/// to keep. They do not travel.
const NAMES: [CUenum; 6] = [17, 18, 25, 26, 27, 28];

/// Options. A link keeps its own until it ends, as the program has to keep the places they name.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// What travels.
    pub(super) records: Vec<u8>,
    errors: Log,
    information: Log,
    /// Where the milliseconds go; addresses in the program, 0 for none.
    wall_time: usize,
}

/// A buffer in the program, and where its length is told and the length of what was written goes.
#[derive(Clone, Copy, Debug, Default)]
struct Log {
    buffer: usize,
    bytes: usize,
    bytes_at: usize,
}

impl Options {
    pub(super) fn read(count: c_uint, keys: *mut CUenum, values: *mut *mut c_void) -> Result<Self, CUresult> {
        let mut options = Self::default();
        if count as usize > OPTIONS_MAX {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        for index in 0..count as usize {
            let (key, value) = (raw::load_at(keys, index)?, raw::load_at(values, index)?);
            let place = values.wrapping_add(index).expose_provenance();
            match key {
                ERROR_LOG => options.errors.buffer = value.expose_provenance(),
                ERROR_LOG_BYTES => (options.errors.bytes, options.errors.bytes_at) = (value.addr(), place),
                INFORMATION_LOG => options.information.buffer = value.expose_provenance(),
                INFORMATION_LOG_BYTES => {
                    (options.information.bytes, options.information.bytes_at) = (value.addr(), place);
                }
                _ if NAMES.contains(&key) => return Err(CUresult::ERROR_NOT_SUPPORTED),
                _ if travels(key) => {
                    if key == WALL_TIME {
                        options.wall_time = place;
                    }
                    options.records.extend_from_slice(&key.to_le_bytes());
                    options.records.extend_from_slice(&u32::from_word(value.addr() as u64).to_le_bytes());
                }
                // Others are hints of newer releases, which older drivers pass over as well.
                _ => {}
            }
        }
        Ok(options)
    }

    /// Writes what was said where the program wants it.
    pub(super) fn write(&self, said: &Said<'_>) -> Answer {
        self.errors.write(said.errors)?;
        self.information.write(said.information)?;
        let place: *mut u32 = core::ptr::with_exposed_provenance_mut(self.wall_time);
        raw::store_if(place, said.wall_time);
        Ok(())
    }
}

impl Log {
    fn write(self, text: &str) -> Answer {
        if self.buffer == 0 || self.bytes == 0 {
            return Ok(());
        }
        let buffer: *mut c_char = core::ptr::with_exposed_provenance_mut(self.buffer);
        raw::store_text(buffer, self.bytes, text)?;
        // The driver tells how much it wrote in the place of the size.
        let place: *mut usize = core::ptr::with_exposed_provenance_mut(self.bytes_at);
        raw::store_if(place, text.len().min(self.bytes - 1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_and_times_arrive_where_the_program_wants_them() {
        let (mut errors, mut information) = ([1 as c_char; 8], [1 as c_char; 64]);
        let mut keys = [ERROR_LOG, ERROR_LOG_BYTES, INFORMATION_LOG, INFORMATION_LOG_BYTES, WALL_TIME, 7];
        let number = |value| core::ptr::without_provenance_mut::<c_void>(value);
        let mut values = [
            errors.as_mut_ptr().cast(),
            number(8),
            information.as_mut_ptr().cast(),
            number(64),
            number(0),
            number(3),
        ];
        let options = Options::read(6, keys.as_mut_ptr(), values.as_mut_ptr()).unwrap();
        assert_eq!(options.records, [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0], "only numbers travel");
        let said = Said { errors: "more than fits", information: "fine", wall_time: 2.5f32.to_bits() };
        options.write(&said).unwrap();
        let text = |log: &[c_char]| -> String {
            log.iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte.cast_unsigned())).collect()
        };
        assert_eq!((text(&errors).as_str(), text(&information).as_str()), ("more th", "fine"));
        assert_eq!((values[1].addr(), values[3].addr()), (7, 4));
        assert_eq!(values[4].addr() as u64 & 0xffff_ffff, u64::from(2.5f32.to_bits()));
        keys[0] = NAMES[0];
        let refused = Options::read(6, keys.as_mut_ptr(), values.as_mut_ptr());
        assert_eq!(refused.map(|_| ()), Err(CUresult::ERROR_NOT_SUPPORTED));
    }
}
