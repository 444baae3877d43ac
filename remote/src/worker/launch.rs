//! Launches, as the driver wants them.

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::driver::Driver;
use crate::limits::LAUNCH_ATTRIBUTES_MAX;
use crate::wire::operation::{LAUNCH_ATTRIBUTE_BYTES, Shape};

/// Keys of the `extra` list: parameters packed in one block, its size, and the end.
const BUFFER_POINTER: u64 = 1;
const BUFFER_SIZE: u64 = 2;
const END: u64 = 0;
/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: u32 = 2;
/// Launch attributes that hold numbers only. Others name events, addresses and objects of the caller's process.
const NUMBERS_ONLY: [u32; 10] = [0, COOPERATIVE, 3, 4, 5, 6, 8, 9, 10, 11];

/// Whether a launch attribute may come from another machine.
pub(crate) fn travels(attribute: u32) -> bool {
    NUMBERS_ONLY.contains(&attribute)
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of).expose_provenance() as u64
}

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: u64,
    count: u32,
}

const _: () = assert!(size_of::<Config>() == 56);

/// One attribute, aligned as in C.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attribute([u8; LAUNCH_ATTRIBUTE_BYTES]);

/// Launches a kernel.
pub(super) fn launch(
    driver: &Driver,
    function: u64,
    shape: &Shape,
    stream: u64,
    attributes: &[u8],
    parameters: &[u8],
) -> CUresult {
    let bytes = parameters.len();
    let block = parameters.as_ptr().expose_provenance() as u64;
    let extra = [BUFFER_POINTER, block, BUFFER_SIZE, address(&bytes), END];
    let extra = if bytes == 0 { 0 } else { address(&extra) };
    if attributes.is_empty() && !shape.cooperative {
        let [gx, gy, gz] = shape.grid.map(u64::from);
        let [bx, by, bz] = shape.block.map(u64::from);
        let words = [function, gx, gy, gz, bx, by, bz, shape.shared_bytes.into(), stream, 0, extra];
        return driver.call(Symbol::cuLaunchKernel, &words);
    }
    let mut list = [Attribute([0; LAUNCH_ATTRIBUTE_BYTES]); LAUNCH_ATTRIBUTES_MAX + 1];
    let mut count = 0;
    for record in attributes.chunks_exact(LAUNCH_ATTRIBUTE_BYTES).take(LAUNCH_ATTRIBUTES_MAX) {
        let identifier = record.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
        if !travels(identifier) {
            return CUresult::ERROR_NOT_SUPPORTED;
        }
        list[count].0.copy_from_slice(record);
        count += 1;
    }
    if shape.cooperative {
        list[count].0[0..4].copy_from_slice(&COOPERATIVE.to_le_bytes());
        list[count].0[8..12].copy_from_slice(&1u32.to_le_bytes());
        count += 1;
    }
    let config = Config {
        grid: shape.grid,
        block: shape.block,
        shared_bytes: shape.shared_bytes,
        stream,
        attributes: address(&list),
        count: u32::try_from(count).unwrap_or(0),
    };
    driver.call(Symbol::cuLaunchKernelEx, &[address(&config), function, 0, extra])
}
