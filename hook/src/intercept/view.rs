//! What a tenant sees of device memory: its quota, by the driver API and by NVML alike.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::CUdevice;
use headgate_abi::nvml::{NvmlDevice, NvmlMemory, NvmlMemoryV2, NvmlReturn};
use headgate_abi::segment::layout::UNLIMITED;
use headgate_quota::{Bytes, MemoryView};

use crate::boundary::inside;
use crate::driver::{self, Out};
use crate::ledger::{overhead, pools};
use crate::session::{self, Session};
use crate::verdict::Verdict;

/// `cuMemGetInfo`: free and total of the current device.
pub(crate) fn memory_info<B: Size>(
    free: Out<B>,
    total: Out<B>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if let (true, Some(device_free), Some(device_total), Some((session, row))) =
            (status.is_success(), free.get(), total.get(), current_row())
        {
            overhead::measure_if_due(session);
            let view = view(session, row, device_total.bytes(), device_free.bytes());
            free.set(B::of(view.free));
            total.set(B::of(view.total));
        }
        status
    })
}

/// `cuDeviceTotalMem`.
pub(crate) fn total_memory<B: Size>(
    total: Out<B>,
    device: CUdevice,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success()
            && let (Some(device_total), Ok(session)) = (total.get(), session::require())
            && let Some(row) = session.row(device)
        {
            let bytes = device_total.bytes();
            total.set(B::of(view(session, row, bytes, bytes).total));
        }
        status
    })
}

/// `nvmlInit`: a seat first. Without one NVML is the program's to use all the same, as far as the device gate lets it.
pub(crate) fn nvml_starts() {
    if !inside() {
        let _without_one = session::require();
    }
}

/// `nvmlDeviceGetMemoryInfo`.
pub(crate) fn nvml_memory(device: NvmlDevice, memory: &Out<NvmlMemory>, status: NvmlReturn) -> NvmlReturn {
    if status == NvmlReturn::SUCCESS
        && let (Some(real), Some((session, row))) = (memory.get(), nvml_row(device))
    {
        let view = view(session, row, real.total, real.free);
        memory.set(NvmlMemory { total: view.total.0, free: view.free.0, used: view.used().0 });
    }
    status
}

/// `nvmlDeviceGetMemoryInfo_v2`. The driver's own share is not the tenant's to see.
pub(crate) fn nvml_memory_v2(
    device: NvmlDevice,
    memory: &Out<NvmlMemoryV2>,
    status: NvmlReturn,
) -> NvmlReturn {
    if status == NvmlReturn::SUCCESS
        && let (Some(real), Some((session, row))) = (memory.get(), nvml_row(device))
        && session.memory_limit(row) != UNLIMITED
    {
        let view = view(session, row, real.total, real.free);
        let (total, free, used) = (view.total.0, view.free.0, view.used().0);
        memory.set(NvmlMemoryV2 { total, free, used, reserved: 0, ..real });
    }
    status
}

fn current_row() -> Option<(&'static Session, usize)> {
    let session = session::require().ok()?;
    let (_, device) = driver::current_context()?;
    Some((session, session.row(device)?))
}

/// The tenant's row of an NVML device.
pub(crate) fn nvml_row(device: NvmlDevice) -> Option<(&'static Session, usize)> {
    let session = session::require().ok()?;
    Some((session, session.row_by_uuid(&driver::nvml_uuid(device)?)?))
}

fn view(session: &Session, row: usize, total: u64, free: u64) -> MemoryView {
    pools::look_again();
    let limit = match session.memory_limit(row) {
        UNLIMITED => None,
        _ if session.is_off() => None,
        bytes => Some(Bytes(bytes)),
    };
    let device = MemoryView { total: Bytes(total), free: Bytes(free.min(total)) };
    MemoryView::under(limit, Bytes(session.used_bytes(row)), device)
}

/// How a call gives a size: 64 bits, or 32 in the oldest forms, which say 4 GiB less one for anything greater.
pub(crate) trait Size: Copy {
    /// The size.
    fn bytes(self) -> u64;
    /// The size, or the greatest that can be given.
    fn of(bytes: Bytes) -> Self;
}

impl Size for usize {
    fn bytes(self) -> u64 {
        self as u64
    }

    fn of(bytes: Bytes) -> Self {
        Self::try_from(bytes.0).unwrap_or(Self::MAX)
    }
}

impl Size for u32 {
    fn bytes(self) -> u64 {
        u64::from(self)
    }

    fn of(bytes: Bytes) -> Self {
        Self::try_from(bytes.0).unwrap_or(Self::MAX)
    }
}
