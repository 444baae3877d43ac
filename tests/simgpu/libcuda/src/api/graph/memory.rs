//! What a device holds for graphs.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_void;

use headgate_abi::cuda::types::{CUdevice, CUenum, CUresult};
use headgate_simgpu::protocol::{Holding, PoolFigure, Reply};

use crate::api::device;
use crate::driver::{Answer, driver};
use crate::raw;

fn number(dev: CUdevice) -> Result<u32, CUresult> {
    u32::try_from(device::index(driver()?, dev)?).map_err(|_| CUresult::ERROR_INVALID_DEVICE)
}

/// `CUgraphMem_attribute`.
fn figure(attribute: CUenum) -> Result<PoolFigure, CUresult> {
    match attribute {
        0 => Ok(PoolFigure::Used),
        1 => Ok(PoolFigure::UsedHigh),
        2 => Ok(PoolFigure::Reserved),
        3 => Ok(PoolFigure::ReservedHigh),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

pub(crate) fn cuDeviceGraphMemTrim(dev: CUdevice) -> Answer {
    let device = number(dev)?;
    driver()?.hold(Holding::TrimGraphs { device }).map(|_| ())
}

pub(crate) fn cuDeviceGetGraphMemAttribute(dev: CUdevice, attribute: CUenum, value: *mut c_void) -> Answer {
    let device = number(dev)?;
    match driver()?.hold(Holding::AskGraphs { device, figure: figure(attribute)? })? {
        Reply::Value(told) => raw::store(value.cast(), told),
        other => Err(device::out_of_turn(other)),
    }
}

/// High-water marks can be reset, to 0; nothing else can be set.
pub(crate) fn cuDeviceSetGraphMemAttribute(dev: CUdevice, attribute: CUenum, value: *mut c_void) -> Answer {
    let device = number(dev)?;
    let figure = figure(attribute)?;
    if raw::load(value.cast_const().cast::<u64>())? != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    driver()?.hold(Holding::ResetGraphs { device, figure }).map(|_| ())
}
