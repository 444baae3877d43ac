//! What the kernel counted, summed over CPUs and ready for Prometheus.

use headgate_ebpf_records::{
    events,
    histogram::{BUCKETS, Histogram, upper_bound_ns},
    slots::Slot,
};

/// Durations of one slot, or of several merged (a district is the merge of its tenants).
///
/// Buckets, count and sum only ever grow until the slot is cleared. The count is the sum of the buckets, so the two can
/// never disagree in one exposition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Durations {
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(histogram.buckets) {
            *total = total.wrapping_add(bucket);
        }
        self.sum_ns = self.sum_ns.wrapping_add(histogram.sum_ns);
    }

    /// Adds another slot's durations.
    pub fn merge(&mut self, other: &Self) {
        self.add(&Histogram { buckets: other.buckets, sum_ns: other.sum_ns });
    }

    /// How many durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |count, bucket| count.wrapping_add(*bucket))
    }

    /// Their sum in nanoseconds.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Their sum in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum of 104 days still resolves to a nanosecond")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Every bucket as (upper bound in seconds, durations in this bucket alone); the last bound is infinity.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| (upper_bound_seconds(bucket), *count))
    }

    /// Every bucket as (upper bound in seconds, durations up to this bound): Prometheus' `le`.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets().scan(0, |below: &mut u64, (bound, count)| {
            *below = below.wrapping_add(count);
            Some((bound, *below))
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "bounds are powers of two far below 2^53")]
fn upper_bound_seconds(bucket: usize) -> f64 {
    upper_bound_ns(bucket).map_or(f64::INFINITY, |ns| ns as f64 / 1e9)
}

/// Where a tenant's time goes, on one GPU or on no known one. What is missing on this node is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The GPU, as the caller numbers them; `None` for processes that use several, or of which it is not known.
    pub gpu: Option<u8>,
    /// In the driver's synchronous calls: waiting for the GPU.
    pub wait: Option<Durations>,
    /// In launches, while they were audited.
    pub launch: Option<Durations>,
    /// From the first launch to the end of the synchronous call behind it, while launches were audited.
    pub span: Option<Durations>,
    /// In calls that hand out memory or take it back.
    pub memory: Option<Durations>,
}

impl Latency {
    /// Adds another's time, whatever its GPU.
    pub fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.wait, &other.wait),
            (&mut self.launch, &other.launch),
            (&mut self.span, &other.span),
            (&mut self.memory, &other.memory),
        ];
        for (own, other) in pairs {
            if let Some(other) = other {
                own.get_or_insert_default().merge(other);
            }
        }
    }
}

/// What one slot's sockets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounts {
    /// TCP connections established, both ways.
    pub established: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

/// A tenant's process has ended. A hint to look, not proof: a thread-group leader may end before its other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// The tenant; never [`Slot::UNKNOWN`].
    pub slot: Slot,
    /// The cgroup it was in, possibly below the tenant's own.
    pub cgroup_id: u64,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

impl Exit {
    /// Reads a record as the kernel program wrote it; `None` if it is too short or names no possible row.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        const _: () = assert!(size_of::<events::Exit>() == 24, "offsets below follow the record");
        let (tgid, rest) = bytes.split_first_chunk()?;
        let (row, rest) = rest.split_first_chunk()?;
        let (cgroup_id, rest) = rest.split_first_chunk()?;
        let (at_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            tgid: u32::from_ne_bytes(*tgid),
            slot: Slot::from_row(u32::from_ne_bytes(*row))?,
            cgroup_id: u64::from_ne_bytes(*cgroup_id),
            at_ns: u64::from_ne_bytes(*at_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Durations, Exit, Histogram, Slot};

    #[test]
    fn cumulative_buckets_end_at_the_count_and_at_infinity() {
        let mut durations = Durations::default();
        let mut histogram = Histogram::EMPTY;
        histogram.buckets[0] = 3;
        histogram.buckets[BUCKETS - 1] = 4;
        histogram.sum_ns = 1_500_000_000;
        durations.add(&histogram);
        durations.merge(&durations.clone());
        let cumulative: Vec<_> = durations.cumulative().collect();
        assert_eq!(cumulative.len(), BUCKETS);
        assert_eq!(cumulative[0], (4.096e-6, 6));
        assert_eq!(cumulative[BUCKETS - 1], (f64::INFINITY, 14));
        assert_eq!(durations.count(), 14);
        assert!((durations.sum_seconds() - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_record_that_names_no_row_is_no_exit() {
        let mut bytes = [0u8; 24];
        bytes[..4].copy_from_slice(&7u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&2u32.to_ne_bytes());
        assert_eq!(Exit::from_bytes(&bytes).map(|exit| (exit.tgid, exit.slot.tenant())), Some((7, Some(1))));
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Exit::from_bytes(&bytes), None);
        assert_eq!(Exit::from_bytes(&bytes[..20]), None);
        assert_eq!(Slot::UNKNOWN.tenant(), None);
    }
}
