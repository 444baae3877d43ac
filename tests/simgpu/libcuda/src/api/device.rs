//! Devices.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_char, c_int};

use headgate_abi::cuda::types::{CUdevice, CUenum, CUmemoryPool, CUresult, CUuuid};
use headgate_simgpu::config::DeviceInfo;
use headgate_simgpu::protocol::Reply;

use crate::driver::{Answer, Driver, driver};
use crate::{attributes, raw};

/// The index of a device of this node.
pub(crate) fn index(driver: &Driver, device: CUdevice) -> Result<usize, CUresult> {
    usize::try_from(device)
        .ok()
        .filter(|&index| index < driver.connection.node().devices.len())
        .ok_or(CUresult::ERROR_INVALID_DEVICE)
}

/// What a device is.
fn info(device: CUdevice) -> Result<&'static DeviceInfo, CUresult> {
    let driver = driver()?;
    Ok(&driver.connection.node().devices[index(driver, device)?])
}

pub(crate) fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> Answer {
    info(ordinal)?;
    raw::store(device, ordinal)
}

pub(crate) fn cuDeviceGetCount(count: *mut c_int) -> Answer {
    let devices = driver()?.connection.node().devices.len();
    raw::store(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
}

pub(crate) fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    raw::store_text(name, usize::try_from(len).unwrap_or(0), &info(dev)?.name)
}

pub(crate) fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    raw::store(uuid, CUuuid { bytes: info(dev)?.uuid })
}

pub(crate) fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> Answer {
    cuDeviceGetUuid(uuid, dev)
}

pub(crate) fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> Answer {
    raw::store(bytes, usize::try_from(info(dev)?.memory_bytes).unwrap_or(usize::MAX))
}

pub(crate) fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUenum, dev: CUdevice) -> Answer {
    let known = attributes::device(info(dev)?, attribute).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(value, known)
}

pub(crate) fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, dev: CUdevice) -> Answer {
    raw::store_text(id, usize::try_from(len).unwrap_or(0), &info(dev)?.pci_text())
}

pub(crate) fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, id: *const c_char) -> Answer {
    let wanted = raw::text(id)?;
    let devices = &driver()?.connection.node().devices;
    let found = devices.iter().position(|device| device.pci_text().eq_ignore_ascii_case(&wanted));
    let found = found.and_then(|index| CUdevice::try_from(index).ok());
    raw::store(dev, found.ok_or(CUresult::ERROR_INVALID_DEVICE)?)
}

/// The simulated devices have no links between them.
pub(crate) fn cuDeviceCanAccessPeer(can: *mut c_int, dev: CUdevice, peer: CUdevice) -> Answer {
    info(dev)?;
    info(peer)?;
    raw::store(can, 0)
}

pub(crate) fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> Answer {
    let driver = driver()?;
    let handle = driver.default_pools[index(driver, dev)?];
    raw::store(pool, CUmemoryPool::from_addr(handle))
}

/// An answer of the server that does not belong to the question.
pub(crate) fn out_of_turn(_: Reply) -> CUresult {
    CUresult::ERROR_UNKNOWN
}
