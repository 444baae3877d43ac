//! Graphics. The device draws nothing: no thread has an OpenGL context, there is no VDPAU device, and so nothing that could
//! be registered. What can be asked of that has the errors that the documentation gives.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_uint, c_void};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{
    CUarray, CUcontext, CUdevice, CUdeviceptr, CUgraphicsResource, CUmipmappedArray, CUresult, CUstream,
};

use super::{device, twins};
use crate::driver::{Answer, driver};
use crate::{current, raw};

/// "An error with OpenGL or DirectX context": there is none.
pub(crate) fn cuGLCtxCreate_v2(ctx: *mut CUcontext, _flags: c_uint, dev: CUdevice) -> Answer {
    device::index(driver()?, dev)?;
    if ctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Err(CUresult::ERROR_INVALID_GRAPHICS_CONTEXT)
}

pub(crate) fn cuGLCtxCreate(ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Answer {
    cuGLCtxCreate_v2(ctx, flags, dev)
}

/// Whatever the program takes for a VDPAU device is none.
pub(crate) fn cuVDPAUCtxCreate_v2(
    _ctx: *mut CUcontext,
    _flags: c_uint,
    dev: CUdevice,
    _vdp_device: u32,
    _vdp_look_up: *mut c_void,
) -> Answer {
    device::index(driver()?, dev)?;
    Err(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) fn cuVDPAUCtxCreate(
    ctx: *mut CUcontext,
    flags: c_uint,
    dev: CUdevice,
    vdp_device: u32,
    vdp_look_up: *mut c_void,
) -> Answer {
    cuVDPAUCtxCreate_v2(ctx, flags, dev, vdp_device, vdp_look_up)
}

/// No handle names a resource.
fn no_resource() -> Answer {
    current::context(driver()?)?;
    Err(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) fn cuGraphicsUnregisterResource(_: CUgraphicsResource) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsSubResourceGetMappedArray(
    _: *mut CUarray,
    _: CUgraphicsResource,
    _: c_uint,
    _: c_uint,
) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsResourceGetMappedMipmappedArray(
    _: *mut CUmipmappedArray,
    _: CUgraphicsResource,
) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsResourceGetMappedPointer(
    _: *mut u32,
    _: *mut c_uint,
    _: CUgraphicsResource,
) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsResourceGetMappedPointer_v2(
    _: *mut CUdeviceptr,
    _: *mut usize,
    _: CUgraphicsResource,
) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsResourceSetMapFlags(_: CUgraphicsResource, _: c_uint) -> Answer {
    no_resource()
}

pub(crate) fn cuGraphicsResourceSetMapFlags_v2(_: CUgraphicsResource, _: c_uint) -> Answer {
    no_resource()
}

fn map(mode: ThreadMode, count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) -> Answer {
    let driver = driver()?;
    current::stream(driver, &current::context(driver)?, stream, mode)?;
    // Of none, all can be mapped.
    match (0..count as usize).try_for_each(|index| raw::load_at(resources, index).map(drop)) {
        Ok(()) if count == 0 => Ok(()),
        Ok(()) => Err(CUresult::ERROR_INVALID_HANDLE),
        Err(status) => Err(status),
    }
}

twins! {
    cuGraphicsMapResources, cuGraphicsMapResources_ptsz (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) = map;
    cuGraphicsUnmapResources, cuGraphicsUnmapResources_ptsz (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) = map;
}
