//! One cooperative launch over several devices.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::sync::Arc;

use headgate_abi::cuda::types::{CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUDA_LAUNCH_PARAMS, CUresult};
use headgate_simgpu::protocol::{Command, Launch};

use super::launch::{Shape, describe};
use super::module::find_function;
use crate::driver::{Answer, Driver, driver};
use crate::objects::Stream;
use crate::{capture, current, raw};

/// `CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC` and `_NO_POST_LAUNCH_SYNC`.
const NO_SYNC_BEFORE: c_uint = 1;
const NO_SYNC_AFTER: c_uint = 2;

struct Part {
    stream: Arc<Stream>,
    device: usize,
    name: std::ffi::CString,
    shape: Shape,
    launch: Launch,
}

fn part(driver: &Driver, told: &CUDA_LAUNCH_PARAMS) -> Result<Part, CUresult> {
    if matches!(told.hStream.addr(), 0 | CU_STREAM_LEGACY | CU_STREAM_PER_THREAD) {
        // "This cannot be the NULL or the legacy stream", and a thread's own is one of the current context.
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let stream = driver.streams.get(told.hStream.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let context = current::resolve(driver, stream.context)?;
    driver.context_error(context.number)?;
    capture::forbid_in(&stream)?;
    let (_, function) = find_function(driver, told.function.addr())?;
    if function.module.context != stream.home {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    let shape = Shape {
        grid: [told.gridDimX, told.gridDimY, told.gridDimZ],
        block: [told.blockDimX, told.blockDimY, told.blockDimZ],
        shared_bytes: told.sharedMemBytes,
        cooperative: true,
        overlaps: false,
    };
    shape.check(&function, driver.connection.node().devices[context.device].sms)?;
    let launch = describe(&function, shape, told.kernelParams, core::ptr::null_mut())?;
    Ok(Part { stream, device: context.device, name: function.name.clone(), shape, launch })
}

/// Lets every stream wait for the point all the others are at.
fn meet(driver: &Driver, parts: &[Part]) -> Answer {
    let mut reached = Vec::with_capacity(parts.len());
    for part in parts {
        reached.push((part.stream.slot, driver.submit(&part.stream, [Command::Nothing])?));
    }
    for part in parts {
        let others = reached.iter().filter(|(slot, _)| *slot != part.stream.slot);
        driver.submit(&part.stream, others.map(|&(slot, seq)| Command::After { slot, seq }))?;
    }
    Ok(())
}

/// The same kernel in the same shape on every device, each at most once; all begin when the work before each of them
/// is done, and what follows any of them waits for all.
pub(crate) fn cuLaunchCooperativeKernelMultiDevice(
    list: *mut CUDA_LAUNCH_PARAMS,
    count: c_uint,
    flags: c_uint,
) -> Answer {
    let driver = driver()?;
    let devices = driver.connection.node().devices.len();
    if list.is_null()
        || count == 0
        || count as usize > devices
        || flags & !(NO_SYNC_BEFORE | NO_SYNC_AFTER) != 0
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let parts: Vec<Part> = (0..count as usize)
        .map(|index| part(driver, &raw::load_at(list.cast_const(), index)?))
        .collect::<Result<_, _>>()?;
    for (index, part) in parts.iter().enumerate() {
        if part.shape != parts[0].shape || part.name != parts[0].name {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if parts[..index].iter().any(|other| other.device == part.device) {
            return Err(CUresult::ERROR_INVALID_DEVICE);
        }
    }
    if flags & NO_SYNC_BEFORE == 0 {
        meet(driver, &parts)?;
    }
    for part in &parts {
        driver.submit(&part.stream, [Command::Launch(part.launch.clone())])?;
    }
    if flags & NO_SYNC_AFTER == 0 {
        meet(driver, &parts)?;
    }
    Ok(())
}
