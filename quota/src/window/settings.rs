//! How the scheduler paces itself.

use crate::units::Micros;

/// How the scheduler paces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSettings {
    /// Mean length of windows after someone came or went, and by how much one is prolonged whose owner still has
    /// the fullest bucket. Within a round of all tenants each one's window is in proportion to its share.
    pub window_min: Micros,
    /// Mean length windows grow to.
    pub window_max: Micros,
    /// An owner without work for this long gives the window up. Short: what the program does meanwhile is lost
    /// to everybody, and its gate may stay open when another takes the device.
    pub yield_after: Micros,
    /// Tokens a whole device's bucket holds; a tenant's holds its share of that. Bounds the burst of a tenant
    /// that comes back from idling, and how long a change of quota takes to settle.
    pub burst: Micros,
    /// The same for express tenants, whose requests come in bunches.
    pub burst_express: Micros,
    /// What a whole device's bucket may hold of tokens earned while work was held at a closed gate: others' long
    /// kernels must not cost a tenant what it earned meanwhile. A tenant's holds its share of that.
    pub held_max: Micros,
    /// Deepest debt, for tenants whose work does not end.
    pub debt_max: Micros,
    /// How long it may be since a tenant's batches were measured alone on the device for others' gates to stay open in
    /// its windows. What each had of a span they share is told by that measure.
    pub measured_within: Micros,
    /// How long a tenant counts as active after its last sign of work. Bridges the gaps of host-bound
    /// programs, so that a pause between two launches does not hand the window away for good.
    pub linger: Micros,
    /// Work under way that completes nothing for this long after its gate closed is stuck. Nobody waits for it
    /// any longer: the device's own slices share it out.
    pub stuck_after: Micros,
    /// Work that has been stuck for this long takes part in nothing any more until something of it completes: its kernel
    /// has no end, or its program was stopped and cannot say that it has. Far above the longest kernels that are usual.
    pub lost_after: Micros,
    /// Threads that have stood at an open gate for this long have been stopped: each opening wakes them, and they look
    /// again every 10 ms by themselves.
    pub unheard_host: Micros,
    /// Work on the device that has stood at an open gate for this long will not come through: its process was stopped
    /// before it handed it over, or the device is lost.
    pub unheard_device: Micros,
    /// How long such a tenant counts as at rest before it gets another chance.
    pub unheard_again: Micros,
    /// A batch that its program has not closed counts as work for this long after it was first seen past the gate.
    pub filling_max: Micros,
    /// Between two looks while tenants contend: how late a window ends.
    pub tick_contended: Micros,
    /// The same while the next tenant waits for the end of what the last one has under way; an eighth of how
    /// long it has waited already, if that is more.
    pub tick_draining: Micros,
    /// The same where a tenant with an open gate may show up in another's window: an express one, or one that gave
    /// its own up.
    pub tick_express: Micros,
    /// Between two looks while one tenant is busy: how late a second one is noticed.
    pub tick_busy: Micros,
    /// Between two looks while nobody has been for as long as `wake`.
    pub tick_idle: Micros,
    /// The same where arrivals announce themselves: there is nothing to look for, only a thread to be seen alive.
    pub tick_rest: Micros,
    /// How long after its last sign of work a tenant may be back at any moment.
    pub wake: Micros,
    /// Device time a batch should hold.
    pub batch: Micros,
    /// The same beside an express tenant, which waits for the end of one.
    pub batch_beside_express: Micros,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            window_min: Micros(1_000),
            window_max: Micros(8_000),
            yield_after: Micros(20),
            burst: Micros(20_000),
            burst_express: Micros(200_000),
            held_max: Micros(500_000),
            debt_max: Micros(1_000_000),
            measured_within: Micros(50_000),
            linger: Micros(1_000),
            stuck_after: Micros(50_000),
            lost_after: Micros(500_000),
            unheard_host: Micros(20_000),
            unheard_device: Micros(100_000),
            unheard_again: Micros(1_000_000),
            filling_max: Micros(500),
            tick_contended: Micros(100),
            tick_draining: Micros(20),
            tick_express: Micros(50),
            tick_busy: Micros(500),
            tick_idle: Micros(15_000),
            tick_rest: Micros(40_000),
            wake: Micros(50_000),
            batch: Micros(250),
            batch_beside_express: Micros(100),
        }
    }
}
