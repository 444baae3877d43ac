//! Counting, on the CPU that runs the program.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use headgate_ebpf_records::{
    counters::{COUNTERS as ROWS, Counter},
    histogram::{BUCKETS, Histogram, bucket_of},
};

/// One row per [`Counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { ROWS as usize }> = PerCpuArray::new();

/// Adds to a number in a map.
///
/// Atomic although the number is this CPU's own: a uprobe runs with preemption enabled, so another task may run the same
/// program on this CPU between load and store and a plain addition would lose everything that task added.
///
/// # Safety
/// `number` points to an aligned number in a map value that was looked up in this run of the program.
#[inline(always)]
pub unsafe fn add(number: *mut u64, amount: u64) {
    // Spelled as the instruction, because `core` offers atomics on this target only with compare-and-swap.
    #[cfg(target_arch = "bpf")]
    // SAFETY: alignment and lifetime are the caller's promise; every writer of these numbers is atomic.
    unsafe {
        core::arch::asm!("lock *(u64 *)({number} + 0) += {amount}", number = in(reg) number, amount = in(reg) amount, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above; this arm only lets tools that know no BPF target read the crate.
    unsafe {
        number.write(number.read().wrapping_add(amount));
    }
}

/// Adds to a number in a map, wrapping, and answers what it was.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_add(number: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    #[cfg(target_arch = "bpf")]
    // SAFETY: alignment and lifetime are the caller's promise; every writer of these numbers is atomic.
    unsafe {
        core::arch::asm!("{value} = atomic_fetch_add((u64 *)({number} + 0), {value})", number = in(reg) number, value = inout(reg) value, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above; this arm only lets tools that know no BPF target read the crate.
    unsafe {
        value = number.read();
        number.write(value.wrapping_add(amount));
    }
    value
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    count_by(counter, 1);
}

/// Adds to a counter.
#[inline(always)]
pub fn count_by(counter: Counter, amount: u64) {
    if let Some(number) = COUNTERS.get_ptr_mut(counter.row()) {
        // SAFETY: the pointer was just looked up.
        unsafe { add(number, amount) }
    }
}

/// Adds one duration to a tenant's histogram. A row past the array's end goes to row zero, the unknown tenant's.
#[inline(always)]
pub fn observe<const ROWS: usize>(histograms: &PerCpuArray<Histogram, ROWS>, row: u32, duration_ns: u64) {
    let Some(histogram) = histograms.get_ptr_mut(row).or_else(|| histograms.get_ptr_mut(0)) else {
        return;
    };
    // SAFETY: the value was just looked up.
    unsafe { observe_in(histogram, duration_ns) };
}

/// Adds one duration to a histogram.
///
/// # Safety
/// `histogram` lies in a map value that was looked up in this run of the program.
#[inline(always)]
pub unsafe fn observe_in(histogram: *mut Histogram, duration_ns: u64) {
    // The verifier does not follow the arithmetic; it needs to see a comparison, which the compiler knows to be idle and
    // would leave out if it could see the value.
    let bucket = opaque(bucket_of(duration_ns));
    if bucket >= BUCKETS {
        return;
    }
    // SAFETY: less than BUCKETS, so the element is inside the value.
    let number = unsafe { (&raw mut (*histogram).buckets).cast::<u64>().add(bucket) };
    // SAFETY: inside a value looked up above.
    unsafe { add(number, 1) };
    // SAFETY: as above.
    unsafe { add(&raw mut (*histogram).sum_ns, duration_ns) };
}

/// The same number if it is below 32, by an instruction that the compiler does not look into. (Not an empty one: that
/// would give two source lines one instruction, which the kernel refuses.)
#[inline(always)]
fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: changes nothing but the register it names.
        unsafe {
            core::arch::asm!("{number} &= 31", number = inout(reg) number, options(pure, nomem, nostack))
        };
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}
