//! Launches. What a driver refuses before anything runs is refused here.

use core::ffi::{c_uint, c_void};
use std::cell::RefCell;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::types::{CUfunction, CUlaunchConfig, CUresult, CUstream};

use super::{device, function};
use crate::client::objects::{Context, Function};
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw};
use crate::image::Layout;
use crate::limits::{LAUNCH_ATTRIBUTES_MAX, PARAMETER_BYTES_MAX};
use crate::wire::operation::{LAUNCH_ATTRIBUTE_BYTES, Operation, Shape};
use crate::worker::launch_attribute_travels;

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: c_uint = 2;

thread_local! {
    /// The parameter block under construction.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn known(described: Option<i32>) -> Option<u32> {
    described.and_then(|value| u32::try_from(value).ok())
}

/// What no device or no such kernel can run.
fn check(client: &Client, context: &Context, function: &Function, shape: &Shape) -> Answer {
    let device = &client.session.welcome.devices[context.device];
    // Blocks in attributes 2 to 4, grids in 5 to 7, threads of a block in 1.
    let most = |number| known(device::attribute(device, number)).unwrap_or(u32::MAX);
    let fits = |sides: [u32; 3], first: u32| {
        (first..).zip(sides).all(|(number, side)| (1..=most(number)).contains(&side))
    };
    let threads: u64 = shape.block.into_iter().map(u64::from).product();
    let described = function.described(client, context.id)?;
    let [threads_max, dynamic_max] = [0, 8].map(|number: usize| known(described.attributes[number]));
    let dynamic_max = known(Some(function.dynamic_shared_max.load(Ordering::Acquire))).or(dynamic_max);
    let too_many = threads > u64::from(threads_max.unwrap_or(u32::MAX).min(most(1)));
    if !fits(shape.block, 2)
        || !fits(shape.grid, 5)
        || too_many
        || shape.shared_bytes > dynamic_max.unwrap_or(u32::MAX)
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(())
}

/// Puts the parameters where the kernel expects them, from either form a program may pass.
fn gather(block: &mut Vec<u8>, layout: &Layout, params: *mut *mut c_void, extra: *mut *mut c_void) -> Answer {
    block.clear();
    let end = layout.last().map_or(0, |(offset, bytes)| *offset as usize + *bytes as usize);
    if end > PARAMETER_BYTES_MAX || (!params.is_null() && !extra.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if layout.is_empty() {
        return Ok(());
    }
    if extra.is_null() {
        block.resize(end, 0);
        for (index, &(offset, bytes)) in layout.iter().enumerate() {
            let value = raw::bytes(raw::load_at(params, index)?, bytes as usize)?;
            block[offset as usize..][..value.len()].copy_from_slice(value);
        }
        return Ok(());
    }
    packed(block, end, extra)
}

/// Takes a packed block (`CU_LAUNCH_PARAM_BUFFER_POINTER` and its size).
fn packed(block: &mut Vec<u8>, end: usize, extra: *mut *mut c_void) -> Answer {
    const END: usize = 0;
    const BUFFER_POINTER: usize = 1;
    const BUFFER_SIZE: usize = 2;
    /// Entries looked at before the end must have come.
    const ENTRIES_MAX: usize = 16;
    let (mut buffer, mut bytes) = (core::ptr::null_mut::<c_void>(), None);
    for pair in 0..ENTRIES_MAX / 2 {
        match raw::load_at(extra, 2 * pair)?.addr() {
            END => {
                let bytes: usize = bytes.ok_or(CUresult::ERROR_INVALID_VALUE)?;
                if bytes < end {
                    return Err(CUresult::ERROR_INVALID_VALUE);
                }
                block.extend_from_slice(raw::bytes(buffer, end)?);
                return Ok(());
            }
            BUFFER_POINTER => buffer = raw::load_at(extra, 2 * pair + 1)?,
            BUFFER_SIZE => bytes = Some(raw::load(raw::load_at(extra, 2 * pair + 1)?.cast::<usize>())?),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
    Err(CUresult::ERROR_INVALID_VALUE)
}

fn launch(
    handle: CUfunction,
    mut shape: Shape,
    stream: CUstream,
    attributes: &[u8],
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let function = function::find(client, handle.addr())?;
    let stream = current::stream(client, &context, stream.addr())?;
    capture::admit(client, &stream)?;
    if !function.of_library && function.context != stream.context {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    check(client, &context, &function, &shape)?;
    shape.function = function.id;
    let layout = function.layout(client, context.id)?;
    BLOCK.with_borrow_mut(|block| {
        gather(block, layout, params, extra)?;
        if attributes.is_empty() {
            client.session.launch(context.id, &shape, stream.id, block)
        } else {
            let launch = Operation::Launch { shape, stream: stream.id, attributes, parameters: block };
            client.session.tell(context.id, &launch)
        }
    })?;
    stream.touch(client.session.placed());
    context.report()
}

pub fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Answer {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    let shape = Shape { function: 0, grid, block, shared_bytes, cooperative: false };
    launch(function, shape, stream, &[], params, extra)
}

pub fn cuLaunchCooperativeKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
) -> Answer {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    let shape = Shape { function: 0, grid, block, shared_bytes, cooperative: true };
    launch(function, shape, stream, &[], params, core::ptr::null_mut())
}

pub fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Answer {
    let config = raw::load(config)?;
    let count = config.numAttrs as usize;
    if count > LAUNCH_ATTRIBUTES_MAX {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut attributes = [0u8; LAUNCH_ATTRIBUTES_MAX * LAUNCH_ATTRIBUTE_BYTES];
    let mut used = 0;
    let mut cooperative = false;
    for index in 0..count {
        let attribute = raw::load_at(config.attrs, index)?;
        if attribute.id == COOPERATIVE {
            cooperative = attribute.value[0..4] != [0; 4];
            continue;
        }
        if !launch_attribute_travels(attribute.id) {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let record = &mut attributes[used..used + LAUNCH_ATTRIBUTE_BYTES];
        record[0..4].copy_from_slice(&attribute.id.to_le_bytes());
        record[8..].copy_from_slice(&attribute.value);
        used += LAUNCH_ATTRIBUTE_BYTES;
    }
    let shape = Shape {
        function: 0,
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        shared_bytes: config.sharedMemBytes,
        cooperative,
    };
    launch(function, shape, config.hStream, &attributes[..used], params, extra)
}
