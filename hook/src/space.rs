//! Devices that are shared by space: a program's part of one is what its environment says to NVIDIA's driver when CUDA
//! starts. That must be what the daemon says, whose digest of it stands in the limits.
//!
//! The environment is not set right here: other threads of the program may be reading it. A program that comes with
//! another one gets no GPU, and is told how to come with the right one.

use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::Ordering::Acquire;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::space;

use crate::log;
use crate::session::Session;

/// Whether the program's environment makes it a client on a device of its tenant as the daemon says. A program is a client
/// on one device at most.
pub(crate) fn fits(session: &Session) -> bool {
    let asked =
        (0..DEVICES_MAX).map(|row| session.limits(row).environment.load(Acquire)).filter(|word| *word != 0);
    let asked: Vec<u64> = asked.collect();
    if asked.is_empty() || session.is_off() {
        return true;
    }
    let own = space::digest(|name| std::env::var_os(name).map(OsStringExt::into_vec));
    let fits = asked.contains(&own);
    if !fits {
        log::notice(format_args!(
            "the GPU is shared by space, and this process's CUDA_MPS_* variables are not those of its tenant, so it gets no \
             GPU; start it by `headgate run`, and again if its part has changed meanwhile"
        ));
    }
    fits
}
