//! Devices, all known since the handshake. Beside a genuine driver, which device it is says that driver, and what it can do
//! the borrowed one ([`contract`]).

use core::ffi::{c_char, c_int};

use headgate_abi::cuda::types::{CUdevice, CUenum, CUresult, CUuuid};

use crate::client::state::{Client, client};
use crate::client::{Answer, contract, raw};
use crate::wire::frame::DeviceSnapshot;

/// What the borrowed device can do and a remote program cannot be given: mapping host memory, managed and pageable
/// memory, registered host pointers on the device, exports of physical memory, sharing between processes, direct access by
/// other devices, multicast, and what has not been built yet. (`CUdevice_attribute`.)
const WITHHELD: [u32; 26] = [
    19, 83, 88, 89, 91, 100, 101, 103, 104, 105, 107, 110, 116, 117, 118, 119, 121, 122, 124, 125, 128, 129,
    132, 134, 141, 142,
];

/// The index of a device of this session. A device of the driver beside us that nothing was borrowed for is there and
/// cannot be used.
pub(super) fn index(client: &Client, device: CUdevice) -> Result<usize, CUresult> {
    let index = usize::try_from(device).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    if index < client.session.welcome.devices.len() {
        return Ok(index);
    }
    match contract::genuine() {
        Some(genuine) if device < genuine?.devices() => Err(CUresult::ERROR_DEVICE_UNAVAILABLE),
        _ => Err(CUresult::ERROR_INVALID_DEVICE),
    }
}

/// The borrowed device in the place of one of the driver's; `None` where nothing was borrowed for it.
pub(super) fn borrowed(
    client: &'static Client,
    device: CUdevice,
) -> Result<Option<&'static DeviceSnapshot>, CUresult> {
    match index(client, device) {
        Ok(index) => Ok(Some(&client.session.welcome.devices[index])),
        Err(CUresult::ERROR_DEVICE_UNAVAILABLE) => Ok(None),
        Err(status) => Err(status),
    }
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
    if let Some(genuine) = contract::genuine() {
        return genuine?.device(device, ordinal);
    }
    info(ordinal)?;
    raw::store(device, ordinal)
}

pub fn cuDeviceGetCount(count: *mut c_int) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.count(count);
    }
    let devices = client()?.session.welcome.devices.len();
    raw::store(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
}

pub fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.name(name, len, dev);
    }
    raw::store_text(name, usize::try_from(len).unwrap_or(0), &info(dev)?.name)
}

pub fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.uuid(uuid, dev);
    }
    raw::store(uuid, CUuuid { bytes: info(dev)?.uuid })
}

pub fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.uuid_v2(uuid, dev);
    }
    cuDeviceGetUuid(uuid, dev)
}

pub fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine()
        && borrowed(client()?, dev)?.is_none()
    {
        return genuine?.memory(bytes, dev);
    }
    raw::store(bytes, usize::try_from(info(dev)?.memory_bytes).unwrap_or(usize::MAX))
}

pub fn cuDeviceGetAttribute(value: *mut c_int, number: CUenum, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return attribute_beside(genuine?, value, number, dev);
    }
    let known = attribute(info(dev)?, number).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(value, known)
}

/// An attribute beside a driver. One that this driver knows and the lender's does not is a feature that the borrowed device
/// has not: runtimes take no error for an answer.
fn attribute_beside(genuine: &contract::Genuine, value: *mut c_int, number: CUenum, dev: CUdevice) -> Answer {
    match borrowed(client()?, dev)? {
        Some(device) if !contract::identifies(number) => match attribute(device, number) {
            Some(known) => raw::store(value, known),
            None => {
                genuine.attribute(value, number, dev)?;
                raw::store(value, 0)
            }
        },
        _ => genuine.attribute(value, number, dev),
    }
}

pub fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: CUdevice) -> Answer {
    cuDeviceGetAttribute(major, 75, dev)?;
    cuDeviceGetAttribute(minor, 76, dev)
}

pub fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.pci(id, len, dev);
    }
    raw::store_text(id, usize::try_from(len).unwrap_or(0), &info(dev)?.pci)
}

pub fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, id: *const c_char) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.by_pci(dev, id);
    }
    let wanted = raw::text(id)?;
    let found =
        client()?.session.welcome.devices.iter().position(|device| device.pci.eq_ignore_ascii_case(wanted));
    let found = found.and_then(|index| CUdevice::try_from(index).ok());
    raw::store(dev, found.ok_or(CUresult::ERROR_INVALID_DEVICE)?)
}
