//! Times calls in batches: a batch is long enough for the clock, and short enough that one late tick of the
//! machine spoils one sample, not the figure.
#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::hint::black_box;

use crate::driver::{Driver, Way, check};
use crate::sys;

/// Launches in a batch: a call takes a few nanoseconds.
const LAUNCHES: u32 = 100;
/// Other calls in a batch.
const OTHERS: u32 = 20;
/// Bytes of one allocation.
const ALLOCATION_BYTES: usize = 64 << 10;
/// Live allocations beside the one that is timed.
const LIVE: [usize; 3] = [0, 1_000, 20_000];
/// Batches thrown away first: caches, lazy look-ups and the hook's first batch sizes settle.
const WARM_UP: u32 = 50;

pub(crate) fn run(way: Way, batches: u32) -> Result<(), String> {
    if batches == 0 {
        return Err("BATCHES is 0: nothing would be measured".to_owned());
    }
    let mut driver = Driver::find(way)?;
    driver.start()?;
    driver.make_stream()?;
    // After the driver has started whatever threads it wants: they would inherit the pin.
    sys::pin();

    for (name, library) in driver.origins() {
        println!("from {name} {library}");
    }
    let (status, _, total) = driver.memory();
    check(status, "cuMemGetInfo")?;
    println!("memory_total {total}");

    time("cuLaunchKernel", batches, LAUNCHES, || driver.launch())?;
    time("cuLaunchKernelEx", batches, LAUNCHES, || driver.launch_ex())?;
    time("cuMemGetInfo", batches, OTHERS, || {
        let (status, free, total) = driver.memory();
        black_box((free, total));
        status
    })?;
    let mut live = Vec::new();
    for count in LIVE {
        while live.len() < count {
            let (status, address) = driver.allocate(ALLOCATION_BYTES);
            check(status, "cuMemAlloc")?;
            live.push(address);
        }
        time(&format!("pair/{count}-live"), batches, OTHERS, || {
            let (status, address) = driver.allocate(ALLOCATION_BYTES);
            status | driver.free(address)
        })?;
    }
    live.into_iter().try_for_each(|address| check(driver.free(address), "cuMemFree"))
}

/// Times `batches` batches of `calls` calls and prints the middle and the 99th percentile of one call's share.
fn time(name: &str, batches: u32, calls: u32, mut call: impl FnMut() -> u32) -> Result<(), String> {
    let mut samples = Vec::with_capacity(batches as usize);
    for batch in 0..WARM_UP + batches {
        let mut status = 0;
        let start = sys::now_ns();
        for _ in 0..calls {
            status |= call();
        }
        let elapsed = sys::now_ns() - start;
        check(status, name)?;
        if WARM_UP <= batch {
            samples.push(elapsed);
        }
    }
    samples.sort_unstable();
    let each = |rank: usize| {
        // A batch takes microseconds: exact in the 52 bits of a float.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let nanoseconds = samples[rank.min(samples.len() - 1)] as f64;
        nanoseconds / f64::from(calls)
    };
    println!("call {name} p50 {:.3} p99 {:.3}", each(samples.len() / 2), each(samples.len() * 99 / 100));
    Ok(())
}
