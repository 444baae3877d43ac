//! The oldest form of launching: block shape, shared memory and parameters are kept with the function, and a launch
//! takes what was set last.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUfunction, CUresult, CUstream};

use super::launch::{Shape, launch_with};
use super::module::find_function;
use crate::driver::{Answer, driver};
use crate::objects::{Setup, lock};
use crate::raw;

/// Most bytes of parameters, as with every launch.
const PARAMETERS_MAX: usize = 32_764;

fn set(function: CUfunction, work: impl FnOnce(&mut Setup) -> Answer) -> Answer {
    let (_, function) = find_function(driver()?, function.addr())?;
    work(&mut lock(&function.setup))
}

pub(crate) fn cuFuncSetBlockShape(function: CUfunction, x: c_int, y: c_int, z: c_int) -> Answer {
    let side = |side: c_int| u32::try_from(side).map_err(|_| CUresult::ERROR_INVALID_VALUE);
    let block = [side(x)?, side(y)?, side(z)?];
    set(function, |setup| {
        setup.block = block;
        Ok(())
    })
}

pub(crate) fn cuFuncSetSharedSize(function: CUfunction, bytes: c_uint) -> Answer {
    set(function, |setup| {
        setup.shared_bytes = bytes;
        Ok(())
    })
}

pub(crate) fn cuParamSetSize(function: CUfunction, bytes: c_uint) -> Answer {
    let bytes = bytes as usize;
    if bytes > PARAMETERS_MAX {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    set(function, |setup| {
        setup.parameters.resize(bytes, 0);
        Ok(())
    })
}

/// Parameters may be set before the size is.
fn put(function: CUfunction, offset: c_int, value: &[u8]) -> Answer {
    let start = usize::try_from(offset).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let end = start.checked_add(value.len()).filter(|&end| end <= PARAMETERS_MAX);
    let end = end.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    set(function, |setup| {
        if setup.parameters.len() < end {
            setup.parameters.resize(end, 0);
        }
        setup.parameters[start..end].copy_from_slice(value);
        Ok(())
    })
}

pub(crate) fn cuParamSeti(function: CUfunction, offset: c_int, value: c_uint) -> Answer {
    put(function, offset, &value.to_le_bytes())
}

pub(crate) fn cuParamSetf(function: CUfunction, offset: c_int, value: f32) -> Answer {
    put(function, offset, &value.to_le_bytes())
}

pub(crate) fn cuParamSetv(function: CUfunction, offset: c_int, value: *mut c_void, bytes: c_uint) -> Answer {
    if bytes as usize > PARAMETERS_MAX {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    put(function, offset, &raw::bytes(value, bytes as usize)?)
}

fn launch(function: CUfunction, width: c_int, height: c_int, stream: CUstream) -> Answer {
    let side = |side: c_int| u32::try_from(side).map_err(|_| CUresult::ERROR_INVALID_VALUE);
    let grid = [side(width)?, side(height)?, 1];
    let setup = {
        let (_, known) = find_function(driver()?, function.addr())?;
        let setup = lock(&known.setup);
        Setup { block: setup.block, shared_bytes: setup.shared_bytes, parameters: setup.parameters.clone() }
    };
    let shape = Shape {
        grid,
        block: setup.block,
        shared_bytes: setup.shared_bytes,
        cooperative: false,
        overlaps: false,
    };
    launch_with(ThreadMode::Base, function, shape, stream, |known| {
        let wanted = known.info().param_bytes as usize;
        match setup.parameters.get(..wanted) {
            Some(parameters) => Ok(parameters.to_vec()),
            None => Err(CUresult::ERROR_INVALID_VALUE),
        }
    })
}

pub(crate) fn cuLaunch(function: CUfunction) -> Answer {
    launch(function, 1, 1, CUstream::NULL)
}

pub(crate) fn cuLaunchGrid(function: CUfunction, width: c_int, height: c_int) -> Answer {
    launch(function, width, height, CUstream::NULL)
}

pub(crate) fn cuLaunchGridAsync(
    function: CUfunction,
    width: c_int,
    height: c_int,
    stream: CUstream,
) -> Answer {
    launch(function, width, height, stream)
}
