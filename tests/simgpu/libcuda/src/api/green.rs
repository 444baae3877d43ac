//! Green contexts: groups of SMs, and contexts and streams that keep to one.
//!
//! A green context shares the device's primary context, its memory and its modules; only the SMs that its streams'
//! kernels may hold are its own. Groups are made of whole units of 8 SMs, as on compute capability 9.0, or 2 with
//! `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING`.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use headgate_abi::cuda::types::{
    CUcontext, CUdevResourceDesc, CUdevice, CUenum, CUevent, CUgreenCtx, CUresult, CUstream,
};
use headgate_simgpu::config::DeviceInfo;

use super::{context, device, event, stream};
use crate::driver::{Answer, Driver, driver};
use crate::objects::{Context, Green, Share, StreamKind, lock};
use crate::{current, raw};

/// `CU_DEV_RESOURCE_TYPE_SM`.
const SM: u32 = 1;
/// `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING` and `_MAX_POTENTIAL_CLUSTER_SIZE`.
const IGNORE_COSCHEDULING: c_uint = 1;
const MAX_CLUSTER: c_uint = 2;
/// `CU_GREEN_CTX_DEFAULT_STREAM`.
const DEFAULT_STREAM: c_uint = 1;
const NON_BLOCKING: c_uint = 1;

/// `CUdevResource`: a type, words of the driver's own, and what the type says.
///
/// ```text
///  0 u32 type   4 driver's own (92 bytes)   96 u32 SMs   100 u32 least SMs   104 u32 alignment   .. 144
/// ```
#[repr(C)]
#[derive(Clone, Copy)]
struct Resource {
    kind: u32,
    /// Number of the first SM, and a mark that the structure was made here.
    first: u32,
    mark: u32,
    own: [u32; 21],
    sms: u32,
    least: u32,
    alignment: u32,
    rest: [u32; 9],
}
const _: () = assert!(size_of::<Resource>() == 144);

const MARK: u32 = 0x6873_6d72;

impl Resource {
    fn new(first: u32, sms: u32) -> Self {
        let (least, alignment) = (8, 8);
        Self { kind: SM, first, mark: MARK, own: [0; 21], sms, least, alignment, rest: [0; 9] }
    }

    fn load(from: *const c_void) -> Result<Self, CUresult> {
        let told: Self = raw::load(from.cast())?;
        if told.kind != SM || told.mark != MARK || told.sms == 0 {
            return Err(CUresult::ERROR_INVALID_RESOURCE_TYPE);
        }
        Ok(told)
    }
}

fn whole(info: &DeviceInfo) -> Resource {
    Resource::new(0, info.sms)
}

fn of_kind(kind: CUenum) -> Answer {
    // Work queues are not simulated.
    if kind == SM { Ok(()) } else { Err(CUresult::ERROR_INVALID_RESOURCE_TYPE) }
}

pub(crate) fn cuDeviceGetDevResource(dev: CUdevice, resource: *mut c_void, kind: CUenum) -> Answer {
    let driver = driver()?;
    let index = device::index(driver, dev)?;
    of_kind(kind)?;
    raw::store(resource.cast(), whole(&driver.connection.node().devices[index]))
}

fn share_of(driver: &Driver, context: &Context) -> Resource {
    match &context.share {
        Some(share) => Resource::new(share.first, share.sms),
        None => whole(&driver.connection.node().devices[context.device]),
    }
}

pub(crate) fn cuCtxGetDevResource(ctx: CUcontext, resource: *mut c_void, kind: CUenum) -> Answer {
    let driver = driver()?;
    let context = context::given_or_current(driver, ctx)?;
    of_kind(kind)?;
    raw::store(resource.cast(), share_of(driver, &context))
}

pub(crate) fn cuGreenCtxGetDevResource(ctx: CUgreenCtx, resource: *mut c_void, kind: CUenum) -> Answer {
    let driver = driver()?;
    let green = find(driver, ctx)?;
    of_kind(kind)?;
    raw::store(resource.cast(), share_of(driver, &green.context))
}

/// As many groups of at least `least` SMs as fit, at most as many as asked for; without a place for them, only their
/// number.
pub(crate) fn cuDevSmResourceSplitByCount(
    result: *mut c_void,
    groups: *mut c_uint,
    input: *const c_void,
    remaining: *mut c_void,
    flags: c_uint,
    least: c_uint,
) -> Answer {
    driver()?;
    let whole = Resource::load(input)?;
    if groups.is_null() || flags & !(IGNORE_COSCHEDULING | MAX_CLUSTER) != 0 || least > whole.sms {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let unit = if flags & IGNORE_COSCHEDULING == 0 { 8 } else { 2 };
    let size = least.max(1).next_multiple_of(unit);
    let fitting = whole.sms / size;
    if fitting == 0 {
        return Err(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION);
    }
    let made = if result.is_null() { fitting } else { fitting.min(raw::load(groups.cast_const())?) };
    if !result.is_null() {
        for group in 0..made {
            let part = Resource::new(whole.first + group * size, size);
            raw::store(result.cast::<Resource>().wrapping_add(group as usize), part)?;
        }
        let left = whole.sms - made * size;
        let rest = if left == 0 {
            Resource { kind: 0, ..Resource::new(0, 0) }
        } else {
            Resource::new(whole.first + made * size, left)
        };
        raw::store_if(remaining.cast(), rest);
    }
    raw::store(groups, made)
}

/// The resources must be one group, or groups that lie beside each other.
pub(crate) fn cuDevResourceGenerateDesc(
    desc: *mut CUdevResourceDesc,
    resources: *mut c_void,
    count: c_uint,
) -> Answer {
    let driver = driver()?;
    if desc.is_null() || count == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut parts: Vec<Resource> = (0..count as usize)
        .map(|index| Resource::load(resources.cast::<Resource>().wrapping_add(index).cast()))
        .collect::<Result<_, _>>()?;
    parts.sort_by_key(|part| part.first);
    if parts.windows(2).any(|pair| pair[0].first + pair[0].sms != pair[1].first) {
        return Err(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION);
    }
    let handle = driver.resource_descs.reserve();
    let share = Share { first: parts[0].first, sms: parts.iter().map(|part| part.sms).sum() };
    driver.resource_descs.insert(handle, Arc::new(share));
    raw::store(desc, CUdevResourceDesc::from_addr(handle))
}

fn find(driver: &Driver, ctx: CUgreenCtx) -> Result<Arc<Green>, CUresult> {
    driver.greens.get(ctx.addr()).ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

/// The device's primary context is retained for as long as the green one lives.
pub(crate) fn cuGreenCtxCreate(
    ctx: *mut CUgreenCtx,
    desc: CUdevResourceDesc,
    dev: CUdevice,
    flags: c_uint,
) -> Answer {
    let driver = driver()?;
    let index = device::index(driver, dev)?;
    let share = driver.resource_descs.get(desc.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if ctx.is_null() || flags != DEFAULT_STREAM {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if share.first + share.sms > driver.connection.node().devices[index].sms {
        return Err(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION);
    }
    let handle = driver.greens.reserve();
    let made = context::create_green(driver, index, *share)?;
    driver.greens.insert(handle, Arc::new(Green { context: made, device: index }));
    raw::store(ctx, CUgreenCtx::from_addr(handle))
}

pub(crate) fn cuGreenCtxDestroy(ctx: CUgreenCtx) -> Answer {
    let driver = driver()?;
    let green = driver.greens.remove(ctx.addr()).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    context::destroy_green(driver, &green)
}

pub(crate) fn cuCtxFromGreenCtx(to: *mut CUcontext, ctx: CUgreenCtx) -> Answer {
    raw::store(to, CUcontext::from_addr(find(driver()?, ctx)?.context.handle))
}

pub(crate) fn cuGreenCtxGetId(ctx: CUgreenCtx, id: *mut u64) -> Answer {
    find(driver()?, ctx)?;
    raw::store(id, ctx.addr() as u64)
}

pub(crate) fn cuGreenCtxStreamCreate(
    to: *mut CUstream,
    ctx: CUgreenCtx,
    flags: c_uint,
    priority: c_int,
) -> Answer {
    let driver = driver()?;
    let green = find(driver, ctx)?;
    // "CU_STREAM_NON_BLOCKING must be specified."
    if to.is_null() || flags != NON_BLOCKING {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let priority = priority.clamp(stream::PRIORITY_GREATEST, stream::PRIORITY_LEAST);
    let made = stream::open(driver, &green.context, StreamKind::NonBlocking, flags, priority)?;
    raw::store(to, CUstream::from_addr(made.handle))
}

pub(crate) fn cuStreamGetGreenCtx(of: CUstream, to: *mut CUgreenCtx) -> Answer {
    let driver = driver()?;
    let current = current::context(driver)?;
    let mode = headgate_abi::cuda::symbols::ThreadMode::Base;
    let of = current::stream(driver, &current, of, mode)?;
    raw::store(to, handle_of(driver, of.context))
}

/// The green context that a context stands for; null if it stands for none.
pub(crate) fn handle_of(driver: &Driver, context: usize) -> CUgreenCtx {
    let green = driver.greens.all().into_iter().find(|(_, green)| green.context.handle == context);
    CUgreenCtx::from_addr(green.map_or(0, |(handle, _)| handle))
}

/// The event stands for what all streams of the green context have been given.
pub(crate) fn cuGreenCtxRecordEvent(ctx: CUgreenCtx, of: CUevent) -> Answer {
    let driver = driver()?;
    let green = find(driver, ctx)?;
    let of = event::find(driver, of)?;
    let streams = lock(&green.context.streams).clone();
    let after = streams.iter().filter(|stream| stream.slot != green.context.legacy.slot);
    let after = after
        .map(|stream| headgate_simgpu::protocol::Command::After { slot: stream.slot, seq: stream.last() });
    driver.submit(&green.context.legacy, after)?;
    event::record_in(driver, &green.context.legacy, &of)
}

/// All streams of the green context wait.
pub(crate) fn cuGreenCtxWaitEvent(ctx: CUgreenCtx, on: CUevent) -> Answer {
    let driver = driver()?;
    let green = find(driver, ctx)?;
    let on = event::find(driver, on)?;
    let streams = lock(&green.context.streams).clone();
    streams.iter().try_for_each(|stream| event::wait_in(driver, stream, &on))
}
