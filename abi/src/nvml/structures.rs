//! NVML's structures about processes and memory limits that newer calls take.

use core::ffi::{c_char, c_uint, c_ulonglong, c_void};

use super::NvmlDevice;

/// `nvmlBAR1Memory_t`: the window through which the host sees device memory, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlBar1Memory {
    /// Whole window.
    pub total: c_ulonglong,
    /// Not in use.
    pub free: c_ulonglong,
    /// In use.
    pub used: c_ulonglong,
}

/// `nvmlProcessDetail_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlProcessDetail {
    /// Process id in the caller's own namespace.
    pub pid: c_uint,
    /// Bytes of device memory in use.
    pub used_gpu_memory: c_ulonglong,
    /// MIG GPU instance, all ones when none.
    pub gpu_instance_id: c_uint,
    /// MIG compute instance, all ones when none.
    pub compute_instance_id: c_uint,
    /// Bytes of protected memory (confidential computing) in use.
    pub used_gpu_cc_protected_memory: c_ulonglong,
}

/// `nvmlProcessDetailList_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlProcessDetailList {
    /// Structure version.
    pub version: c_uint,
    /// `nvmlProcessMode_t`.
    pub mode: c_uint,
    /// Length of the array; on return, number of processes.
    pub count: c_uint,
    /// The caller's array.
    pub processes: *mut NvmlProcessDetail,
}

/// `nvmlProcessUtilizationInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlProcessUtilizationInfo {
    /// CPU time stamp in microseconds.
    pub time_stamp: c_ulonglong,
    /// Process id.
    pub pid: c_uint,
    /// SM utilisation in percent.
    pub sm_util: c_uint,
    /// Memory utilisation in percent.
    pub mem_util: c_uint,
    /// Encoder utilisation in percent.
    pub enc_util: c_uint,
    /// Decoder utilisation in percent.
    pub dec_util: c_uint,
    /// JPEG engine utilisation in percent.
    pub jpg_util: c_uint,
    /// Optical-flow engine utilisation in percent.
    pub ofa_util: c_uint,
}

/// `nvmlProcessesUtilizationInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlProcessesUtilizationInfo {
    /// Structure version.
    pub version: c_uint,
    /// Length of the array; on return, number of processes.
    pub count: c_uint,
    /// Only samples younger than this.
    pub last_seen_time_stamp: c_ulonglong,
    /// The caller's array.
    pub samples: *mut NvmlProcessUtilizationInfo,
}

/// `nvmlAccountingStats_t`: what a process has used in its life.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmlAccountingStats {
    /// Percent of the process's life during which a kernel ran.
    pub gpu_utilization: c_uint,
    /// Percent of it during which memory was read or written.
    pub memory_utilization: c_uint,
    /// Most bytes it ever held.
    pub max_memory_usage: c_ulonglong,
    /// Milliseconds its context was active; 0 while it runs.
    pub time: c_ulonglong,
    /// When it began, in microseconds.
    pub start_time: c_ulonglong,
    /// 1 while it runs.
    pub is_running: c_uint,
    /// For future use.
    pub reserved: [c_uint; 5],
}

/// `nvmlSetMemoryLimits_v1_t`: limits of a cgroup on a device (drivers r615 and later).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlSetMemoryLimits {
    /// Path of the cgroup's directory.
    pub name_space: *const c_char,
    /// Bytes guaranteed under pressure.
    pub soft_limit: c_ulonglong,
    /// Most bytes, all ones for none.
    pub hard_limit: c_ulonglong,
}

/// `nvmlGetMemoryLimits_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlGetMemoryLimits {
    /// Path of the cgroup's directory.
    pub name_space: *const c_char,
    /// Bytes guaranteed under pressure.
    pub soft_limit: c_ulonglong,
    /// Most bytes, all ones for none.
    pub hard_limit: c_ulonglong,
    /// Bytes in use.
    pub current_used: c_ulonglong,
}

/// `NVML_DEVICE_MEMORY_LIMIT_MAX`: no limit.
pub const NVML_DEVICE_MEMORY_LIMIT_MAX: c_ulonglong = c_ulonglong::MAX;
/// Version word of [`NvmlProcessDetailList`].
#[allow(clippy::cast_possible_truncation, reason = "a structure of 24 bytes")]
pub const NVML_PROCESS_DETAIL_LIST_V1: c_uint = size_of::<NvmlProcessDetailList>() as c_uint | (1 << 24);
/// Version word of [`NvmlProcessesUtilizationInfo`].
#[allow(clippy::cast_possible_truncation, reason = "a structure of 24 bytes")]
pub const NVML_PROCESSES_UTILIZATION_INFO_V1: c_uint =
    size_of::<NvmlProcessesUtilizationInfo>() as c_uint | (1 << 24);

const _: () = assert!(size_of::<NvmlProcessDetail>() == 32);
const _: () = assert!(size_of::<NvmlProcessDetailList>() == 24);
const _: () = assert!(size_of::<NvmlProcessUtilizationInfo>() == 40);
const _: () = assert!(size_of::<NvmlProcessesUtilizationInfo>() == 24);
const _: () = assert!(size_of::<NvmlAccountingStats>() == 56);
const _: () = assert!(size_of::<NvmlSetMemoryLimits>() == 24);
const _: () = assert!(size_of::<NvmlGetMemoryLimits>() == 32);

/// Opaque handle of a set of events (`nvmlEventSet_t`).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NvmlEventSet(pub *mut c_void);

/// `nvmlEventTypeXidCriticalError`.
pub const NVML_EVENT_XID: c_ulonglong = 8;

/// `nvmlEventData_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NvmlEventData {
    /// Where it happened.
    pub device: NvmlDevice,
    /// What: one of the event types.
    pub event_type: c_ulonglong,
    /// The number of an Xid error.
    pub event_data: c_ulonglong,
    /// MIG GPU instance, all ones when none.
    pub gpu_instance_id: c_uint,
    /// MIG compute instance, all ones when none.
    pub compute_instance_id: c_uint,
}
