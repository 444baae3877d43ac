//! NVML, as far as the simulated devices measure something.
#![allow(non_snake_case, reason = "the names are those of NVML")]

use core::ffi::{c_char, c_int, c_uint, c_ulonglong};

use headgate_abi::nvml::{
    NVML_MEMORY_V2, NvmlDevice, NvmlMemory, NvmlMemoryV2, NvmlPciInfo, NvmlProcessInfo, NvmlProcessInfoV1,
    NvmlProcessUtilizationSample, NvmlReturn, NvmlUtilization,
};
use headgate_simgpu::config::DeviceInfo;
use headgate_simgpu::protocol::{ProcessInfo, Reply, Request};

use crate::raw;
use crate::session::{self, Answer, ask, connection};

#[allow(unused_imports, reason = "used by rows without a function of their own; there may be none")]
pub(crate) use crate::exports::fallback::*;

pub(crate) use crate::events::{
    nvmlDeviceGetSupportedEventTypes, nvmlDeviceRegisterEvents, nvmlEventSetCreate, nvmlEventSetFree,
    nvmlEventSetWait_v2,
};
pub(crate) use crate::limits::{nvmlDeviceGetMemoryLimits_v1, nvmlDeviceSetMemoryLimits_v1};
pub(crate) use crate::processes::{
    nvmlDeviceGetAccountingMode, nvmlDeviceGetGraphicsRunningProcesses,
    nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDeviceGetGraphicsRunningProcesses_v3,
    nvmlDeviceGetMPSComputeRunningProcesses, nvmlDeviceGetMPSComputeRunningProcesses_v2,
    nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDeviceGetProcessesUtilizationInfo,
    nvmlDeviceGetRunningProcessDetailList, nvmlSystemGetProcessName,
};

/// Driver of the same age as the CUDA version that is simulated by default.
const DRIVER_VERSION: &str = "580.00.00-simulated";
const NVML_VERSION: &str = "13.580.00-simulated";
/// No MIG instance.
pub(crate) const NONE: c_uint = c_uint::MAX;
/// Vendor 10de, as of an H100; subsystem likewise made up of NVIDIA's own.
const PCI_DEVICE: c_uint = 0x2330_10de;
const PCI_SUBSYSTEM: c_uint = 0x16c1_10de;

const HANDLE_BASE: usize = 0x6b00_0000_0000;
const HANDLE_STEP: usize = 16;

pub(crate) fn handle(index: usize) -> NvmlDevice {
    NvmlDevice(core::ptr::without_provenance_mut(HANDLE_BASE + (index + 1) * HANDLE_STEP))
}

/// The index of a device handle.
pub(crate) fn index(device: NvmlDevice) -> Result<(u32, DeviceInfo), NvmlReturn> {
    let connection = connection()?;
    let number = device.0.addr().checked_sub(HANDLE_BASE + HANDLE_STEP);
    let index = number.filter(|number| number.is_multiple_of(HANDLE_STEP)).map(|number| number / HANDLE_STEP);
    let info =
        index.and_then(|index| Some((u32::try_from(index).ok()?, connection.node().devices.get(index)?)));
    info.map(|(index, info)| (index, info.clone())).ok_or(NvmlReturn::ERROR_INVALID_ARGUMENT)
}

/// The first device of which something holds.
fn find(wanted: impl Fn(&DeviceInfo) -> bool, to: *mut NvmlDevice) -> Answer {
    let found = connection()?.node().devices.iter().position(wanted);
    raw::store(to, handle(found.ok_or(NvmlReturn::ERROR_NOT_FOUND)?))
}

pub(crate) fn nvmlInit_v2() -> Answer {
    session::open()
}

pub(crate) fn nvmlInitWithFlags(_flags: c_uint) -> Answer {
    session::open()
}

pub(crate) fn nvmlShutdown() -> Answer {
    session::close()
}

pub(crate) fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Answer {
    connection()?;
    raw::store_text(version, length, DRIVER_VERSION)
}

pub(crate) fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Answer {
    raw::store_text(version, length, NVML_VERSION)
}

pub(crate) fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Answer {
    let told = connection()?.node().driver_version;
    raw::store(version, c_int::try_from(told).unwrap_or(c_int::MAX))
}

pub(crate) fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Answer {
    nvmlSystemGetCudaDriverVersion(version)
}

pub(crate) fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Answer {
    let devices = connection()?.node().devices.len();
    raw::store(count, c_uint::try_from(devices).unwrap_or(c_uint::MAX))
}

pub(crate) fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut NvmlDevice) -> Answer {
    let index = index as usize;
    if index >= connection()?.node().devices.len() {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    raw::store(device, handle(index))
}

pub(crate) fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut NvmlDevice) -> Answer {
    let wanted = raw::text(uuid)?;
    find(|info| info.uuid_text().eq_ignore_ascii_case(&wanted), device)
}

/// NVML writes the domain with eight digits, CUDA with four; both are understood.
pub(crate) fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: *mut NvmlDevice) -> Answer {
    let wanted = raw::text(bus_id)?;
    let short = |text: &str| text.trim_start_matches('0').to_ascii_lowercase();
    find(|info| short(&info.pci_text()) == short(&wanted), device)
}

pub(crate) fn nvmlDeviceGetIndex(device: NvmlDevice, to: *mut c_uint) -> Answer {
    raw::store(to, index(device)?.0)
}

pub(crate) fn nvmlDeviceGetName(device: NvmlDevice, name: *mut c_char, length: c_uint) -> Answer {
    raw::store_text(name, length, &index(device)?.1.name)
}

pub(crate) fn nvmlDeviceGetUUID(device: NvmlDevice, uuid: *mut c_char, length: c_uint) -> Answer {
    raw::store_text(uuid, length, &index(device)?.1.uuid_text())
}

pub(crate) fn nvmlDeviceGetMinorNumber(device: NvmlDevice, minor: *mut c_uint) -> Answer {
    raw::store(minor, index(device)?.0)
}

pub(crate) fn nvmlDeviceGetPciInfo_v3(device: NvmlDevice, info: *mut NvmlPciInfo) -> Answer {
    let (_, known) = index(device)?;
    let pci = NvmlPciInfo {
        bus_id_legacy: c_text(&known.pci_text()),
        domain: 0,
        bus: known.pci_bus,
        device: 0,
        pci_device_id: PCI_DEVICE,
        pci_sub_system_id: PCI_SUBSYSTEM,
        bus_id: c_text(&format!("0000{}", known.pci_text())),
    };
    raw::store(info, pci)
}

/// Text in a field that keeps at least one byte for its end.
fn c_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    field
}

fn memory(device: NvmlDevice) -> Result<NvmlMemory, NvmlReturn> {
    let (device, _) = index(device)?;
    match ask(&Request::Memory { device })? {
        Reply::Memory { free, total } => Ok(NvmlMemory { total, free, used: total - free }),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub(crate) fn nvmlDeviceGetMemoryInfo(device: NvmlDevice, to: *mut NvmlMemory) -> Answer {
    raw::store(to, memory(device)?)
}

pub(crate) fn nvmlDeviceGetMemoryInfo_v2(device: NvmlDevice, to: *mut NvmlMemoryV2) -> Answer {
    if raw::load(to.cast_const())?.version != NVML_MEMORY_V2 {
        return Err(NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    let NvmlMemory { total, free, used } = memory(device)?;
    raw::store(to, NvmlMemoryV2 { version: NVML_MEMORY_V2, total, reserved: 0, free, used })
}

pub(crate) fn nvmlDeviceGetUtilizationRates(device: NvmlDevice, to: *mut NvmlUtilization) -> Answer {
    let (device, _) = index(device)?;
    match ask(&Request::Utilisation { device })? {
        Reply::Utilisation { gpu, memory } => raw::store(to, NvmlUtilization { gpu, memory }),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub(crate) fn processes(device: NvmlDevice) -> Result<Vec<ProcessInfo>, NvmlReturn> {
    let (device, _) = index(device)?;
    match ask(&Request::Processes { device })? {
        Reply::Processes(processes) => Ok(processes),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub(crate) fn nvmlDeviceGetComputeRunningProcesses(
    device: NvmlDevice,
    count: *mut c_uint,
    infos: *mut NvmlProcessInfoV1,
) -> Answer {
    let list = processes(device)?;
    let list: Vec<_> = list
        .into_iter()
        .map(|process| NvmlProcessInfoV1 { pid: process.pid, used_gpu_memory: process.bytes })
        .collect();
    raw::store_list(count, infos, &list)
}

pub(crate) fn nvmlDeviceGetComputeRunningProcesses_v2(
    device: NvmlDevice,
    count: *mut c_uint,
    infos: *mut NvmlProcessInfo,
) -> Answer {
    let list = processes(device)?;
    let list: Vec<_> = list
        .into_iter()
        .map(|process| NvmlProcessInfo {
            pid: process.pid,
            used_gpu_memory: process.bytes,
            gpu_instance_id: NONE,
            compute_instance_id: NONE,
        })
        .collect();
    raw::store_list(count, infos, &list)
}

pub(crate) fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: NvmlDevice,
    count: *mut c_uint,
    infos: *mut NvmlProcessInfo,
) -> Answer {
    nvmlDeviceGetComputeRunningProcesses_v2(device, count, infos)
}

pub(crate) fn nvmlDeviceGetProcessUtilization(
    device: NvmlDevice,
    samples: *mut NvmlProcessUtilizationSample,
    count: *mut c_uint,
    since_us: c_ulonglong,
) -> Answer {
    let list: Vec<_> = crate::processes::samples(device, since_us)?
        .into_iter()
        .map(|sample| NvmlProcessUtilizationSample {
            pid: sample.pid,
            time_stamp: sample.at_us,
            sm_util: sample.percent,
            mem_util: 0,
            enc_util: 0,
            dec_util: 0,
        })
        .collect();
    raw::store_list(count, samples, &list)
}

pub(crate) fn nvmlDeviceGetCudaComputeCapability(
    device: NvmlDevice,
    major: *mut c_int,
    minor: *mut c_int,
) -> Answer {
    let (has_major, has_minor) = index(device)?.1.compute_capability;
    raw::store(major, c_int::try_from(has_major).unwrap_or(c_int::MAX))?;
    raw::store(minor, c_int::try_from(has_minor).unwrap_or(c_int::MAX))
}
