//! Devices, all known since the handshake.

use core::ffi::{c_char, c_int};

use headgate_abi::cuda::types::{CUdevice, CUenum, CUresult, CUuuid};

use crate::client::state::{Client, client};
use crate::client::{Answer, raw};
use crate::wire::frame::DeviceSnapshot;

/// What the borrowed device can do and a remote program cannot be given: mapping host memory, managed and pageable
/// memory, registered host pointers on the device, physical memory of one's own and its exports, sharing between
/// processes, direct access by other devices, multicast, and what has not been built yet. (`CUdevice_attribute`.)
const WITHHELD: [u32; 27] = [
    19, 83, 88, 89, 91, 100, 101, 102, 103, 104, 105, 107, 110, 116, 117, 118, 119, 121, 122, 124, 125, 128,
    129, 132, 134, 141, 142,
];

/// The index of a device of this session.
pub(super) fn index(client: &Client, device: CUdevice) -> Result<usize, CUresult> {
    usize::try_from(device)
        .ok()
        .filter(|&index| index < client.session.welcome.devices.len())
        .ok_or(CUresult::ERROR_INVALID_DEVICE)
}

fn info(device: CUdevice) -> Result<&'static DeviceSnapshot, CUresult> {
    let client = client()?;
    Ok(&client.session.welcome.devices[index(client, device)?])
}

/// An attribute as the program may see it.
pub(super) fn attribute(device: &DeviceSnapshot, number: CUenum) -> Option<i32> {
    let known = (*device.attributes.get(number as usize)?)?;
    Some(if WITHHELD.contains(&number) { 0 } else { known })
}

pub fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> Answer {
    info(ordinal)?;
    raw::store(device, ordinal)
}

pub fn cuDeviceGetCount(count: *mut c_int) -> Answer {
    let devices = client()?.session.welcome.devices.len();
    raw::store(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
}

pub fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    raw::store_text(name, usize::try_from(len).unwrap_or(0), &info(dev)?.name)
}

pub fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    raw::store(uuid, CUuuid { bytes: info(dev)?.uuid })
}

pub fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    cuDeviceGetUuid(uuid, dev)
}

pub fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> Answer {
    raw::store(bytes, usize::try_from(info(dev)?.memory_bytes).unwrap_or(usize::MAX))
}

pub fn cuDeviceGetAttribute(value: *mut c_int, number: CUenum, dev: CUdevice) -> Answer {
    let known = attribute(info(dev)?, number).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(value, known)
}

pub fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: CUdevice) -> Answer {
    cuDeviceGetAttribute(major, 75, dev)?;
    cuDeviceGetAttribute(minor, 76, dev)
}

pub fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    raw::store_text(id, usize::try_from(len).unwrap_or(0), &info(dev)?.pci)
}

pub fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, id: *const c_char) -> Answer {
    let wanted = raw::text(id)?;
    let found =
        client()?.session.welcome.devices.iter().position(|device| device.pci.eq_ignore_ascii_case(wanted));
    let found = found.and_then(|index| CUdevice::try_from(index).ok());
    raw::store(dev, found.ok_or(CUresult::ERROR_INVALID_DEVICE)?)
}
