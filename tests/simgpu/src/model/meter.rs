//! What devices and contexts have used: the device's own measurement of shares, exact to the nanosecond.

use super::Nanos;

/// How a device has spent its time. The three spans add up to the time that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceMeter {
    /// A kernel was on the device.
    pub busy_ns: Nanos,
    /// Nothing was.
    pub idle_ns: Nanos,
    /// A context was being brought in.
    pub switch_ns: Nanos,
    /// How often a context was brought in.
    pub switches: u64,
    /// Time of the copy engines, both together. They work beside the kernels.
    pub copy_ns: Nanos,
}

/// What a context has used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ContextMeter {
    /// Time in which at least one of its kernels was on the device.
    pub busy_ns: Nanos,
    /// The same, times the SMs that its kernels held.
    pub sm_ns: Nanos,
    /// Kernels that ended.
    pub kernels: u64,
}
