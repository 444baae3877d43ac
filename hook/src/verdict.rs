//! What to do with a call.

use headgate_abi::cuda::CUresult as CudaStatus;

/// The decision about one call. `S` is what remains to be done once the driver has answered.
pub(crate) enum Verdict<S> {
    /// Hand it to the driver; nothing is metered about it.
    Forward,
    /// Hand it to the driver, then settle: the settlement sees the driver's status and gives the final one.
    ForwardThen(S),
    /// Refuse it with this status.
    Deny(CudaStatus, Denial),
    /// Hand it to the driver although it would be metered, and say why.
    Bypass(Bypass),
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Denial {
    /// The tenant's memory quota has no room.
    MemoryQuota,
    /// The daemon gave this process no seat, or could not be reached.
    NoSeat,
    /// Its environment does not say what the daemon says about its part of a device.
    OtherSpace,
    /// It would not keep to its tenant's groups of the device's SMs.
    NoGroups,
}

/// Why a call that would be metered is not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bypass {
    /// Enforcement is off for this tenant.
    Off,
    /// The driver will refuse the call anyway (no context, null output): let it say so itself.
    DriverWillRefuse,
    /// The daemon does not know the device.
    UnknownDevice,
    /// The memory is the host's.
    HostMemory,
    /// The allocation becomes part of a graph, and is charged when the graph takes its memory.
    Captured,
    /// The array is given memory later, by a call that is charged itself.
    MappedLater,
}

/// Settlement of calls that need none; never called.
pub(crate) type NoSettlement = fn(CudaStatus) -> CudaStatus;
