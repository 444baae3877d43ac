//! NVML of a borrowed GPU: what does not change is known since the handshake, the rest the worker's own NVML tells.
//!
//! Processes, clocks, temperatures and whatever else belongs to the lender's node is absent.
#![allow(non_snake_case, reason = "the names are those of NVML")]
#![allow(clippy::missing_errors_doc, reason = "the errors are NVML's")]
#![allow(missing_docs, reason = "NVML's documentation is theirs")]

use core::ffi::{CStr, c_char, c_int, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use headgate_abi::cuda::types::CUresult;
use headgate_abi::nvml::{
    NVML_MEMORY_V2, NvmlDevice, NvmlMemory, NvmlMemoryV2, NvmlPciInfo, NvmlReturn, NvmlUtilization,
};

use super::raw;
use super::state::{self, Client};
use crate::wire::frame::DeviceSnapshot;
use crate::wire::operation::Operation;
use crate::wire::{Gauges, Reader, uuid_text};

/// What a call comes to.
pub type Answer = Result<(), NvmlReturn>;

/// Version of the library whose functions these are.
const NVML_VERSION: &str = "13.0-headgate-remote";
/// Attributes of the compute capability.
const MAJOR: usize = 75;
const MINOR: usize = 76;
/// Bytes between two handles.
const STEP: usize = 16;

/// How often it was started and not yet shut down.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// What every exported function does around its own work: in a forked child nothing works, and no panic gets out.
pub fn call(work: impl FnOnce() -> Answer) -> NvmlReturn {
    if state::is_forked() {
        return NvmlReturn::ERROR_UNINITIALIZED;
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => NvmlReturn::SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => NvmlReturn::ERROR_UNKNOWN,
    }
}

fn started() -> Result<&'static Client, NvmlReturn> {
    if STARTED.load(Ordering::Acquire) == 0 {
        return Err(NvmlReturn::ERROR_UNINITIALIZED);
    }
    state::connected().map_err(|_| NvmlReturn::ERROR_DRIVER_NOT_LOADED)
}

fn place<T>(to: *mut T, value: T) -> Answer {
    raw::store(to, value).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)
}

/// A text in a buffer that holds all of it.
fn place_text(to: *mut c_char, length: c_uint, text: &str) -> Answer {
    if length as usize <= text.len() {
        return Err(NvmlReturn::ERROR_INSUFFICIENT_SIZE);
    }
    raw::store_text(to, length as usize, text).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)
}

fn wanted<'call>(text: *const c_char) -> Result<&'call str, NvmlReturn> {
    raw::text(text).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)
}

fn device(device: NvmlDevice) -> Result<(&'static Client, usize, &'static DeviceSnapshot), NvmlReturn> {
    let client = started()?;
    let number = device.0.addr();
    let index = number.checked_sub(STEP).filter(|_| number.is_multiple_of(STEP)).map(|rest| rest / STEP);
    let known = index.and_then(|index| Some((client, index, client.session.welcome.devices.get(index)?)));
    known.ok_or(NvmlReturn::ERROR_INVALID_ARGUMENT)
}

fn handle(index: usize) -> NvmlDevice {
    NvmlDevice(core::ptr::without_provenance_mut((index + 1) * STEP))
}

fn find(to: *mut NvmlDevice, is_it: impl Fn(&DeviceSnapshot) -> bool) -> Answer {
    let found = started()?.session.welcome.devices.iter().position(is_it);
    place(to, handle(found.ok_or(NvmlReturn::ERROR_NOT_FOUND)?))
}

/// Asks the worker's NVML. What this program has taken ahead of its use is free, as far as it is concerned.
fn gauges(client: &Client, index: usize) -> Result<Gauges, NvmlReturn> {
    let told = ask(client, index)?;
    let unused = client.session.credits.unused(index).min(told.used);
    Ok(Gauges { free: told.free.saturating_add(unused).min(told.total), used: told.used - unused, ..told })
}

fn ask(client: &Client, index: usize) -> Result<Gauges, NvmlReturn> {
    let device = u32::try_from(index).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)?;
    let reply =
        client.session.ask(0, &Operation::Observe { device }).map_err(|_| NvmlReturn::ERROR_UNKNOWN)?;
    match reply.status {
        CUresult::SUCCESS => {
            Gauges::decode(&mut Reader::new(&reply.results)).map_err(|_| NvmlReturn::ERROR_UNKNOWN)
        }
        CUresult::ERROR_NOT_SUPPORTED => Err(NvmlReturn::ERROR_NOT_SUPPORTED),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub fn nvmlInit_v2() -> Answer {
    state::connected().map_err(|_| NvmlReturn::ERROR_DRIVER_NOT_LOADED)?;
    STARTED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

pub fn nvmlInit() -> Answer {
    nvmlInit_v2()
}

pub fn nvmlInitWithFlags(_flags: c_uint) -> Answer {
    nvmlInit_v2()
}

/// The session stays: the driver API may be using it.
pub fn nvmlShutdown() -> Answer {
    let one_less = |started: u32| started.checked_sub(1);
    let before = STARTED.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    before.map(|_| ()).map_err(|_| NvmlReturn::ERROR_UNINITIALIZED)
}

pub fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Answer {
    place_text(version, length, &gauges(started()?, 0)?.driver)
}

pub fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Answer {
    place_text(version, length, NVML_VERSION)
}

pub fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Answer {
    started()?;
    place(version, c_int::try_from(state::version()).unwrap_or(c_int::MAX))
}

pub fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Answer {
    nvmlSystemGetCudaDriverVersion_v2(version)
}

pub fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Answer {
    let devices = started()?.session.welcome.devices.len();
    place(count, c_uint::try_from(devices).unwrap_or(c_uint::MAX))
}

pub fn nvmlDeviceGetCount(count: *mut c_uint) -> Answer {
    nvmlDeviceGetCount_v2(count)
}

pub fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut NvmlDevice) -> Answer {
    let known = started()?.session.welcome.devices.len();
    if index as usize >= known {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    place(to, handle(index as usize))
}

pub fn nvmlDeviceGetHandleByIndex(index: c_uint, to: *mut NvmlDevice) -> Answer {
    nvmlDeviceGetHandleByIndex_v2(index, to)
}

pub fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut NvmlDevice) -> Answer {
    let wanted = wanted(uuid)?;
    find(to, |device| uuid_text(&device.uuid).eq_ignore_ascii_case(wanted))
}

/// NVML writes the domain with eight digits, CUDA with four; both are understood.
pub fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, to: *mut NvmlDevice) -> Answer {
    let short = |text: &str| text.trim_start_matches('0').to_ascii_lowercase();
    let wanted = short(wanted(bus_id)?);
    find(to, |device| short(&device.pci) == wanted)
}

pub fn nvmlDeviceGetHandleByPciBusId(bus_id: *const c_char, to: *mut NvmlDevice) -> Answer {
    nvmlDeviceGetHandleByPciBusId_v2(bus_id, to)
}

pub fn nvmlDeviceGetIndex(of: NvmlDevice, index: *mut c_uint) -> Answer {
    place(index, c_uint::try_from(device(of)?.1).unwrap_or(c_uint::MAX))
}

pub fn nvmlDeviceGetName(of: NvmlDevice, name: *mut c_char, length: c_uint) -> Answer {
    place_text(name, length, &device(of)?.2.name)
}

pub fn nvmlDeviceGetUUID(of: NvmlDevice, uuid: *mut c_char, length: c_uint) -> Answer {
    place_text(uuid, length, &uuid_text(&device(of)?.2.uuid))
}

/// Which product it is does not travel, and reads 0.
pub fn nvmlDeviceGetPciInfo_v3(of: NvmlDevice, info: *mut NvmlPciInfo) -> Answer {
    let (_, _, known) = device(of)?;
    let mut parts = known.pci.split([':', '.']).map(|part| u32::from_str_radix(part, 16).unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (domain, bus, slot, function) = (next(), next(), next(), next());
    let pci = NvmlPciInfo {
        bus_id_legacy: field(&format!("{domain:04x}:{bus:02X}:{slot:02X}.{function:X}")),
        domain,
        bus,
        device: slot,
        pci_device_id: 0,
        pci_sub_system_id: 0,
        bus_id: field(&format!("{domain:08x}:{bus:02X}:{slot:02X}.{function:X}")),
    };
    place(info, pci)
}

/// Text in a field that keeps at least one byte for its end.
fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    field
}

pub fn nvmlDeviceGetMemoryInfo(of: NvmlDevice, memory: *mut NvmlMemory) -> Answer {
    let (client, index, _) = device(of)?;
    let Gauges { total, free, used, .. } = gauges(client, index)?;
    place(memory, NvmlMemory { total, free, used })
}

pub fn nvmlDeviceGetMemoryInfo_v2(of: NvmlDevice, memory: *mut NvmlMemoryV2) -> Answer {
    let (client, index, _) = device(of)?;
    let version = raw::load(memory.cast_const()).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)?.version;
    if version != NVML_MEMORY_V2 {
        return Err(NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    let Gauges { total, free, used, .. } = gauges(client, index)?;
    place(memory, NvmlMemoryV2 { version, total, reserved: 0, free, used })
}

pub fn nvmlDeviceGetUtilizationRates(of: NvmlDevice, to: *mut NvmlUtilization) -> Answer {
    let (client, index, _) = device(of)?;
    let told = gauges(client, index)?;
    place(to, NvmlUtilization { gpu: told.busy, memory: told.memory_busy })
}

pub fn nvmlDeviceGetCudaComputeCapability(of: NvmlDevice, major: *mut c_int, minor: *mut c_int) -> Answer {
    let (_, _, known) = device(of)?;
    let attribute = |number: usize| known.attributes.get(number).copied().flatten();
    place(major, attribute(MAJOR).ok_or(NvmlReturn::ERROR_UNKNOWN)?)?;
    place(minor, attribute(MINOR).ok_or(NvmlReturn::ERROR_UNKNOWN)?)
}

/// What a status means.
#[must_use]
pub fn error_text(result: NvmlReturn) -> &'static CStr {
    match result {
        NvmlReturn::SUCCESS => c"The operation was successful",
        NvmlReturn::ERROR_UNINITIALIZED => c"NVML was not started, or belongs to this process's parent",
        NvmlReturn::ERROR_INVALID_ARGUMENT => c"An argument is invalid",
        NvmlReturn::ERROR_NOT_SUPPORTED => c"The borrowed device's node does not tell this",
        NvmlReturn::ERROR_NOT_FOUND => c"No such device was borrowed",
        NvmlReturn::ERROR_INSUFFICIENT_SIZE => c"The buffer is too small",
        NvmlReturn::ERROR_DRIVER_NOT_LOADED => c"No device could be borrowed",
        NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH => c"The version of an argument is not known",
        _ => c"An unknown error",
    }
}
