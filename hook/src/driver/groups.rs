//! Calls to the driver about groups of SMs and the green contexts that keep to them.
#![expect(unsafe_code, reason = "calls functions through pointers found by name")]

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUdevResourceDesc, CUdevice, CUenum, CUgreenCtx};

use super::cuda;

/// `CU_DEV_RESOURCE_TYPE_SM`.
pub(crate) const SM: CUenum = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`, which drivers before CUDA 13.5 demand.
const DEFAULT_STREAM: u32 = 1;
/// Groups asked for at once. The largest devices have fewer than a hundred of the smallest.
const GROUPS_MAX: usize = 256;

/// `CUdevResource`, of which most is the driver's own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    kind: CUenum,
    own: [u32; 23],
    /// SMs it has.
    pub(crate) sms: u32,
    rest: [u32; 11],
}
const _: () = assert!(size_of::<Resource>() == 144);
const _: () = assert!(std::mem::offset_of!(Resource, sms) == 96);

impl Resource {
    const EMPTY: Self = Self { kind: 0, own: [0; 23], sms: 0, rest: [0; 11] };
}

fn checked<T>(status: CUresult, value: T) -> Result<T, CUresult> {
    if status.is_success() { Ok(value) } else { Err(status) }
}

/// All of a device's SMs that its driver lets contexts have.
pub(crate) fn whole(device: CUdevice) -> Result<Resource, CUresult> {
    let mut whole = Resource::EMPTY;
    // SAFETY: the output has the size of the documented structure.
    let status = unsafe { cuda::cuDeviceGetDevResource(device, (&raw mut whole).cast(), SM) };
    checked(status, whole)
}

/// The SMs of a green context.
pub(crate) fn of(green: CUgreenCtx) -> Result<Resource, CUresult> {
    let mut own = Resource::EMPTY;
    // SAFETY: as above; the driver checks the handle.
    let status = unsafe { cuda::cuGreenCtxGetDevResource(green, (&raw mut own).cast(), SM) };
    checked(status, own)
}

/// The smallest equal groups that the driver makes of it. What is left over is in none.
pub(crate) fn split(whole: &Resource) -> Result<Vec<Resource>, CUresult> {
    let mut count = 0;
    let input: *const Resource = whole;
    let (none, input) = (std::ptr::null_mut(), input.cast());
    // SAFETY: without a place for them, only the number of groups is asked; outputs are valid for writing.
    let status = unsafe { cuda::cuDevSmResourceSplitByCount(none, &raw mut count, input, none, 0, 1) };
    checked(status, ())?;
    let mut groups = vec![Resource::EMPTY; (count as usize).min(GROUPS_MAX)];
    let mut count = u32::try_from(groups.len()).unwrap_or(0);
    let to = groups.as_mut_ptr().cast();
    // SAFETY: the list has room for as many as the count says.
    let status = unsafe { cuda::cuDevSmResourceSplitByCount(to, &raw mut count, input, none, 0, 1) };
    groups.truncate(count as usize);
    checked(status, groups)
}

/// A green context that keeps to groups of one split. It retains the device's primary context.
pub(crate) fn create(device: CUdevice, groups: &mut [Resource]) -> Result<CUgreenCtx, CUresult> {
    let mut descriptor = CUdevResourceDesc::NULL;
    let count = u32::try_from(groups.len()).unwrap_or(0);
    let from = groups.as_mut_ptr().cast();
    // SAFETY: the list has as many as the count says; the output is valid for writing.
    let status = unsafe { cuda::cuDevResourceGenerateDesc(&raw mut descriptor, from, count) };
    checked(status, ())?;
    let mut green = CUgreenCtx::NULL;
    // SAFETY: a descriptor that the driver has just made; the output is valid for writing.
    let status = unsafe { cuda::cuGreenCtxCreate(&raw mut green, descriptor, device, DEFAULT_STREAM) };
    checked(status, green)
}

/// The context that stands for a green one wherever the driver takes a context.
pub(crate) fn context(green: CUgreenCtx) -> Result<CUcontext, CUresult> {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing; the driver checks the handle.
    let status = unsafe { cuda::cuCtxFromGreenCtx(&raw mut context, green) };
    checked(status, context)
}

/// Ends a green context. The program's own streams in it stay until it destroys them.
pub(crate) fn destroy(green: CUgreenCtx) -> CUresult {
    // SAFETY: a green context that nobody is given any more.
    unsafe { cuda::cuGreenCtxDestroy(green) }
}

/// The calling thread's context as the driver has it; null for none.
pub(crate) fn current() -> CUcontext {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetCurrent(&raw mut context) };
    if status.is_success() { context } else { CUcontext::NULL }
}

/// The device of the calling thread's context.
pub(crate) fn current_device() -> Option<CUdevice> {
    let mut device = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetDevice(&raw mut device) };
    status.is_success().then_some(device)
}

/// Puts a context in the place of the calling thread's current one; null for none.
pub(crate) fn set_current(context: CUcontext) -> CUresult {
    // SAFETY: the driver checks the handle.
    unsafe { cuda::cuCtxSetCurrent(context) }
}

/// Takes the calling thread's current context off.
pub(crate) fn pop_current() -> CUresult {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing.
    unsafe { cuda::cuCtxPopCurrent_v2(&raw mut context) }
}

/// Waits for everything in a context other than the calling thread's, with all green ones if it is a primary one.
pub(crate) fn synchronise(context: CUcontext) -> CUresult {
    // SAFETY: the driver checks the handle.
    let pushed = unsafe { cuda::cuCtxPushCurrent_v2(context) };
    if !pushed.is_success() {
        return pushed;
    }
    // SAFETY: no arguments.
    let status = unsafe { cuda::cuCtxSynchronize() };
    let popped = pop_current();
    if status.is_success() { popped } else { status }
}
