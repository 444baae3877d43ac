//! Starts and works as a CUDA runtime library does: what it asks for, in which order, and what it relies on.
//!
//! A runtime library takes four names from the loader and the rest from the driver, asks for private tables, tests that the
//! driver is who it says, and makes a device's primary context current before it is active. It keeps what it knows of a
//! context with that context. It launches kernels of libraries in two ways, by functions (CUDA 12) and by kernels in their
//! place (CUDA 13). This program does the same, on the simulated driver, whose test it knows; it fails if one answer is not
//! as a runtime library must have it. Prints what must be equal wherever it runs, and under `can` and `storage_get_ns`
//! what need not.
//!
//! `--fork yes` also looks at the driver from a forked child; `--until lost` works until the device is gone.
#![expect(unsafe_code, reason = "it is about a C library's functions")]

mod driver;
mod tables;

use core::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use headgate_apps::{Arguments, numbers, print, ptx};
use serde_json::{Value, json};

use driver::{Code, Driver, expect};
use tables::Started;

const ELEMENTS: usize = 20_000;
const BLOCK: u32 = 256;
static A: f32 = 2.5;
/// What is kept with a context: any address of one's own as the key.
static KEY: u8 = 0;
const VALUE: usize = 0x7a1e_0001;

const NOT_INITIALISED: Code = 3;
const INVALID_CONTEXT: Code = 201;
const UNAVAILABLE: Code = 46;

/// Calls of the destructor, and what it was called with last.
static DESTROYED: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

extern "C" fn destroy(context: usize, key: usize, value: usize) {
    for (place, word) in DESTROYED[1..].iter().zip([context, key, value]) {
        place.store(word, Ordering::Release);
    }
    DESTROYED[0].fetch_add(1, Ordering::AcqRel);
}

fn main() -> Result<()> {
    let arguments = Arguments::read(&["fork", "until"])?;
    let driver = Driver::load()?;
    let started = tables::start(&driver)?;
    let runtime = Runtime { driver: &driver, started: &started, library: Runtime::load(&driver)? };
    runtime.works_only_in_a_context()?;
    runtime.adopt(0)?;
    if arguments.text("until", "") == "lost" {
        let lost = runtime.until_lost()?;
        print(&lost);
        return Ok(());
    }
    let first = [runtime.compute(By::Function)?, runtime.compute(By::Kernel)?];
    let storage_get_ns = runtime.steady()?;
    std::thread::scope(|scope| scope.spawn(|| runtime.later_thread()).join())
        .ok()
        .context("the later thread panicked")??;
    if arguments.text("fork", "no") == "yes" {
        runtime.fork()?;
    }
    runtime.reset()?;
    let again = [runtime.compute(By::Function)?, runtime.compute(By::Kernel)?];
    ensure!(first == again, "after a reset it computes something else");
    runtime.leave()?;
    let results: Vec<String> = first.iter().map(|sum| format!("{sum:016x}")).collect();
    print(&json!({
        "app": "runtime",
        "version": driver.version,
        "devices": started.devices,
        "results": results,
        "destroyed": DESTROYED[0].load(Ordering::Acquire),
        "can": started.can,
        "storage_get_ns": storage_get_ns,
    }));
    Ok(())
}

/// How a kernel is named in a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// The function of the library's module in the context, as runtimes of CUDA 12 do.
    Function,
    /// The library's kernel in the place of a function, as those of CUDA 13 do.
    Kernel,
}

struct Runtime<'a> {
    driver: &'a Driver,
    started: &'a Started,
    library: usize,
}

fn key() -> usize {
    (&raw const KEY).addr()
}

impl Runtime<'_> {
    /// Hands the driver the program's image, once for the process and in no context.
    fn load(driver: &Driver) -> Result<usize> {
        const BINARY_IS_PRESERVED: c_uint = 1;
        let wrapper = image(ptx::SAXPY)?;
        let (mut library, option, value) = (0, BINARY_IS_PRESERVED, 1usize);
        let code = driver.library_load(
            &raw mut library,
            wrapper.as_ptr().cast(),
            0,
            0,
            0,
            &raw const option,
            &raw const value,
            1,
        );
        expect("cuLibraryLoadData", code, 0)?;
        Ok(library)
    }

    /// Without a current context a call says so and does nothing, and nothing has become active.
    fn works_only_in_a_context(&self) -> Result<()> {
        let mut address = 0;
        expect(
            "cuMemAllocAsync in no context",
            self.driver.alloc_async(&raw mut address, 4096, 0),
            INVALID_CONTEXT,
        )?;
        expect("cuMemAlloc in no context", self.driver.alloc(&raw mut address, 4096), INVALID_CONTEXT)?;
        ensure!(self.active()? == (0, false), "the primary context is active before anybody used it");
        Ok(())
    }

    fn active(&self) -> Result<(c_uint, bool)> {
        let (mut flags, mut active): (c_uint, c_int) = (0, -1);
        expect("cuDevicePrimaryCtxGetState", self.driver.state(0, &raw mut flags, &raw mut active), 0)?;
        Ok((flags, active != 0))
    }

    fn current(&self) -> Result<usize> {
        let mut context = usize::MAX;
        expect("cuCtxGetCurrent", self.driver.current(&raw mut context), 0)?;
        Ok(context)
    }

    /// First use of the primary context on a thread, step by step. `before` is what is current then.
    fn adopt(&self, before: usize) -> Result<()> {
        let (driver, primary, storage) = (self.driver, self.started.primary, &self.started.storage);
        ensure!(storage.get(0, key()).is_err(), "something is kept with a context that is not");
        ensure!(self.current()? == before, "another context is current");
        expect("cuCtxSetCurrent of an inactive context", driver.set_current(primary), 0)?;
        ensure!(!self.active()?.1, "making it current made it active");
        let mut version = 0;
        let probed = driver.context_version(primary, &raw mut version);
        ensure!(probed != 0, "an inactive context has a version");
        let mut retained = 0;
        expect("cuDevicePrimaryCtxRetain", driver.retain(&raw mut retained, 0), 0)?;
        ensure!(retained == primary, "the primary context has two handles: {primary:#x} and {retained:#x}");
        ensure!(self.active()?.1, "a retained context is inactive");
        ensure!(storage.get(0, key()) == Err(400), "something is kept with a new context");
        ensure!(self.current()? == primary, "the primary context is not current");
        for (what, device) in [("in 12.x", None), ("in 13.x", Some(primary))] {
            let mut found = -1;
            let code = match device {
                None => driver.context_device(&raw mut found),
                Some(context) => driver.context_device_of(&raw mut found, context),
            };
            expect(what, code, 0)?;
            ensure!(found == 0, "{what}: the context is on device {found}");
        }
        self.started.check(primary)?;
        expect("keeping something", storage.put(0, key(), VALUE, destroy), 0)?;
        ensure!(storage.get(0, key()) == Ok(VALUE), "what was kept is gone");
        ensure!(storage.get(primary, key()) == Ok(VALUE), "current and named context are one");
        ensure!(storage.get(usize::MAX, key()) == Ok(VALUE), "all ones mean the current context");
        Ok(())
    }

    /// A runtime's own look-up: what nearly every call begins with.
    fn ready(&self) -> Result<()> {
        ensure!(self.started.storage.get(0, key()) == Ok(VALUE), "what was kept is gone");
        Ok(())
    }

    fn kernel(&self, by: By) -> Result<usize> {
        let (driver, mut found) = (self.driver, 0);
        match by {
            By::Function => {
                let (mut module, mut popped) = (0, 0);
                expect("cuCtxPushCurrent", driver.push(self.started.primary), 0)?;
                expect("cuLibraryGetModule", driver.library_module(&raw mut module, self.library), 0)?;
                expect("cuCtxPopCurrent", driver.pop(&raw mut popped), 0)?;
                ensure!(popped == self.started.primary, "another context was popped");
                expect("cuModuleGetFunction", driver.function(&raw mut found, module, c"saxpy".as_ptr()), 0)?;
            }
            By::Kernel => {
                let code = driver.library_kernel(&raw mut found, self.library, c"saxpy".as_ptr());
                expect("cuLibraryGetKernel", code, 0)?;
            }
        }
        Ok(found)
    }

    /// y = a x + y on the device, checked on the host; a sum over the bits.
    fn compute(&self, by: By) -> Result<u64> {
        let driver = self.driver;
        self.ready()?;
        let kernel = self.kernel(by)?;
        let x = numbers(ELEMENTS);
        let y: Vec<f32> = x.iter().rev().copied().collect();
        let bytes = size_of_val(x.as_slice());
        let (mut x_device, mut y_device) = (0u64, 0u64);
        expect("cuMemAlloc", driver.alloc(&raw mut x_device, bytes), 0)?;
        expect("cuMemAlloc", driver.alloc(&raw mut y_device, bytes), 0)?;
        expect("cuMemsetD8", driver.fill(y_device, 0xff, bytes), 0)?;
        expect("cuMemcpyHtoD", driver.to_device(x_device, x.as_ptr().cast(), bytes), 0)?;
        expect("cuMemcpyHtoD", driver.to_device(y_device, y.as_ptr().cast(), bytes), 0)?;
        expect("cuLaunchKernel", self.launch(kernel, x_device, y_device)?, 0)?;
        expect("cuCtxSynchronize", driver.synchronise(), 0)?;
        expect("cuCtxSynchronize at 13000", driver.synchronise_of(0), 0)?;
        let mut result = vec![0f32; ELEMENTS];
        expect("cuMemcpyDtoH", driver.to_host(result.as_mut_ptr().cast(), y_device, bytes), 0)?;
        let wrong = (0..ELEMENTS).filter(|&i| result[i].to_bits() != A.mul_add(x[i], y[i]).to_bits()).count();
        ensure!(wrong == 0, "{wrong} of {ELEMENTS} elements are wrong ({by:?})");
        expect("cuMemFree", driver.free(x_device), 0)?;
        expect("cuMemFree", driver.free(y_device), 0)?;
        let mix = |sum: u64, value: &f32| sum.rotate_left(7).wrapping_mul(31) ^ u64::from(value.to_bits());
        Ok(result.iter().fold(0, mix))
    }

    fn launch(&self, kernel: usize, x: u64, y: u64) -> Result<Code> {
        let count = u32::try_from(ELEMENTS)?;
        let params: [*const c_void; 4] =
            [(&raw const count).cast(), (&raw const A).cast(), (&raw const x).cast(), (&raw const y).cast()];
        let grid = count.div_ceil(BLOCK);
        Ok(self.driver.launch(kernel, grid, 1, 1, BLOCK, 1, 1, 0, 0, params.as_ptr(), 0))
    }

    /// What a look-up costs, in nanoseconds.
    #[expect(clippy::disallowed_methods, reason = "a duration to print")]
    fn steady(&self) -> Result<u64> {
        const TIMES: u32 = 200_000;
        let begin = Instant::now();
        for _ in 0..TIMES {
            self.ready()?;
        }
        Ok(u64::try_from(begin.elapsed().as_nanos() / u128::from(TIMES))?)
    }

    /// A thread that comes later finds the context as the first one left it.
    fn later_thread(&self) -> Result<()> {
        let (driver, primary) = (self.driver, self.started.primary);
        ensure!(self.started.storage.get(0, key()) == Err(INVALID_CONTEXT), "a new thread has a context");
        ensure!(self.current()? == 0, "a new thread has a context");
        expect("cuCtxSetCurrent", driver.set_current(primary), 0)?;
        let mut version = 0;
        expect("cuCtxGetApiVersion", driver.context_version(primary, &raw mut version), 0)?;
        self.compute(By::Kernel)?;
        self.compute(By::Function).map(|_| ())
    }

    /// Resets the device and begins again: the handle is the same and still current, what was kept is gone.
    fn reset(&self) -> Result<()> {
        let (driver, primary) = (self.driver, self.started.primary);
        ensure!(self.current()? == primary, "the primary context is not current");
        self.started.check(primary)?;
        let mut version = 0;
        expect("cuCtxGetApiVersion", driver.context_version(primary, &raw mut version), 0)?;
        expect("setting flags of an active context", driver.set_flags(0, 4), 0)?;
        let mut flags = 0;
        expect("cuCtxGetFlags", driver.context_flags(&raw mut flags), 0)?;
        expect("cuDevicePrimaryCtxReset", driver.reset(0), 0)?;
        let told: Vec<usize> = DESTROYED.iter().map(|place| place.load(Ordering::Acquire)).collect();
        ensure!(told == [1, primary, key(), VALUE], "the destructor was told {told:x?}");
        ensure!(!self.active()?.1, "a reset context is active");
        self.adopt(primary)
    }

    /// The order in which a runtime library ends: what it keeps, its images, its hold on the context.
    fn leave(&self) -> Result<()> {
        let (driver, storage) = (self.driver, &self.started.storage);
        expect("forgetting", storage.delete(self.started.primary, key()), 0)?;
        expect("forgetting again", storage.delete(self.started.primary, key()), 400)?;
        expect("cuLibraryUnload", driver.library_unload(self.library), 0)?;
        expect("cuDevicePrimaryCtxRelease", driver.release(0), 0)?;
        ensure!(!self.active()?.1, "the context outlives its last user");
        ensure!(DESTROYED[0].load(Ordering::Acquire) == 1, "what was forgotten is destroyed");
        Ok(())
    }

    /// In a forked child the driver cannot be used, and says so.
    fn fork(&self) -> Result<()> {
        // SAFETY: the child only calls the driver and ends.
        let child = unsafe { libc::fork() };
        ensure!(child >= 0, "fork");
        if child == 0 {
            let mut address = 0;
            let answers = [
                self.driver.alloc(&raw mut address, 4096),
                self.driver.set_current(self.started.primary),
                self.driver.synchronise(),
                self.started.storage.get(0, key()).err().unwrap_or(0),
            ];
            let right = answers.iter().all(|&code| code == NOT_INITIALISED);
            // SAFETY: ends the child without the parent's handlers.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        let mut status = -1;
        // SAFETY: the child that was just started.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        ensure!(waited == child && status == 0, "the forked child ended with {status:#x}");
        self.compute(By::Kernel).map(|_| ())
    }

    /// Works until the device is gone, and says with what, then and afterwards.
    fn until_lost(&self) -> Result<Value> {
        let kernel = self.kernel(By::Kernel)?;
        let (mut x, mut y) = (0u64, 0u64);
        expect("cuMemAlloc", self.driver.alloc(&raw mut x, 4 * ELEMENTS), 0)?;
        expect("cuMemAlloc", self.driver.alloc(&raw mut y, 4 * ELEMENTS), 0)?;
        let lost_with = loop {
            let code = self.launch(kernel, x, y)?;
            let code = if code == 0 { self.driver.synchronise() } else { code };
            if code != 0 {
                break code;
            }
        };
        let mut address = 0;
        let again = [
            self.launch(kernel, x, y)?,
            self.driver.synchronise(),
            self.driver.alloc(&raw mut address, 4096),
        ];
        expect("what it was lost with", lost_with, UNAVAILABLE)?;
        Ok(json!({ "lost_with": lost_with, "again": again, "kept": self.ready().is_ok() }))
    }
}

/// A program's image, as the compiler lays it out: a wrapper that points at a fat binary with one entry, the text. It lives
/// as long as the program.
fn image(text: &str) -> Result<&'static [u64; 3]> {
    const WRAPPER: u64 = 0x4662_43b1;
    const FAT_BINARY: u64 = 0xba55_ed50;
    const HEADER_BYTES: u64 = 16;
    const ENTRY_HEADER_BYTES: u64 = 64;
    const KIND_TEXT: u64 = 1;
    const SIXTY_FOUR_BITS_ON_LINUX: u64 = 0x11;
    let mut payload = text.as_bytes().to_vec();
    payload.resize((text.len() + 1).next_multiple_of(8), 0);
    let length = u64::try_from(payload.len())?;
    let mut words = vec![
        FAT_BINARY | 1 << 32 | HEADER_BYTES << 48,
        ENTRY_HEADER_BYTES + length,
        KIND_TEXT | 0x0101 << 16 | ENTRY_HEADER_BYTES << 32,
        length,
        0,
        // Version 8.2 of the text, for SM 75.
        2 | 8 << 16 | 75 << 32,
    ];
    // No name, flags, no further lengths.
    words.extend([0, SIXTY_FOUR_BITS_ON_LINUX, 0, 0]);
    for bytes in payload.chunks_exact(8) {
        words.push(u64::from_le_bytes(bytes.try_into()?));
    }
    let fat_binary: &'static [u64] = Vec::leak(words);
    let address = fat_binary.as_ptr().expose_provenance() as u64;
    Ok(Box::leak(Box::new([WRAPPER | 1 << 32, address, 0])))
}
