//! Fills pinned memory after it was enqueued to be copied, as a program may that holds the stream up by a word and writes that word
//! only then. Before the copy can be done it frees memory, which waits for the device, and copies `--behind` bytes to elsewhere: what
//! the copy needs must come past both. What came to the device is copied back in the same stream and compared.
#![expect(unsafe_code, reason = "calls the driver API itself, so that nothing pools or waits in between")]

use std::ffi::c_void;
use std::ptr::null_mut;

use anyhow::{Result, ensure};
use cudarc::driver::sys;
use headgate_apps::{Arguments, print};

/// `CU_STREAM_WAIT_VALUE_GEQ`.
const AT_LEAST: u32 = 0;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        let status = unsafe { sys::$name($($argument),*) };
        ensure!(status as u32 == 0, "{}: {status:?}", stringify!($name));
    }};
}

fn device_memory(bytes: usize) -> Result<u64> {
    let mut address = 0u64;
    cu!(cuMemAlloc_v2(&raw mut address, bytes));
    Ok(address)
}

/// Pinned words.
struct Pinned {
    at: *mut u64,
    count: usize,
}

impl Pinned {
    fn take(bytes: usize) -> Result<Self> {
        let mut at: *mut c_void = null_mut();
        cu!(cuMemAllocHost_v2(&raw mut at, bytes));
        Ok(Self { at: at.cast(), count: bytes / 8 })
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: so many words were allocated there. Streams that read or write them are held up, or have been waited for.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.count) }
    }

    fn fill(&mut self, round: u64) {
        for (index, word) in (0..).zip(self.words()) {
            *word = word_of(round, index);
        }
    }

    fn give_back(self) -> Result<()> {
        cu!(cuMemFreeHost(self.at.cast()));
        Ok(())
    }
}

fn word_of(round: u64, index: u64) -> u64 {
    round << 48 | index
}

fn main() -> Result<()> {
    let arguments = Arguments::read(&["rounds", "bytes", "behind"])?;
    let rounds = arguments.number("rounds", 3)?;
    let bytes = usize::try_from(arguments.number("bytes", 1 << 20)?)?.max(8) / 8 * 8;
    let behind = usize::try_from(arguments.number("behind", 0)?)?;
    let (mut device, mut context) = (0, null_mut());
    let (mut held, mut free) = (null_mut(), null_mut());
    cu!(cuInit(0));
    cu!(cuDeviceGet(&raw mut device, 0));
    cu!(cuDevicePrimaryCtxRetain(&raw mut context, device));
    cu!(cuCtxSetCurrent(context));
    cu!(cuStreamCreate(&raw mut held, NON_BLOCKING));
    cu!(cuStreamCreate(&raw mut free, NON_BLOCKING));
    let (memory, other, word) = (device_memory(bytes)?, device_memory(behind.max(8))?, device_memory(4)?);
    cu!(cuMemsetD32_v2(word, 0, 1));
    let (mut source, mut back) = (Pinned::take(bytes)?, Pinned::take(bytes)?);
    let elsewhere = vec![1u8; behind];
    let mut wrong = 0;
    for round in 1..=rounds {
        let value = u32::try_from(round)?;
        let passing = device_memory(4096)?;
        source.fill(0);
        cu!(cuStreamWaitValue32_v2(held, word, value, AT_LEAST));
        cu!(cuMemcpyHtoDAsync_v2(memory, source.at.cast(), bytes, held));
        cu!(cuMemcpyDtoHAsync_v2(back.at.cast(), memory, bytes, held));
        source.fill(round);
        cu!(cuStreamWriteValue32_v2(free, word, value, 0));
        cu!(cuMemFree_v2(passing));
        if behind > 0 {
            cu!(cuMemcpyHtoDAsync_v2(other, elsewhere.as_ptr().cast(), behind, free));
        }
        cu!(cuStreamSynchronize(held));
        wrong += (0..).zip(back.words()).filter(|(index, word)| **word != word_of(round, *index)).count();
    }
    // The last copy's memory is the device's until it has been read, whoever frees it.
    let value = u32::try_from(rounds + 1)?;
    cu!(cuStreamWaitValue32_v2(held, word, value, AT_LEAST));
    cu!(cuMemcpyHtoDAsync_v2(memory, source.at.cast(), bytes, held));
    source.fill(rounds + 1);
    cu!(cuStreamWriteValue32_v2(free, word, value, 0));
    source.give_back()?;
    cu!(cuMemcpyDtoHAsync_v2(back.at.cast(), memory, bytes, held));
    cu!(cuStreamSynchronize(held));
    wrong += (0..).zip(back.words()).filter(|(index, word)| **word != word_of(rounds + 1, *index)).count();
    back.give_back()?;
    cu!(cuDevicePrimaryCtxRelease_v2(device));
    ensure!(wrong == 0, "{wrong} words were not what the memory held when the stream came there");
    print(&serde_json::json!({ "app": "late", "rounds": rounds, "bytes": bytes, "wrong": wrong }));
    Ok(())
}
