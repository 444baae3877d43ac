//! The contract of start-up beside a genuine driver: whose answer a program hears.
//!
//! A program that uses NVIDIA's runtime library asks the driver, before anything else, who it is: tables of private
//! functions, the driver's version, the devices' identities. The runtime then checks that driver with a test of its own.
//! Nothing here answers that test. On a node with a driver of its own the driver answers it, about itself, and so
//! everything the test is about has to stay the driver's; what computes is the borrowed device all the same.
//!
//! | asked for | whose | why |
//! |---|---|---|
//! | `cuInit`, version, number and order of devices, name, UUID, PCI address and its attributes | the driver's | the test is about them |
//! | `CUDART_INTERFACE`, `INTEGRITY_CHECK` | the driver's pointers, untouched | likewise, their addresses too |
//! | `TOOLS_RUNTIME_CALLBACK_HOOKS`, `TOOLS_TLS` | the driver's pointers | flags it keeps for good, as many as its runtimes have functions; reading them needs no context |
//! | the primary context's handle | the driver's value, our context | the runtime learns it from `CUDART_INTERFACE`, which activates nothing |
//! | `CONTEXT_LOCAL_STORAGE`, `CONTEXT_CHECKS` | ours ([`storage`], [`tables`]) | they are about contexts, which are elsewhere |
//! | `21318C60-..` (asked for since runtime 13.4, never called) | ours: every function says that it is not supported | a program must not start less well for a table that nobody uses |
//! | `F8CFF951-..` (error texts), any other | refused, and named in the log | what a table unknown to us does may be done to the local device |
//! | memory and what kernels may ask of a device | the borrowed device's; 0 for what it does not know | it is what computes |
//!
//! No call that goes to the driver makes or needs a context. So none is ever active on the local device, and what a
//! program finds there in spite of all (an entry point newer than the table) is refused for want of one.
//!
//! Beside a driver with more devices than were borrowed, the first ones are the borrowed ones; the others keep what they
//! are, and every attempt to use one is `CUDA_ERROR_DEVICE_UNAVAILABLE`.

mod genuine;
pub(super) mod storage;
mod tables;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdevice, CUenum, CUresult};

pub use genuine::Find;
pub(super) use genuine::Genuine;
pub(super) use tables::table;

use super::state::hint;

/// Lines about entry points and tables that are not there. A program that asks in a loop must not fill a log.
const LINES_MAX: u32 = 200;
/// PCI bus, device and domain (`CUdevice_attribute`).
const IDENTITY: [CUenum; 3] = [33, 34, 50];

static FIND: OnceLock<Find> = OnceLock::new();
static GENUINE: OnceLock<Option<Genuine>> = OnceLock::new();
static LINES: AtomicU32 = AtomicU32::new(0);

/// Has this process's client stand beside a genuine driver, whose functions `find` finds. Said once, by the library that
/// programs preload, before any call.
pub fn redirect(find: Find) {
    let _again = FIND.set(find);
}

/// The driver beside us; `None` where there is none to be. An error where there should be one and is not.
pub(super) fn genuine() -> Option<Result<&'static Genuine, CUresult>> {
    let find = FIND.get()?;
    let found = GENUINE.get_or_init(|| {
        let found = Genuine::load(*find);
        if found.is_none() {
            hint(&"no device: this node has no genuine driver (libcuda.so.1) to stand beside");
        }
        found
    });
    Some(found.as_ref().ok_or(CUresult::ERROR_NO_DEVICE))
}

/// Whether an attribute says which device it is, and not what it can do.
pub(super) fn identifies(attribute: CUenum) -> bool {
    IDENTITY.contains(&attribute)
}

/// Handles that the driver's own primary contexts have, for as many devices as were borrowed. They are known without a
/// context being made. Empty where there is no driver, or one whose handles nobody can ask for.
///
/// # Errors
/// When the driver does not number its devices from 0 on, so that ours cannot take their places.
pub(super) fn primary_handles(borrowed: usize) -> Result<Vec<usize>, String> {
    let Some(genuine) = genuine() else { return Ok(Vec::new()) };
    let genuine = genuine.map_err(|_| "there is no driver".to_owned())?;
    let count = usize::try_from(genuine.devices()).unwrap_or(0);
    if count < borrowed {
        hint(&format_args!("{borrowed} devices were borrowed and {count} can be shown: so many are here"));
    }
    let mut handles = Vec::new();
    for ordinal in (0..count.min(borrowed)).filter_map(|index| CUdevice::try_from(index).ok()) {
        let mut device = -1;
        genuine.device(&raw mut device, ordinal).map_err(|status| format!("device {ordinal}: {status:?}"))?;
        if device != ordinal {
            return Err(format!("the driver calls its device {ordinal} by the number {device}"));
        }
        match genuine.primary(device) {
            Ok(handle) => handles.push(handle),
            Err(status) => {
                hint(&format_args!("primary contexts have handles of our own: {status:?}"));
                return Ok(Vec::new());
            }
        }
    }
    Ok(handles)
}

/// What an exported function answers that nothing is behind: a program that was linked with it finds out here.
#[must_use]
pub fn absent(symbol: Symbol) -> CUresult {
    note(&format_args!("{symbol:?} is not offered on a borrowed device"));
    CUresult::ERROR_NOT_SUPPORTED
}

/// Says something that a program may do again and again.
pub fn note(what: &dyn std::fmt::Display) {
    if LINES.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
        hint(what);
    }
}
