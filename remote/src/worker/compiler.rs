//! Options of the driver's compiler and linker, and what those tell.

use crate::limits::COMPILER_LOG_BYTES;
use crate::wire::Said;

/// `CU_JIT_WALL_TIME`: where the milliseconds go, in the place of the value.
pub(crate) const WALL_TIME: u32 = 2;
/// `CU_JIT_INFO_LOG_BUFFER` and its size, `CU_JIT_ERROR_LOG_BUFFER` and its size.
pub(crate) const INFORMATION_LOG: u32 = 3;
pub(crate) const INFORMATION_LOG_BYTES: u32 = 4;
pub(crate) const ERROR_LOG: u32 = 5;
pub(crate) const ERROR_LOG_BYTES: u32 = 6;
/// `CUjit_option`s whose values are numbers, or of no meaning: registers, threads, wall time, optimisation level,
/// target, fallback, debug and line information, verbosity, cache mode, what link-time optimisation may do, position
/// independence, bounds of blocks.
const NUMBERS_ONLY: [u32; 21] =
    [0, 1, WALL_TIME, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 30, 31, 32];

/// Whether an option may come from another machine.
pub(crate) fn travels(option: u32) -> bool {
    NUMBERS_ONLY.contains(&option)
}

/// Options and values as the driver wants them, with buffers for what it says. They stay where they are, because a
/// link's are written to until it ends.
#[derive(Debug)]
pub(super) struct Options {
    keys: Vec<u32>,
    values: Vec<u64>,
    errors: Vec<u8>,
    information: Vec<u8>,
}

impl Options {
    /// From records of eight bytes, identifier and value.
    pub(super) fn of(records: &[u8]) -> Self {
        let mut options = Self::numbers(records);
        let mut buffer = |key, key_of_bytes| {
            let mut log = vec![0u8; COMPILER_LOG_BYTES];
            options.keys.extend([key, key_of_bytes]);
            // The last byte stays the end of the text, whatever is written.
            options
                .values
                .extend([log.as_mut_ptr().expose_provenance() as u64, COMPILER_LOG_BYTES as u64 - 1]);
            log
        };
        let information = buffer(INFORMATION_LOG, INFORMATION_LOG_BYTES);
        let errors = buffer(ERROR_LOG, ERROR_LOG_BYTES);
        Self { errors, information, ..options }
    }

    /// The same without buffers: an input of a link says what it says in the link's.
    pub(super) fn numbers(records: &[u8]) -> Self {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for record in records.chunks_exact(8) {
            let word = u64::from_le_bytes(record.try_into().unwrap_or_default());
            let key = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
            if travels(key) {
                keys.push(key);
                values.push(word >> 32);
            }
        }
        Self { keys, values, errors: Vec::new(), information: Vec::new() }
    }

    /// Count, identifiers and values, as arguments.
    pub(super) fn words(&mut self) -> [u64; 3] {
        let keys = self.keys.as_mut_ptr().expose_provenance() as u64;
        let values = self.values.as_mut_ptr().expose_provenance() as u64;
        [self.keys.len() as u64, keys, values]
    }

    /// Adds what the driver has said so far to results.
    pub(super) fn tell(&self, results: &mut Vec<u8>) {
        let text = |log: &[u8]| {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            String::from_utf8_lossy(&log[..end]).into_owned()
        };
        let time = self.keys.iter().position(|&key| key == WALL_TIME).map_or(0, |index| self.values[index]);
        let (errors, information) = (text(&self.errors), text(&self.information));
        let wall_time = u32::try_from(time & u64::from(u32::MAX)).unwrap_or(0);
        Said { errors: &errors, information: &information, wall_time }.encode(results);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_pass_and_logs_are_the_workers_own() {
        let record = |key: u32, value: u32| [key.to_le_bytes(), value.to_le_bytes()].concat();
        let records =
            [record(7, 3), record(ERROR_LOG, 0x1000), record(17, 0x1000), record(u32::MAX, 1)].concat();
        let options = Options::numbers(&records);
        assert_eq!((options.keys.as_slice(), options.values.as_slice()), (&[7][..], &[3][..]));
        let mut options = Options::of(&records);
        assert_eq!(options.keys, [7, INFORMATION_LOG, INFORMATION_LOG_BYTES, ERROR_LOG, ERROR_LOG_BYTES]);
        assert_eq!(options.words()[0], 5);
        options.errors[..3].copy_from_slice(b"bad");
        let mut results = Vec::new();
        options.tell(&mut results);
        let said = Said::decode(&mut crate::wire::Reader::new(&results)).unwrap();
        assert_eq!((said.errors, said.information, said.wall_time), ("bad", "", 0));
    }
}
