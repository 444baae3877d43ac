//! Device attributes: those of an H100-class device, as far as a simulated one has them.

use headgate_abi::cuda::types::CUenum;
use headgate_simgpu::config::DeviceInfo;

/// Largest `CUdevice_attribute` of CUDA 13.5; those up to it that are not listed are features the device lacks.
const LAST: CUenum = 160;

pub(crate) const THREADS_PER_BLOCK_MAX: u32 = 1_024;
pub(crate) const BLOCK_MAX: [u32; 3] = [1_024, 1_024, 64];
pub(crate) const GRID_MAX: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
pub(crate) const SHARED_PER_BLOCK: u32 = 48 << 10;
pub(crate) const SHARED_PER_BLOCK_OPTIN: u32 = 227 << 10;
pub(crate) const SHARED_PER_SM: u32 = 228 << 10;
pub(crate) const SHARED_RESERVED_PER_BLOCK: u32 = 1 << 10;
pub(crate) const THREADS_PER_SM: u32 = 2_048;
pub(crate) const BLOCKS_PER_SM: u32 = 32;
pub(crate) const REGISTERS_PER_SM: u32 = 65_536;
pub(crate) const WARP: u32 = 32;

/// The value of an attribute (`CUdevice_attribute`); `None` for one that no CUDA version has.
pub(crate) fn device(device: &DeviceInfo, attribute: CUenum) -> Option<i32> {
    let (major, minor) = device.compute_capability;
    let value = match attribute {
        1 => THREADS_PER_BLOCK_MAX,
        2..=4 => BLOCK_MAX[attribute as usize - 2],
        5..=7 => GRID_MAX[attribute as usize - 5],
        8 => SHARED_PER_BLOCK,
        9 => 64 << 10, // constant memory
        10 => WARP,
        11 => i32::MAX as u32, // pitch
        12 | 82 => REGISTERS_PER_SM,
        13 => 1_980_000, // clock in kHz
        14 => 512,       // texture alignment
        15 | 31 => 1,    // overlap and concurrent kernels
        16 => device.sms,
        19 => 1, // can map host memory
        33 => device.pci_bus,
        34 | 50 => 0,                     // PCI device and domain
        21..=29 | 42..=74 | 77 => 16_384, // texture and surface sizes
        36 => 2_619_000,                  // memory clock in kHz
        37 => 5_120,                      // memory bus in bits
        38 => 50 << 20,                   // L2
        39 => THREADS_PER_SM,
        40 => 2, // copy engines
        41 => 1, // unified addressing
        75 => major,
        76 => minor,
        78 => 1,      // stream priorities
        79 | 80 => 1, // L1 caching
        81 => SHARED_PER_SM,
        90 => 1,                  // preemption within a kernel
        91 => 1,                  // host pointers can be used for registered memory
        92..=94 | 122 | 123 => 1, // stream memory operations, both versions, 64 bits, NOR
        95 | 96 => 1,             // cooperative launch, over several devices, too
        97 => SHARED_PER_BLOCK_OPTIN,
        99 => 1, // host memory can be registered
        106 => BLOCKS_PER_SM,
        111 => SHARED_RESERVED_PER_BLOCK,
        115 => 1, // memory pools
        83 => 1,  // managed memory; without 89, concurrent access, it does not move by page faults
        102 => 1, // virtual memory management
        103 => 1, // its handles as file descriptors
        119 => 1, // pools' handles: file descriptors
        132 => 1, // multicast objects
        141 => 1, // host memory by virtual memory management
        // Everything else up to the last is a feature this device has not: peer access, clusters, texture extras,
        // confidential computing.
        0..=LAST => 0,
        _ => return None,
    };
    i32::try_from(value).ok()
}
