//! One histogram layout for every duration: powers of two in nanoseconds.
//!
//! ```text
//! bucket 0        1          2                      22               23
//!        <= 4096  <= 8192    <= 16384 ns    ...     <= 17.2 s        above
//! ```
//! 4.1 us is below the fastest useful sync call and below a loopback round trip; 17 s is above any launch that is not
//! stuck. Powers of two make the bucket one shift and a count of leading zeros, so the probe's cost does not depend on
//! the duration, and a quantile read from the buckets is off by at most a factor of two, usually far less.

/// Buckets of a histogram, the overflow bucket included.
pub const BUCKETS: usize = 24;

/// The first bucket holds everything up to and including two to this power, in nanoseconds.
pub const FIRST_BOUND_LOG2: u32 = 12;

/// Durations of one tenant on one CPU. Only ever added to; the sum over CPUs is taken when it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many durations fell into each bucket (not cumulative).
    pub buckets: [u64; BUCKETS],
    /// Sum of the durations, in nanoseconds. Wraps after 584 years of waiting.
    pub sum_ns: u64,
}

impl Histogram {
    /// A histogram of nothing.
    pub const EMPTY: Self = Self { buckets: [0; BUCKETS], sum_ns: 0 };
}

/// The bucket that a duration falls into: always less than [`BUCKETS`].
///
/// Halving steps instead of `leading_zeros`: BPF has no instruction for that, and what compilers put in its place is
/// three times as long and hides the result's range from the verifier.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the halving steps leave zero or one")]
pub const fn bucket_of(duration_ns: u64) -> usize {
    // A bound belongs to the bucket below it (Prometheus' `le`), hence the subtraction.
    let mut above = duration_ns.saturating_sub(1) >> FIRST_BOUND_LOG2;
    if above >> (BUCKETS - 2) != 0 {
        return BUCKETS - 1;
    }
    let mut bits = 0;
    let mut step = 16;
    while step > 0 {
        if above >> step != 0 {
            above >>= step;
            bits += step;
        }
        step /= 2;
    }
    bits + above as usize
}

/// Upper bound of a bucket in nanoseconds, inclusive; `None` for the overflow bucket.
#[must_use]
pub const fn upper_bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS { Some(1 << (FIRST_BOUND_LOG2 as usize + bucket)) } else { None }
}

const _: () = assert!(size_of::<Histogram>() == 8 * (BUCKETS + 1) && align_of::<Histogram>() == 8);
const _: () = assert!(bucket_of(0) == 0 && bucket_of(4096) == 0 && bucket_of(4097) == 1);
const _: () = assert!(bucket_of(u64::MAX) == BUCKETS - 1);
const _: () = assert!(BUCKETS - 2 < 32, "what is left after the overflow test fits the halving steps");
const _: () = assert!(upper_bound_ns(0).is_some() && upper_bound_ns(BUCKETS - 1).is_none());

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bucket_of, upper_bound_ns};

    #[test]
    fn every_bound_closes_its_own_bucket() {
        for bucket in 0..BUCKETS - 1 {
            let bound = upper_bound_ns(bucket).expect("only the last bucket is unbounded");
            assert_eq!(bucket_of(bound), bucket, "the bound {bound} is inclusive");
            assert_eq!(bucket_of(bound + 1), bucket + 1, "one nanosecond more belongs to the next bucket");
        }
    }
}
