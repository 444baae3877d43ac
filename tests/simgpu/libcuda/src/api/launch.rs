//! Launches.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUDA_KERNEL_NODE_PARAMS_v1, CUfunction, CUlaunchConfig, CUresult, CUstream};
use headgate_simgpu::protocol::{Command, Launch};

use super::module::find_function;
use super::twins;
use crate::attributes::{
    BLOCK_MAX, BLOCKS_PER_SM, GRID_MAX, REGISTERS_PER_SM, SHARED_PER_SM, SHARED_RESERVED_PER_BLOCK,
    THREADS_PER_BLOCK_MAX, THREADS_PER_SM, WARP,
};
use crate::driver::{Answer, Driver, driver};
use crate::graph::{KernelNode, Work};
use crate::objects::{Context, Function};
use crate::{capture, current, host_functions, raw};

/// The shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) grid: [c_uint; 3],
    pub(crate) block: [c_uint; 3],
    pub(crate) shared_bytes: c_uint,
    pub(crate) cooperative: bool,
    /// Programmatic dependent launch.
    pub(crate) overlaps: bool,
}

impl Shape {
    fn block_threads(self) -> u64 {
        self.block.into_iter().map(u64::from).fold(1, u64::saturating_mul)
    }

    /// What the driver refuses before anything runs.
    pub(crate) fn check(self, function: &Function, sms: u32) -> Answer {
        let fits = |sides: [u32; 3], most: [u32; 3]| {
            sides.into_iter().zip(most).all(|(side, most)| (1..=most).contains(&side))
        };
        let info = function.info();
        let threads = self.block_threads();
        if !fits(self.grid, GRID_MAX)
            || !fits(self.block, BLOCK_MAX)
            || threads > u64::from(THREADS_PER_BLOCK_MAX.min(info.threads_max))
            || info.required_block.is_some_and(|required| required != self.block)
            || self.shared_bytes > function.dynamic_shared_max.load(Ordering::Relaxed)
        {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if threads * u64::from(info.registers) > u64::from(REGISTERS_PER_SM) {
            return Err(CUresult::ERROR_LAUNCH_OUT_OF_RESOURCES);
        }
        if self.cooperative {
            let resident =
                u64::from(blocks_per_sm(function, threads, self.shared_bytes.into())) * u64::from(sms);
            let blocks = self.grid.into_iter().fold(1_u64, |all, side| all.saturating_mul(side.into()));
            if blocks > resident {
                return Err(CUresult::ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }
}

/// The parameter block of a launch, from either form a caller may pass.
fn parameters(
    function: &Function,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Vec<u8>, CUresult> {
    const END: usize = 0;
    const BUFFER_POINTER: usize = 1;
    const BUFFER_SIZE: usize = 2;
    /// Entries of `extra` looked at before its end must have come.
    const EXTRA_MAX: usize = 16;
    let info = function.info();
    if !params.is_null() && !extra.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut block = vec![0; info.param_bytes as usize];
    if !params.is_null() {
        for (index, &(offset, bytes)) in info.params.iter().enumerate() {
            let value = raw::bytes(raw::load_at(params, index)?, bytes as usize)?;
            let place = block.get_mut(offset as usize..offset as usize + value.len());
            place.ok_or(CUresult::ERROR_INVALID_VALUE)?.copy_from_slice(&value);
        }
        return Ok(block);
    }
    if extra.is_null() {
        return if info.params.is_empty() { Ok(block) } else { Err(CUresult::ERROR_INVALID_VALUE) };
    }
    let (mut buffer, mut bytes) = (core::ptr::null_mut::<c_void>(), None);
    for pair in 0..EXTRA_MAX / 2 {
        match raw::load_at(extra, 2 * pair)?.addr() {
            END => {
                let bytes: usize = bytes.ok_or(CUresult::ERROR_INVALID_VALUE)?;
                if bytes < block.len() {
                    return Err(CUresult::ERROR_INVALID_VALUE);
                }
                return raw::bytes(buffer, block.len());
            }
            BUFFER_POINTER => buffer = raw::load_at(extra, 2 * pair + 1)?,
            BUFFER_SIZE => bytes = Some(raw::load(raw::load_at(extra, 2 * pair + 1)?.cast::<usize>())?),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
    Err(CUresult::ERROR_INVALID_VALUE)
}

/// What a kernel node of a graph will launch.
pub(crate) fn prepare(
    driver: &Driver,
    context: &Context,
    params: &CUDA_KERNEL_NODE_PARAMS_v1,
) -> Result<KernelNode, CUresult> {
    let (handle, function) = find_function(driver, params.func.addr())?;
    let shape = Shape {
        grid: [params.gridDimX, params.gridDimY, params.gridDimZ],
        block: [params.blockDimX, params.blockDimY, params.blockDimZ],
        shared_bytes: params.sharedMemBytes,
        cooperative: false,
        overlaps: false,
    };
    shape.check(&function, driver.connection.node().devices[context.device].sms)?;
    let launch = describe(&function, shape, params.kernelParams, params.extra)?;
    Ok(node(handle, &function, launch, 0))
}

pub(crate) fn describe(
    function: &Function,
    shape: Shape,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Launch, CUresult> {
    Ok(packed(function, shape, parameters(function, params, extra)?))
}

fn packed(function: &Function, shape: Shape, params: Vec<u8>) -> Launch {
    Launch {
        module: function.module.info.module,
        kernel: function.kernel,
        grid: shape.grid,
        block: shape.block,
        shared_bytes: shape.shared_bytes,
        cooperative: shape.cooperative,
        overlaps: shape.overlaps,
        params,
    }
}

fn node(handle: usize, function: &Function, launch: Launch, priority: i32) -> KernelNode {
    let offsets = function.info().params.iter().map(|&(offset, _)| offset).collect();
    let context = function.module.context;
    KernelNode { function: handle, context, launch, priority, pointers: Vec::new(), offsets }.renewed()
}

fn launch(
    mode: ThreadMode,
    handle: CUfunction,
    shape: Shape,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Answer {
    launch_with(mode, handle, shape, stream, |function| parameters(function, params, extra))
}

/// A launch, whatever way its parameters come.
pub(crate) fn launch_with(
    mode: ThreadMode,
    handle: CUfunction,
    shape: Shape,
    stream: CUstream,
    params: impl FnOnce(&Function) -> Result<Vec<u8>, CUresult>,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let (handle, function) = find_function(driver, handle.addr())?;
    let stream = current::stream(driver, &context, stream, mode)?;
    if function.module.context != stream.home {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    let sms = driver.connection.node().devices[context.device].sms;
    shape.check(&function, context.share.map_or(sms, |share| share.sms))?;
    let launch = packed(&function, shape, params(&function)?);
    if let Some(capture) = capture::of(&stream) {
        let kernel = node(handle, &function, launch, stream.priority);
        return capture.record(driver, &stream, Work::Kernel(Arc::new(kernel)));
    }
    driver.submit(&stream, [Command::Launch(launch)]).map(|_| ())
}

#[expect(clippy::too_many_arguments, reason = "the signature is the driver API's")]
fn plain(
    mode: ThreadMode,
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
    launch(
        mode,
        function,
        Shape { grid, block, shared_bytes, cooperative: false, overlaps: false },
        stream,
        params,
        extra,
    )
}

#[expect(clippy::too_many_arguments, reason = "the signature is the driver API's")]
fn cooperative(
    mode: ThreadMode,
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
    let shape = Shape { grid, block, shared_bytes, cooperative: true, overlaps: false };
    launch(mode, function, shape, stream, params, core::ptr::null_mut())
}

/// `CUlaunchAttributeID`s. A programmatic dependent launch saves its kernel's prologue where the one before is still
/// under way; what it computes is what it would compute behind it.
fn extended(
    mode: ThreadMode,
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Answer {
    const IGNORE: c_uint = 0;
    const COOPERATIVE: c_uint = 2;
    const CLUSTER_DIMENSION: c_uint = 4;
    const PROGRAMMATIC_SERIALIZATION: c_uint = 6;
    const PRIORITY: c_uint = 8;
    const MEM_SYNC_DOMAIN_MAP: c_uint = 9;
    const MEM_SYNC_DOMAIN: c_uint = 10;
    driver()?;
    let config = raw::load(config)?;
    let (mut cooperative, mut overlaps) = (false, false);
    for index in 0..config.numAttrs as usize {
        let attribute = raw::load_at(config.attrs, index)?;
        let word = |at: usize| {
            let bytes = &attribute.value[at * 4..at * 4 + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        match attribute.id {
            COOPERATIVE => cooperative = word(0) != 0,
            CLUSTER_DIMENSION if [word(0), word(1), word(2)] == [1; 3] => {}
            PROGRAMMATIC_SERIALIZATION => overlaps = word(0) != 0,
            IGNORE | PRIORITY | MEM_SYNC_DOMAIN_MAP | MEM_SYNC_DOMAIN => {}
            _ => return Err(CUresult::ERROR_NOT_SUPPORTED),
        }
    }
    let shape = Shape {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        shared_bytes: config.sharedMemBytes,
        cooperative,
        overlaps,
    };
    launch(mode, function, shape, config.hStream, params, extra)
}

fn host_function(mode: ThreadMode, stream: CUstream, call: *mut c_void, data: *mut c_void) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    if call.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (call, data) = (call.expose_provenance(), data.expose_provenance());
    if let Some(capture) = capture::of(&stream) {
        return capture.record(driver, &stream, Work::Host { call, data });
    }
    // The first of the two carries the stream's order; when it is done, the function's turn has come.
    let seq = driver.submit(&stream, [Command::Nothing, Command::HostFunction])?;
    host_functions::add(driver, stream, seq, call, data)
}

twins! {
    cuLaunchKernel, cuLaunchKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) = plain;
    cuLaunchKernelEx, cuLaunchKernelEx_ptsz (config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) = extended;
    cuLaunchCooperativeKernel, cuLaunchCooperativeKernel_ptsz (function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) = cooperative;
    cuLaunchHostFunc, cuLaunchHostFunc_ptsz (stream: CUstream, call: *mut c_void, data: *mut c_void) = host_function;
}

/// How many blocks of a launch fit on one SM at once.
fn blocks_per_sm(function: &Function, threads: u64, dynamic_shared: u64) -> u32 {
    let info = function.info();
    let threads = threads.max(1).next_multiple_of(WARP.into());
    let by_threads = u64::from(THREADS_PER_SM) / threads;
    let by_registers = u64::from(REGISTERS_PER_SM) / (threads * u64::from(info.registers.max(1)));
    let fixed = u64::from(info.shared_bytes) + u64::from(SHARED_RESERVED_PER_BLOCK);
    let shared = fixed.saturating_add(dynamic_shared);
    let by_shared = u64::from(SHARED_PER_SM) / shared;
    let blocks = by_threads.min(by_registers).min(by_shared).min(BLOCKS_PER_SM.into());
    u32::try_from(blocks).unwrap_or(BLOCKS_PER_SM)
}

pub(crate) fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: CUfunction,
    block_threads: c_int,
    shared_bytes: usize,
) -> Answer {
    let driver = driver()?;
    let (_, function) = find_function(driver, function.addr())?;
    let threads = u64::try_from(block_threads).ok().filter(|&threads| threads > 0);
    let threads = threads.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let resident = match threads <= THREADS_PER_BLOCK_MAX.into() {
        true => blocks_per_sm(&function, threads, shared_bytes as u64),
        false => 0,
    };
    raw::store(blocks, c_int::try_from(resident).unwrap_or(c_int::MAX))
}

pub(crate) fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: CUfunction,
    block_threads: c_int,
    shared_bytes: usize,
    flags: c_uint,
) -> Answer {
    driver()?;
    if flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, block_threads, shared_bytes)
}
