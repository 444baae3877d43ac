//! NVML's lists of processes: a tenant sees its own, with what they are charged for.

use std::ffi::c_uint;
use std::sync::atomic::Ordering::Acquire;

use headgate_abi::nvml::{
    NvmlDevice, NvmlProcessDetail, NvmlProcessDetailList, NvmlProcessInfo, NvmlProcessInfoV1,
    NvmlProcessUtilizationInfo, NvmlProcessUtilizationSample, NvmlProcessesUtilizationInfo, NvmlReturn,
};
use headgate_abi::segment::layout::UNLIMITED;

use super::view;
use crate::driver::{self, Out};
use crate::session::Session;

/// A record of one process.
pub(crate) trait OfProcess: Copy + Default {
    /// Which process.
    fn pid(&self) -> u32;
    /// Sets how much memory it shows, if it shows any.
    fn show(&mut self, _bytes: u64) {}
}

macro_rules! of_process {
    ($($record:ty { $($memory:ident)? })*) => {$(
        impl OfProcess for $record {
            fn pid(&self) -> u32 {
                self.pid
            }
            $(fn show(&mut self, bytes: u64) {
                self.$memory = bytes;
            })?
        }
    )*};
}

of_process! {
    NvmlProcessInfoV1 { used_gpu_memory }
    NvmlProcessInfo { used_gpu_memory }
    NvmlProcessDetail { used_gpu_memory }
    NvmlProcessUtilizationSample {}
    NvmlProcessUtilizationInfo {}
}

/// A bare process id, as lists of statistics have it.
impl OfProcess for c_uint {
    fn pid(&self) -> u32 {
        *self
    }
}

/// Keeps the records of the tenant's own processes, and makes their memory agree with every other view. `None`
/// when the device is not ours to answer for.
pub(crate) fn own<T: OfProcess>(device: NvmlDevice, records: Vec<T>) -> Option<Vec<T>> {
    let (session, row) = view::nvml_row(device)?;
    if session.is_off() {
        return Some(records);
    }
    let limited = session.memory_limit(row) != UNLIMITED;
    let keep = |mut record: T| {
        let seat = seat_bytes(session, row, record.pid())?;
        if limited {
            record.show(seat);
        }
        Some(record)
    };
    Some(records.into_iter().filter_map(keep).collect())
}

fn seat_bytes(session: &Session, row: usize, pid: u32) -> Option<u64> {
    let seat = session.ledger().live().find(|seat| seat.pid.load(Acquire) == pid)?;
    Some(seat.charged_bytes[row].load(Acquire))
}

/// Answers a call that lists processes into a program's own array.
pub(crate) fn list<T: OfProcess>(
    device: NvmlDevice,
    count: &Out<c_uint>,
    infos: *mut T,
    ask: impl Fn(*mut c_uint, *mut T) -> NvmlReturn,
) -> NvmlReturn {
    if view::nvml_row(device).is_none_or(|(session, _)| session.is_off()) {
        return ask(count.0, infos);
    }
    let (status, all) = driver::processes(&ask);
    match own(device, all) {
        Some(own) if status == NvmlReturn::SUCCESS => driver::give_list(&own, count, infos),
        // Whatever is wrong with the call, the program hears it from NVML itself.
        _ => ask(count.0, infos),
    }
}

/// Answers `nvmlDeviceGetRunningProcessDetailList`, whose list is in a structure that says its own version.
pub(crate) fn detail(
    device: NvmlDevice,
    list: &Out<NvmlProcessDetailList>,
    ask: impl Fn(*mut NvmlProcessDetailList) -> NvmlReturn,
) -> NvmlReturn {
    let Some(asked) = list.get() else { return ask(list.0) };
    let mut answer = asked;
    let status = self::list(
        device,
        &Out(&raw mut answer.count),
        asked.processes,
        // NVML judges version and mode of the program's own structure; only list and length are lent.
        |count, processes| driver::through(NvmlProcessDetailList { processes, ..asked }, count, &ask),
    );
    list.set(NvmlProcessDetailList { count: answer.count, ..asked });
    status
}

/// Answers `nvmlDeviceGetProcessesUtilizationInfo`, likewise.
pub(crate) fn utilisation(
    device: NvmlDevice,
    info: &Out<NvmlProcessesUtilizationInfo>,
    ask: impl Fn(*mut NvmlProcessesUtilizationInfo) -> NvmlReturn,
) -> NvmlReturn {
    let Some(asked) = info.get() else { return ask(info.0) };
    let mut answer = asked;
    let status = list(device, &Out(&raw mut answer.count), asked.samples, |count, samples| {
        driver::through(NvmlProcessesUtilizationInfo { samples, ..asked }, count, &ask)
    });
    info.set(NvmlProcessesUtilizationInfo { count: answer.count, ..asked });
    status
}
