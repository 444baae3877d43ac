//! Calls that make, trim and end pools.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUdevice, CUmemPoolProps, CUmemoryPool};

use super::place;
use crate::driver::{self, Out};
use crate::ledger::{graphs, pools};
use crate::session;
use crate::verdict::Verdict;

/// `cuMemPoolCreate`. A pool takes nothing before it is allocated from.
pub(crate) fn create(
    pool: Out<CUmemoryPool>,
    props: Option<CUmemPoolProps>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if let (true, Some(pool), Some(props), Ok(session)) =
            (status.is_success(), pool.get(), props, place::metered())
        {
            // A managed pool may have no place of its own; it is charged where it is used.
            let device = driver::device_of(props.location);
            let anywhere = props.location.kind == 0;
            if !anywhere {
                pools::created(pool, device.and_then(|device| session.row(device)));
            }
        }
        status
    })
}

/// `cuMemPoolDestroy`: what programs still hold of it stays theirs.
pub(crate) fn destroy(pool: CUmemoryPool) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let place = pools::let_go(pool);
    Verdict::ForwardThen(move |status: CUresult| {
        match place {
            Some(pools::Place::Device(id, _)) if status.is_success() => pools::destroyed(id),
            Some(place) if !status.is_success() => pools::keep(pool, place),
            _ => {}
        }
        status
    })
}

/// `cuMemPoolTrimTo`, `cuMemPoolSetAttribute`: the pool may have less afterwards.
pub(crate) fn shrink() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(|status| {
        pools::look_at_all();
        status
    })
}

/// `cuDeviceGraphMemTrim`.
pub(crate) fn trim_graphs(device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() && session::seated().is_some() {
            graphs::trimmed(device);
            pools::look_at_all();
        }
        status
    })
}
