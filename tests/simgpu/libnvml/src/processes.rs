//! Processes in the forms that are not a plain list of compute processes, and accounting.
#![allow(non_snake_case, reason = "the names are those of NVML")]

use core::ffi::{c_char, c_uint, c_ulonglong};

use headgate_abi::nvml::{
    NVML_PROCESS_DETAIL_LIST_V1, NVML_PROCESSES_UTILIZATION_INFO_V1, NvmlDevice, NvmlProcessDetail,
    NvmlProcessDetailList, NvmlProcessInfo, NvmlProcessInfoV1, NvmlProcessUtilizationInfo,
    NvmlProcessesUtilizationInfo, NvmlReturn,
};
use headgate_simgpu::protocol::{ProcessSample, Reply, Request};

use crate::api::{NONE, index, processes};
use crate::raw;
use crate::session::{Answer, ask, connection};

/// Utilisation of processes since a moment.
pub(crate) fn samples(device: NvmlDevice, since_us: c_ulonglong) -> Result<Vec<ProcessSample>, NvmlReturn> {
    let (device, _) = index(device)?;
    match ask(&Request::ProcessUtilisation { device, since_us })? {
        Reply::ProcessSamples(samples) => Ok(samples),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub(crate) fn nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) -> Answer {
    connection()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| NvmlReturn::ERROR_NOT_FOUND)?;
    let first = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(first);
    let room = (length as usize).saturating_sub(1);
    let kept = text.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|&end| end <= room);
    raw::store_text(name, length, &text[..kept.last().unwrap_or(0)])
}

/// The simulated devices draw nothing, and none of their processes come through MPS.
macro_rules! nobody {
    ($($name:ident, $second:ident, $third:ident;)*) => {$(
        pub(crate) fn $name(device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfoV1) -> Answer {
            index(device)?;
            raw::store_list(count, infos, &[])
        }
        pub(crate) fn $second(device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) -> Answer {
            index(device)?;
            raw::store_list(count, infos, &[])
        }
        pub(crate) fn $third(device: NvmlDevice, count: *mut c_uint, infos: *mut NvmlProcessInfo) -> Answer {
            $second(device, count, infos)
        }
    )*};
}
nobody! {
    nvmlDeviceGetGraphicsRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDeviceGetGraphicsRunningProcesses_v3;
    nvmlDeviceGetMPSComputeRunningProcesses, nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlDeviceGetMPSComputeRunningProcesses_v3;
}

pub(crate) fn nvmlDeviceGetRunningProcessDetailList(
    device: NvmlDevice,
    list: *mut NvmlProcessDetailList,
) -> Answer {
    /// `nvmlProcessMode_t`.
    const COMPUTE: c_uint = 0;
    const MPS: c_uint = 2;
    let mut told = raw::load(list.cast_const())?;
    if told.version != NVML_PROCESS_DETAIL_LIST_V1 {
        return Err(NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    let found = match told.mode {
        COMPUTE => processes(device)?,
        1..=MPS => Vec::new(),
        _ => return Err(NvmlReturn::ERROR_INVALID_ARGUMENT),
    };
    let found: Vec<_> = found
        .into_iter()
        .map(|process| NvmlProcessDetail {
            pid: process.pid,
            used_gpu_memory: process.bytes,
            gpu_instance_id: NONE,
            compute_instance_id: NONE,
            used_gpu_cc_protected_memory: 0,
        })
        .collect();
    let outcome = raw::store_list(&raw mut told.count, told.processes, &found);
    raw::store(list, told)?;
    outcome
}

pub(crate) fn nvmlDeviceGetProcessesUtilizationInfo(
    device: NvmlDevice,
    info: *mut NvmlProcessesUtilizationInfo,
) -> Answer {
    let mut told = raw::load(info.cast_const())?;
    if told.version != NVML_PROCESSES_UTILIZATION_INFO_V1 {
        return Err(NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    let found: Vec<_> = samples(device, told.last_seen_time_stamp)?
        .into_iter()
        .map(|sample| NvmlProcessUtilizationInfo {
            time_stamp: sample.at_us,
            pid: sample.pid,
            sm_util: sample.percent,
            ..NvmlProcessUtilizationInfo::default()
        })
        .collect();
    let outcome = raw::store_list(&raw mut told.count, told.samples, &found);
    raw::store(info, told)?;
    outcome
}

/// Accounting is off, as it is on a device that nobody has set up; so its lists and figures are not supported.
pub(crate) fn nvmlDeviceGetAccountingMode(device: NvmlDevice, mode: *mut c_uint) -> Answer {
    const DISABLED: c_uint = 0;
    index(device)?;
    raw::store(mode, DISABLED)
}
