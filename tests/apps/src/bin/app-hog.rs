//! Allocates chunk after chunk until the driver refuses, says how far it got, and holds what it got for a while.

use std::time::Duration;

use anyhow::{Result, bail};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, result};
use headgate_apps::{Arguments, print};

fn main() -> Result<()> {
    let arguments = Arguments::read(&["chunk", "most", "hold"])?;
    let chunk = usize::try_from(arguments.number("chunk", 64 << 20)?)?;
    // A program that is never refused must end too.
    let most = arguments.number("most", 1 << 40)?;
    let hold = Duration::from_secs(arguments.number("hold", 0)?);
    let context = CudaContext::new(0)?;
    let (free, total) = result::mem_get_info()?;
    let mut held = Vec::new();
    let mut allocated = 0u64;
    let refused = loop {
        if most <= allocated {
            break None;
        }
        match allocate(chunk) {
            Ok(address) => held.push(address),
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                break Some("CUDA_ERROR_OUT_OF_MEMORY");
            }
            Err(error) => bail!("refused with {error:?} instead of out of memory"),
        }
        allocated += chunk as u64;
    };
    let (free_at_end, _) = result::mem_get_info()?;
    print(&serde_json::json!({
        "app": "hog",
        "allocated_bytes": allocated,
        "chunk_bytes": chunk,
        "refused_with": refused,
        "total_bytes": total,
        "free_bytes_before": free,
        "free_bytes_after": free_at_end,
    }));
    pause(hold);
    for address in held {
        free_one(address)?;
    }
    drop(context);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "holding on is what the caller asked for")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

#[expect(unsafe_code, reason = "raw allocation, so that nothing pools or rounds it")]
fn allocate(bytes: usize) -> Result<u64, cudarc::driver::DriverError> {
    // SAFETY: the address is freed once, at the end, and never dereferenced.
    unsafe { result::malloc_sync(bytes) }
}

#[expect(unsafe_code, reason = "the counterpart of `allocate`")]
fn free_one(address: u64) -> Result<(), cudarc::driver::DriverError> {
    // SAFETY: allocated by `allocate` and not freed yet.
    unsafe { result::free_sync(address) }
}
