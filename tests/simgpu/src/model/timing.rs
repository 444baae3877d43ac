//! How long things take on the simulated device. Set by the test; never measured from how long simulating them takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FOREVER, Nanos};

/// How long one kernel takes: `base_ns + blocks * block_ns + waves * wave_ns + spread_ns * SMs / part`, where a wave is as
/// many threads as its part of the device holds at once (2,048 an SM).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelRule {
    /// Time of any launch.
    pub base_ns: Nanos,
    /// Time of every block.
    pub block_ns: Nanos,
    /// Time of every wave.
    pub wave_ns: Nanos,
    /// Work that keeps every SM it is given busy, by the time all SMs of the device would need for it together: with
    /// half of them it takes twice as long. A simple model of compute-bound work; no real kernel scales so exactly.
    pub spread_ns: Nanos,
    /// How long it does without what the kernel before it makes: it waits (`griddepcontrol.wait`) only then. A launch
    /// that may overlap its predecessor saves so much, as far as that one is long enough.
    pub prologue_ns: Nanos,
    /// The kernel never ends.
    pub hangs: bool,
    /// Whether its instructions are interpreted. Without, a launch takes its time and changes no memory: for load
    /// loops whose results nobody reads.
    pub execute: bool,
}

/// Threads that one SM holds (compute capability 9.0).
const THREADS_PER_SM: u64 = 2048;

impl Default for KernelRule {
    /// No time at all, but executed: what a rule leaves out.
    fn default() -> Self {
        Self::fixed(0)
    }
}

impl KernelRule {
    /// For kernels that nothing else is said of. Uncalibrated: the order of magnitude of a small kernel on a large
    /// device.
    pub const ORDINARY: Self = Self {
        base_ns: 2_000,
        block_ns: 0,
        wave_ns: 8_000,
        spread_ns: 0,
        prologue_ns: 0,
        hangs: false,
        execute: true,
    };

    /// A kernel that takes the same time whatever its grid.
    #[must_use]
    pub const fn fixed(base_ns: Nanos) -> Self {
        Self { base_ns, block_ns: 0, wave_ns: 0, spread_ns: 0, prologue_ns: 0, hangs: false, execute: true }
    }

    /// Time of a launch on a device of `sms` SMs.
    #[must_use]
    pub fn duration(&self, blocks: u64, threads_per_block: u64, sms: u32) -> Nanos {
        self.duration_on(blocks, threads_per_block, sms, sms)
    }

    /// Time of a launch on `sms` SMs of a device that has `of`.
    #[must_use]
    pub fn duration_on(&self, blocks: u64, threads_per_block: u64, sms: u32, of: u32) -> Nanos {
        if self.hangs {
            return FOREVER;
        }
        let spread = self.spread_ns.saturating_mul(u64::from(of)) / u64::from(sms.max(1));
        let room = u64::from(sms.max(1)) * THREADS_PER_SM;
        let waves = blocks.saturating_mul(threads_per_block).div_ceil(room);
        self.base_ns
            .saturating_add(blocks.saturating_mul(self.block_ns))
            .saturating_add(waves.saturating_mul(self.wave_ns))
            .saturating_add(spread)
            .min(FOREVER - 1)
    }
}

/// How long kernels take, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelTimes {
    /// For kernels without a rule of their own.
    pub default: KernelRule,
    /// By kernel name.
    pub named: BTreeMap<String, KernelRule>,
}

impl KernelTimes {
    /// The rule of a kernel.
    #[must_use]
    pub fn rule(&self, kernel: &str) -> &KernelRule {
        self.named.get(kernel).unwrap_or(&self.default)
    }
}

/// How fast bytes move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopySpeed {
    /// Time of any copy or fill before its first byte.
    pub latency_ns: Nanos,
    /// Host to device.
    pub to_device_bytes_per_s: u64,
    /// Device to host.
    pub from_device_bytes_per_s: u64,
    /// Within the device.
    pub on_device_bytes_per_s: u64,
}

impl Default for CopySpeed {
    /// Uncalibrated: the nominal order of a PCIe 5 x16 link and of HBM3.
    fn default() -> Self {
        Self {
            latency_ns: 1_500,
            to_device_bytes_per_s: 50_000_000_000,
            from_device_bytes_per_s: 50_000_000_000,
            on_device_bytes_per_s: 2_500_000_000_000,
        }
    }
}

impl CopySpeed {
    /// Time to move `bytes` at `bytes_per_s`.
    #[must_use]
    pub fn span(&self, bytes: u64, bytes_per_s: u64) -> Nanos {
        let moving = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
        self.latency_ns.saturating_add(u64::try_from(moving).unwrap_or(FOREVER)).min(FOREVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_grid() {
        let rule = KernelRule { base_ns: 1_000, block_ns: 2, wave_ns: 10_000, ..KernelRule::default() };
        assert_eq!(rule.duration(1, 32, 132), 11_002);
        assert_eq!(rule.duration(264, 1024, 132), 1_000 + 528 + 10_000);
        assert_eq!(rule.duration(265, 1024, 132), 1_000 + 530 + 20_000);
        assert_eq!(KernelRule::fixed(5_000).duration(1 << 40, 1024, 1), 5_000);
        assert_eq!(KernelRule { hangs: true, ..rule }.duration(1, 1, 1), FOREVER);
        assert!(rule.duration(u64::MAX, u64::MAX, 1) < FOREVER, "long is not endless");
    }

    #[test]
    fn copies_take_latency_and_bandwidth() {
        let speed = CopySpeed { latency_ns: 10, ..CopySpeed::default() };
        assert_eq!(speed.span(0, 1_000_000_000), 10);
        assert_eq!(speed.span(1_000, 1_000_000_000), 1_010);
        assert!(speed.span(u64::MAX, 0) < FOREVER);
    }
}
