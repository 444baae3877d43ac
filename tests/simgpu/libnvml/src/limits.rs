//! Memory limits of control groups, as drivers from r615 on have them (`group_limits` in the server's configuration).
#![allow(non_snake_case, reason = "the names are those of NVML")]

use std::os::unix::fs::MetadataExt;

use headgate_abi::nvml::{NvmlDevice, NvmlGetMemoryLimits, NvmlReturn, NvmlSetMemoryLimits};
use headgate_simgpu::protocol::{Holding, Reply, Request};

use crate::api::index;
use crate::raw;
use crate::session::{Answer, ask};

/// Only root may set what others get.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

pub(crate) fn nvmlDeviceSetMemoryLimits_v1(device: NvmlDevice, limits: *mut NvmlSetMemoryLimits) -> Answer {
    let (device, _) = index(device)?;
    let told = raw::load(limits.cast_const())?;
    let group = raw::text(told.name_space)?;
    if !is_root() {
        return Err(NvmlReturn::ERROR_NO_PERMISSION);
    }
    let (soft, hard) = (told.soft_limit, told.hard_limit);
    ask(&Request::Holding(Holding::SetLimits { device, group, soft, hard })).map(|_| ())
}

pub(crate) fn nvmlDeviceGetMemoryLimits_v1(device: NvmlDevice, limits: *mut NvmlGetMemoryLimits) -> Answer {
    let (device, _) = index(device)?;
    let mut told = raw::load(limits.cast_const())?;
    let group = raw::text(told.name_space)?;
    match ask(&Request::Holding(Holding::AskLimits { device, group }))? {
        Reply::Limits { soft, hard, used } => {
            (told.soft_limit, told.hard_limit, told.current_used) = (soft, hard, used);
            raw::store(limits, told)
        }
        _ => Err(NvmlReturn::ERROR_UNKNOWN),
    }
}
