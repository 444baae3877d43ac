//! Sets of events. The simulated devices have one kind: Xid errors, which a test orders.
#![allow(non_snake_case, reason = "the names are those of NVML")]

use core::ffi::{c_uint, c_ulonglong};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_abi::nvml::{NVML_EVENT_XID, NvmlDevice, NvmlEventData, NvmlEventSet, NvmlReturn};
use headgate_simgpu::protocol::{Reply, Request};

use crate::api::{NONE, handle, index};
use crate::raw;
use crate::session::{Answer, ask, connection};

/// How often the server is asked while a program waits. A driver's own wait costs nothing, and what the looks cost is
/// charged to whoever waits.
const LOOK: Duration = Duration::from_millis(50);

/// What a set listens to.
#[derive(Debug, Default)]
struct Set {
    devices: Vec<u32>,
    /// How many of the server's Xid errors it has told, or need not tell.
    seen: u64,
}

static SETS: Mutex<(usize, BTreeMap<usize, Set>)> = Mutex::new((0, BTreeMap::new()));

fn sets() -> MutexGuard<'static, (usize, BTreeMap<usize, Set>)> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn since(seen: u64) -> Result<Vec<(u32, u64)>, NvmlReturn> {
    match ask(&Request::Xids { since: seen })? {
        Reply::Xids(xids) => Ok(xids),
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}

pub(crate) fn nvmlEventSetCreate(set: *mut NvmlEventSet) -> Answer {
    connection()?;
    let (last, sets) = &mut *sets();
    *last += 1;
    raw::store(set, NvmlEventSet(core::ptr::without_provenance_mut(*last)))?;
    sets.insert(*last, Set::default());
    Ok(())
}

pub(crate) fn nvmlEventSetFree(set: NvmlEventSet) -> Answer {
    connection()?;
    sets().1.remove(&set.0.addr()).map(drop).ok_or(NvmlReturn::ERROR_INVALID_ARGUMENT)
}

pub(crate) fn nvmlDeviceGetSupportedEventTypes(device: NvmlDevice, types: *mut c_ulonglong) -> Answer {
    index(device)?;
    raw::store(types, NVML_EVENT_XID)
}

/// Events are told from the registration on.
pub(crate) fn nvmlDeviceRegisterEvents(device: NvmlDevice, types: c_ulonglong, set: NvmlEventSet) -> Answer {
    let (device, _) = index(device)?;
    if types & !NVML_EVENT_XID != 0 {
        return Err(NvmlReturn::ERROR_NOT_SUPPORTED);
    }
    let now = since(0)?.len() as u64;
    let (_, sets) = &mut *sets();
    let set = sets.get_mut(&set.0.addr()).ok_or(NvmlReturn::ERROR_INVALID_ARGUMENT)?;
    if types != 0 && !set.devices.contains(&device) {
        if set.devices.is_empty() {
            set.seen = now;
        }
        set.devices.push(device);
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the call is one that waits; the server answers and never calls"
)]
pub(crate) fn nvmlEventSetWait_v2(set: NvmlEventSet, data: *mut NvmlEventData, timeout_ms: c_uint) -> Answer {
    let key = set.0.addr();
    let mut left = Duration::from_millis(timeout_ms.into());
    loop {
        let (seen, devices) = {
            let (_, sets) = &*sets();
            let set = sets.get(&key).ok_or(NvmlReturn::ERROR_INVALID_ARGUMENT)?;
            (set.seen, set.devices.clone())
        };
        let fresh = since(seen)?;
        let found = fresh.iter().position(|(device, _)| devices.contains(device));
        let told = found.map_or(fresh.len(), |at| at + 1);
        if let Some(set) = sets().1.get_mut(&key) {
            set.seen = seen + told as u64;
        }
        if let Some((device, code)) = found.and_then(|at| fresh.get(at)) {
            return raw::store(
                data,
                NvmlEventData {
                    device: handle(*device as usize),
                    event_type: NVML_EVENT_XID,
                    event_data: *code,
                    gpu_instance_id: NONE,
                    compute_instance_id: NONE,
                },
            );
        }
        if left.is_zero() {
            return Err(NvmlReturn::ERROR_TIMEOUT);
        }
        std::thread::sleep(LOOK.min(left));
        left = left.saturating_sub(LOOK);
    }
}
