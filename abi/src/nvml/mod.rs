//! NVML as Headgate sees it: C types and the one symbol table.
//!
//! Unlike the driver API, NVML has no look-up function: programs take its names by `dlsym` or link them.

mod structures;

use core::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

pub use structures::*;

/// Opaque device handle (`nvmlDevice_t`).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NvmlDevice(pub *mut c_void);

/// Status of an NVML call (`nvmlReturn_t`).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NvmlReturn(pub c_uint);

impl NvmlReturn {
    /// No error.
    pub const SUCCESS: Self = Self(0);
    /// `nvmlInit` has not been called.
    pub const ERROR_UNINITIALIZED: Self = Self(1);
    /// An argument is wrong.
    pub const ERROR_INVALID_ARGUMENT: Self = Self(2);
    /// The call is not supported on this device.
    pub const ERROR_NOT_SUPPORTED: Self = Self(3);
    /// The caller may not do this.
    pub const ERROR_NO_PERMISSION: Self = Self(4);
    /// No such thing.
    pub const ERROR_NOT_FOUND: Self = Self(6);
    /// The caller's buffer is too small; the needed size has been written.
    pub const ERROR_INSUFFICIENT_SIZE: Self = Self(7);
    /// Nothing happened in the time given.
    pub const ERROR_TIMEOUT: Self = Self(10);
    /// The driver is not loaded.
    pub const ERROR_DRIVER_NOT_LOADED: Self = Self(9);
    /// The library has no such function.
    pub const ERROR_FUNCTION_NOT_FOUND: Self = Self(13);
    /// A versioned structure has a version this library does not know.
    pub const ERROR_ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    /// Anything else.
    pub const ERROR_UNKNOWN: Self = Self(999);
}

/// `nvmlMemory_t`: frame-buffer memory in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlMemory {
    /// Installed.
    pub total: c_ulonglong,
    /// Not allocated.
    pub free: c_ulonglong,
    /// Allocated, the driver's own share included.
    pub used: c_ulonglong,
}

/// `nvmlMemory_v2_t`: as above, with the driver's share apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlMemoryV2 {
    /// Structure version: `size | 2 << 24`.
    pub version: c_uint,
    /// Installed.
    pub total: c_ulonglong,
    /// Held by the driver and firmware.
    pub reserved: c_ulonglong,
    /// Not allocated.
    pub free: c_ulonglong,
    /// Allocated by programs.
    pub used: c_ulonglong,
}

/// Version word of [`NvmlMemoryV2`].
#[allow(clippy::cast_possible_truncation, reason = "a structure of 40 bytes")]
pub const NVML_MEMORY_V2: c_uint = size_of::<NvmlMemoryV2>() as c_uint | (2 << 24);

/// `nvmlProcessInfo_t` as the `_v2` and `_v3` calls use it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlProcessInfo {
    /// Process id in the caller's own namespace.
    pub pid: c_uint,
    /// Bytes of device memory in use, all ones when the driver cannot tell.
    pub used_gpu_memory: c_ulonglong,
    /// MIG GPU instance, all ones when none.
    pub gpu_instance_id: c_uint,
    /// MIG compute instance, all ones when none.
    pub compute_instance_id: c_uint,
}

/// `nvmlProcessInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlProcessInfoV1 {
    /// Process id in the caller's own namespace.
    pub pid: c_uint,
    /// Bytes of device memory in use.
    pub used_gpu_memory: c_ulonglong,
}

/// `nvmlUtilization_t`: percentages over the last sample period.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlUtilization {
    /// Percent of time a kernel was resident.
    pub gpu: c_uint,
    /// Percent of time memory was read or written.
    pub memory: c_uint,
}

/// `nvmlProcessUtilizationSample_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlProcessUtilizationSample {
    /// Process id.
    pub pid: c_uint,
    /// CPU time stamp in microseconds.
    pub time_stamp: c_ulonglong,
    /// SM utilisation in percent.
    pub sm_util: c_uint,
    /// Memory utilisation in percent.
    pub mem_util: c_uint,
    /// Encoder utilisation in percent.
    pub enc_util: c_uint,
    /// Decoder utilisation in percent.
    pub dec_util: c_uint,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlPciInfo {
    /// `domain:bus:device.function` with a 16-bit domain.
    pub bus_id_legacy: [c_char; 16],
    /// PCI domain.
    pub domain: c_uint,
    /// PCI bus.
    pub bus: c_uint,
    /// PCI device.
    pub device: c_uint,
    /// Device and vendor id.
    pub pci_device_id: c_uint,
    /// Subsystem id.
    pub pci_sub_system_id: c_uint,
    /// `domain:bus:device.function` with a 32-bit domain.
    pub bus_id: [c_char; 32],
}

/// Calls the macro `$visit` with every NVML row, behind any `$context` tokens.
///
/// A row is `elf_name (arguments) [hooked | passed];`. Every entry point but `nvmlErrorString` returns an
/// [`NvmlReturn`]; that one is left to the stand-ins to export by hand.
#[macro_export]
macro_rules! nvml_symbols {
    ($visit:path $(, $context:tt)*) => {
        $visit! { [$($context)*]
            nvmlInit () [hooked];
            nvmlInit_v2 () [hooked];
            nvmlInitWithFlags (flags: c_uint) [hooked];
            nvmlShutdown () [passed];
            nvmlSystemGetDriverVersion (version: *mut c_char, length: c_uint) [passed];
            nvmlSystemGetNVMLVersion (version: *mut c_char, length: c_uint) [passed];
            nvmlSystemGetCudaDriverVersion (version: *mut c_int) [passed];
            nvmlSystemGetCudaDriverVersion_v2 (version: *mut c_int) [passed];
            nvmlSystemGetProcessName (pid: c_uint, name: *mut c_char, length: c_uint) [passed];
            nvmlDeviceGetCount (count: *mut c_uint) [passed];
            nvmlDeviceGetCount_v2 (count: *mut c_uint) [passed];
            nvmlDeviceGetHandleByIndex (index: c_uint, device: *mut NvmlDevice) [passed];
            nvmlDeviceGetHandleByIndex_v2 (index: c_uint, device: *mut NvmlDevice) [passed];
            nvmlDeviceGetHandleByUUID (uuid: *const c_char, device: *mut NvmlDevice) [passed];
            nvmlDeviceGetHandleByPciBusId (bus_id: *const c_char, device: *mut NvmlDevice) [passed];
            nvmlDeviceGetHandleByPciBusId_v2 (bus_id: *const c_char, device: *mut NvmlDevice) [passed];
            nvmlDeviceGetIndex (device: NvmlDevice, index: *mut c_uint) [passed];
            nvmlDeviceGetName (device: NvmlDevice, name: *mut c_char, length: c_uint) [passed];
            nvmlDeviceGetUUID (device: NvmlDevice, uuid: *mut c_char, length: c_uint) [passed];
            nvmlDeviceGetMinorNumber (device: NvmlDevice, minor: *mut c_uint) [passed];
            nvmlDeviceGetPciInfo_v3 (device: NvmlDevice, info: *mut NvmlPciInfo) [passed];
            nvmlDeviceGetMemoryInfo (device: NvmlDevice, memory: *mut NvmlMemory) [hooked];
            nvmlDeviceGetMemoryInfo_v2 (device: NvmlDevice, memory: *mut NvmlMemoryV2) [hooked];
            nvmlDeviceGetBAR1MemoryInfo (device: NvmlDevice, memory: *mut NvmlBar1Memory) [passed];
            nvmlDeviceGetConfComputeProtectedMemoryUsage (device: NvmlDevice, memory: *mut NvmlMemory) [hooked];
            nvmlDeviceSetMemoryLimits_v1 (device: NvmlDevice, limits: *mut NvmlSetMemoryLimits) [passed];
            nvmlDeviceGetMemoryLimits_v1 (device: NvmlDevice, limits: *mut NvmlGetMemoryLimits) [passed];
            nvmlDeviceGetUtilizationRates (device: NvmlDevice, utilization: *mut NvmlUtilization) [passed];
            nvmlDeviceGetComputeRunningProcesses (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfoV1) [hooked];
            nvmlDeviceGetComputeRunningProcesses_v2 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetComputeRunningProcesses_v3 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetGraphicsRunningProcesses (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfoV1) [hooked];
            nvmlDeviceGetGraphicsRunningProcesses_v2 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetGraphicsRunningProcesses_v3 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetMPSComputeRunningProcesses (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfoV1) [hooked];
            nvmlDeviceGetMPSComputeRunningProcesses_v2 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetMPSComputeRunningProcesses_v3 (device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) [hooked];
            nvmlDeviceGetRunningProcessDetailList (device: NvmlDevice, list: *mut NvmlProcessDetailList) [hooked];
            nvmlDeviceGetProcessesUtilizationInfo (device: NvmlDevice, info: *mut NvmlProcessesUtilizationInfo) [hooked];
            nvmlDeviceGetAccountingMode (device: NvmlDevice, mode: *mut c_uint) [passed];
            nvmlDeviceGetAccountingPids (device: NvmlDevice, count: *mut c_uint, pids: *mut c_uint) [hooked];
            nvmlDeviceGetAccountingStats (device: NvmlDevice, pid: c_uint, stats: *mut NvmlAccountingStats) [passed];
            nvmlDeviceGetProcessUtilization (device: NvmlDevice, samples: *mut NvmlProcessUtilizationSample, count: *mut c_uint, since_us: c_ulonglong) [hooked];
            nvmlDeviceGetSupportedEventTypes (device: NvmlDevice, types: *mut c_ulonglong) [passed];
            nvmlDeviceRegisterEvents (device: NvmlDevice, types: c_ulonglong, set: NvmlEventSet) [passed];
            nvmlEventSetCreate (set: *mut NvmlEventSet) [passed];
            nvmlEventSetWait_v2 (set: NvmlEventSet, data: *mut NvmlEventData, timeout_ms: c_uint) [passed];
            nvmlEventSetFree (set: NvmlEventSet) [passed];
            nvmlDeviceGetCudaComputeCapability (device: NvmlDevice, major: *mut c_int, minor: *mut c_int) [passed];
        }
    };
}

/// Whether the hook stands in front of an NVML entry point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Name in the library's symbol table.
    pub elf_name: &'static str,
    /// Whether the hook exports a shell for it.
    pub hooked: bool,
}

macro_rules! hooked {
    (hooked) => {
        true
    };
    (passed) => {
        false
    };
}

macro_rules! define {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$hook:ident];)*) => {
        /// An entry point of the table; its value is the row's index.
        #[allow(non_camel_case_types, missing_docs, reason = "the variants are the C names themselves")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Symbol { $($name,)* }

        /// The rows in table order.
        pub static ROWS: &[Row] = &[$(Row { elf_name: stringify!($name), hooked: hooked!($hook) },)*];

        /// The symbols in table order.
        pub static SYMBOLS: &[Symbol] = &[$(Symbol::$name,)*];

        // The signatures are used by the hook and the stand-ins; naming their types here keeps a row with an
        // unknown type from compiling at all.
        const _: () = { $(const _: Option<fn($($ty),*) -> NvmlReturn> = None;)* };
    };
}
nvml_symbols!(define);

impl Symbol {
    /// Index into arrays kept per symbol.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

const _: () = assert!(size_of::<NvmlMemoryV2>() == 40);
const _: () = assert!(size_of::<NvmlProcessInfo>() == 24);
const _: () = assert!(size_of::<NvmlProcessUtilizationSample>() == 32);
const _: () = assert!(size_of::<NvmlPciInfo>() == 68);
