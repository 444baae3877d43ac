//! Takes and gives back small pieces of device memory while kernels run, as a program without a pool of its own does.
//! Each round a piece is given back while kernels still count in it, and the next one is filled in another stream: whoever
//! hands the same memory out again too early finds a kernel's count in it. `--launches 0` only takes and gives back, and says how
//! long that took.
//! `--in-order 1` gives back in stream order, while the kernels have yet to begin: they wait for a word that is written after
//! the next piece was taken and filled.
#![expect(unsafe_code, reason = "calls the driver API itself, so that nothing pools or waits in between")]
#![expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cudarc::driver::sys;
use headgate_apps::{Arguments, print, ptx};

/// `CU_STREAM_WAIT_VALUE_GEQ`.
const GREATER_OR_EQUAL: u32 = 0;
/// What the second piece is filled with, twice.
const FILLED: u32 = 77;

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        let status = unsafe { sys::$name($($argument),*) };
        ensure!(status as u32 == 0, "{}: {status:?}", stringify!($name));
    }};
}

fn take(bytes: usize) -> Result<u64> {
    let mut address = 0u64;
    cu!(cuMemAlloc_v2(&raw mut address, bytes));
    ensure!(address.is_multiple_of(256), "{address:x} is not aligned");
    let (mut base, mut length) = (0u64, 0usize);
    cu!(cuMemGetAddressRange_v2(&raw mut base, &raw mut length, address + bytes as u64 - 1));
    ensure!((base, length) == (address, bytes), "the range of {address:x} is {length} bytes from {base:x}");
    Ok(address)
}

/// Nothing where nothing was timed.
fn median_us(mut times: Vec<Duration>) -> Option<f64> {
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| time.as_secs_f64() * 1e6)
}

fn main() -> Result<()> {
    let arguments = Arguments::read(&["rounds", "launches", "bytes", "in-order"])?;
    let rounds = arguments.number("rounds", 20)?;
    let launches = arguments.number("launches", 3)?;
    let bytes = usize::try_from(arguments.number("bytes", 8)?)?.max(8);
    let in_order = arguments.number("in-order", 0)? > 0;
    let (mut device, mut context, mut module, mut kernel) = (0, null_mut(), null_mut(), null_mut());
    let (mut counting, mut filling) = (null_mut(), null_mut());
    let (image, name) = (CString::new(ptx::SPIN)?, CString::new("spin")?);
    cu!(cuInit(0));
    cu!(cuDeviceGet(&raw mut device, 0));
    cu!(cuDevicePrimaryCtxRetain(&raw mut context, device));
    cu!(cuCtxSetCurrent(context));
    cu!(cuModuleLoadData(&raw mut module, image.as_ptr().cast()));
    cu!(cuModuleGetFunction(&raw mut kernel, module, name.as_ptr()));
    cu!(cuStreamCreate(&raw mut counting, 1));
    cu!(cuStreamCreate(&raw mut filling, 1));
    let mut word = 0u64;
    cu!(cuMemAlloc_v2(&raw mut word, 4));
    cu!(cuMemsetD32_v2(word, 0, 1));
    let (mut wrong, mut same) = (0u64, 0u64);
    let (mut taking, mut freeing) = (Vec::new(), Vec::new());
    for round in 1..=u32::try_from(rounds)? {
        let begin = Instant::now();
        let mut first = take(bytes)?;
        if launches == 0 {
            taking.push(begin.elapsed());
            let begin = Instant::now();
            cu!(cuMemFree_v2(first));
            freeing.push(begin.elapsed());
            continue;
        }
        let mut params: [*mut c_void; 1] = [(&raw mut first).cast()];
        if in_order {
            cu!(cuStreamWaitValue32_v2(counting, word, round, GREATER_OR_EQUAL));
        }
        cu!(cuMemsetD8Async(first, 0, 8, counting));
        for _ in 0..launches {
            cu!(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, counting, params.as_mut_ptr(), null_mut()));
        }
        match in_order {
            true => cu!(cuMemFreeAsync(first, counting)),
            false => cu!(cuMemFree_v2(first)),
        }
        let second = take(bytes)?;
        same += u64::from(first == second);
        cu!(cuMemsetD32Async(second, FILLED, 2, filling));
        if in_order {
            cu!(cuStreamWriteValue32_v2(filling, word, round, 0));
        }
        cu!(cuStreamSynchronize(filling));
        cu!(cuCtxSynchronize());
        let mut found = [0u32; 2];
        cu!(cuMemcpyDtoH_v2(found.as_mut_ptr().cast(), second, 8));
        wrong += u64::from(found != [FILLED; 2]);
        cu!(cuMemFree_v2(second));
    }
    cu!(cuDevicePrimaryCtxRelease_v2(device));
    print(&serde_json::json!({
        "app": "churn",
        "rounds": rounds,
        "wrong": wrong,
        "same_address": same,
        "take_p50_us": median_us(taking),
        "free_p50_us": median_us(freeing),
    }));
    ensure!(wrong == 0, "{wrong} of {rounds} pieces were handed out while kernels still used them");
    Ok(())
}
