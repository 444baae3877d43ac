//! Arrays and mipmaps.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::sync::Arc;

use headgate_abi::cuda::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_DESCRIPTOR_v1, CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY3D_DESCRIPTOR,
    CUDA_ARRAY3D_DESCRIPTOR_v1, CUarray, CUdevice, CUmipmappedArray, CUresult,
};
use headgate_simgpu::memory::GRANULE;
use headgate_simgpu::protocol::Request;

use super::{context, device, memory};
use crate::driver::{Answer, Driver, driver};
use crate::format::Shape;
use crate::objects::{Array, Mipmap, Origin};
use crate::{current, raw};

pub(crate) fn find(driver: &Driver, array: CUarray) -> Result<Arc<Array>, CUresult> {
    driver.arrays.get(array.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

fn create(to: *mut CUarray, shape: Shape) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    shape.check()?;
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = memory::allocate(driver, &context, shape.bytes(), Origin::Array)?;
    let handle = driver.arrays.reserve();
    let made = Array { shape, address, context: context.home, is_level: false };
    driver.arrays.insert(handle, Arc::new(made));
    raw::store(to, CUarray::from_addr(handle))
}

fn flat(width: u64, height: u64, format: u32, channels: u32) -> Shape {
    Shape { width, height, depth: 0, format, channels, flags: 0 }
}

fn spatial(descriptor: &CUDA_ARRAY3D_DESCRIPTOR) -> Shape {
    Shape {
        width: descriptor.Width as u64,
        height: descriptor.Height as u64,
        depth: descriptor.Depth as u64,
        format: descriptor.Format,
        channels: descriptor.NumChannels,
        flags: descriptor.Flags,
    }
}

pub(crate) fn cuArrayCreate_v2(array: *mut CUarray, descriptor: *const CUDA_ARRAY_DESCRIPTOR) -> Answer {
    let told = raw::load(descriptor)?;
    create(array, flat(told.Width as u64, told.Height as u64, told.Format, told.NumChannels))
}

pub(crate) fn cuArrayCreate(array: *mut CUarray, descriptor: *const CUDA_ARRAY_DESCRIPTOR_v1) -> Answer {
    let told = raw::load(descriptor)?;
    create(array, flat(told.Width.into(), told.Height.into(), told.Format, told.NumChannels))
}

pub(crate) fn cuArray3DCreate_v2(array: *mut CUarray, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR) -> Answer {
    create(array, spatial(&raw::load(descriptor)?))
}

pub(crate) fn cuArray3DCreate(array: *mut CUarray, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR_v1) -> Answer {
    let told = raw::load(descriptor)?;
    let shape = flat(told.Width.into(), told.Height.into(), told.Format, told.NumChannels);
    create(array, Shape { depth: told.Depth.into(), flags: told.Flags, ..shape })
}

/// Gives the memory of an array or a mipmap back, after the work of its context.
fn give_back(driver: &Driver, owner: usize, address: u64) -> Answer {
    context::synchronise(driver, &*current::resolve(driver, owner)?)?;
    memory::take(driver, address, |known| known.origin == Origin::Array)?;
    driver.ask(&Request::Free { address }).map(|_| ())
}

pub(crate) fn cuArrayDestroy(array: CUarray) -> Answer {
    let driver = driver()?;
    let known = find(driver, array)?;
    if known.is_level {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    give_back(driver, known.context, known.address)?;
    driver.arrays.remove(array.addr());
    Ok(())
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

pub(crate) fn cuArrayGetDescriptor_v2(descriptor: *mut CUDA_ARRAY_DESCRIPTOR, array: CUarray) -> Answer {
    let Shape { width, height, format, channels, .. } = find(driver()?, array)?.shape;
    let told = CUDA_ARRAY_DESCRIPTOR {
        Width: size(width),
        Height: size(height),
        Format: format,
        NumChannels: channels,
    };
    raw::store(descriptor, told)
}

pub(crate) fn cuArray3DGetDescriptor_v2(descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, array: CUarray) -> Answer {
    let shape = find(driver()?, array)?.shape;
    let told = CUDA_ARRAY3D_DESCRIPTOR {
        Width: size(shape.width),
        Height: size(shape.height),
        Depth: size(shape.depth),
        Format: shape.format,
        NumChannels: shape.channels,
        Flags: shape.flags,
    };
    raw::store(descriptor, told)
}

fn requirements(to: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, bytes: u64) -> Answer {
    let told = CUDA_ARRAY_MEMORY_REQUIREMENTS {
        size: size(bytes.next_multiple_of(GRANULE)),
        alignment: size(GRANULE),
        reserved: [0; 4],
    };
    raw::store(to, told)
}

pub(crate) fn cuArrayGetMemoryRequirements(
    to: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    array: CUarray,
    dev: CUdevice,
) -> Answer {
    let driver = driver()?;
    device::index(driver, dev)?;
    requirements(to, find(driver, array)?.shape.bytes())
}

pub(crate) fn cuMipmappedArrayCreate(
    to: *mut CUmipmappedArray,
    descriptor: *const CUDA_ARRAY3D_DESCRIPTOR,
    levels: c_uint,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let shape = spatial(&raw::load(descriptor)?);
    shape.check()?;
    if to.is_null() || levels == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // More levels than there can be are as many as there can be (CUDA driver API, cuMipmappedArrayCreate).
    let shapes: Vec<Shape> = (0..levels.min(shape.levels_max())).map(|level| shape.level(level)).collect();
    let bytes = shapes.iter().map(Shape::bytes).fold(0, u64::saturating_add);
    let address = memory::allocate(driver, &context, bytes, Origin::Array)?;
    let mut at = address;
    let levels = shapes
        .into_iter()
        .map(|shape| {
            let handle = driver.arrays.reserve();
            let context = context.home;
            driver.arrays.insert(handle, Arc::new(Array { shape, address: at, context, is_level: true }));
            at += shape.bytes();
            handle
        })
        .collect();
    let handle = driver.mipmaps.reserve();
    driver.mipmaps.insert(handle, Arc::new(Mipmap { levels, address, context: context.home }));
    raw::store(to, CUmipmappedArray::from_addr(handle))
}

pub(crate) fn cuMipmappedArrayGetLevel(to: *mut CUarray, mipmap: CUmipmappedArray, level: c_uint) -> Answer {
    let mipmap = driver()?.mipmaps.get(mipmap.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let handle = mipmap.levels.get(level as usize).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(to, CUarray::from_addr(*handle))
}

pub(crate) fn cuMipmappedArrayDestroy(mipmap: CUmipmappedArray) -> Answer {
    let driver = driver()?;
    let known = driver.mipmaps.get(mipmap.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    give_back(driver, known.context, known.address)?;
    for level in &known.levels {
        driver.arrays.remove(*level);
    }
    driver.mipmaps.remove(mipmap.addr());
    Ok(())
}

pub(crate) fn cuMipmappedArrayGetMemoryRequirements(
    to: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    mipmap: CUmipmappedArray,
    dev: CUdevice,
) -> Answer {
    let driver = driver()?;
    device::index(driver, dev)?;
    let mipmap = driver.mipmaps.get(mipmap.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let levels = mipmap.levels.iter().filter_map(|&level| driver.arrays.get(level));
    requirements(to, levels.map(|level| level.shape.bytes()).sum())
}
