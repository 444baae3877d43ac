//! A CUDA program on strings: reads one command a line, makes the driver call, answers one line.
//!
//! `ok VALUES...` or `err CODE`, where CODE is the driver's own number. It finds the driver as programs do:
//! `libcuda.so.1` by `dlopen`, functions by `dlsym` (default) or `cuGetProcAddress_v2` (argument
//! `--by-proc-address`). It links nothing of Headgate.
#![expect(unsafe_code, reason = "calls C functions through pointers")]
#![expect(clippy::print_stdout, reason = "answers are its purpose")]

mod around;
mod graphs;
mod groups;
mod launches;
mod random;
mod threads;

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{BufRead, Write};

type Status = c_uint;

/// The libraries and how names are found in them.
struct Libraries {
    cuda: *mut c_void,
    nvml: *mut c_void,
    by_proc_address: bool,
}

/// What the puppet holds.
#[derive(Default)]
struct State {
    allocations: Vec<u64>,
    stream: usize,
    function: usize,
    counter: u64,
    exec: usize,
    random: Vec<(u64, u64, bool)>,
    around: around::Around,
    groups: groups::Groups,
}

macro_rules! call {
    ($libraries:expr, $name:literal, $version:literal, ($($ty:ty),*), ($($arg:expr),*)) => {{
        match $libraries.find($name, $version) {
            None => NOT_FOUND,
            Some(function) => {
                type Function = unsafe extern "C" fn($($ty),*) -> Status;
                // SAFETY: the name is that of a function with this signature in NVIDIA's documentation.
                let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
                // SAFETY: arguments as the documentation says; outputs are valid for writing.
                unsafe { function($($arg),*) }
            }
        }
    }};
}

use call;

/// The puppet's own answer when the library lacks a function.
const NOT_FOUND: Status = 100_000;

fn main() {
    let by_proc_address = std::env::args().any(|argument| argument == "--by-proc-address");
    // `--driver PATH`: a copy of the driver under another name.
    let driver = std::env::args().skip_while(|argument| argument != "--driver").nth(1);
    let libraries = Libraries::with(driver.as_deref().unwrap_or("libcuda.so.1"), by_proc_address);
    let mut state = State::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        let answer = obey(&libraries, &mut state, &words);
        println!("{answer}");
        if std::io::stdout().flush().is_err() {
            return;
        }
    }
}

fn open(name: &str) -> *mut c_void {
    let Ok(name) = CString::new(name) else { return std::ptr::null_mut() };
    // SAFETY: a NUL-terminated name.
    unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) }
}

impl Libraries {
    fn open(by_proc_address: bool) -> Self {
        Self::with("libcuda.so.1", by_proc_address)
    }

    fn with(driver: &str, by_proc_address: bool) -> Self {
        Self { cuda: open(driver), nvml: open("libnvidia-ml.so.1"), by_proc_address }
    }

    fn find(&self, name: &str, version: c_int) -> Option<*mut c_void> {
        let nvml = name.starts_with("nvml");
        if nvml || !self.by_proc_address {
            return symbol(if nvml { self.nvml } else { self.cuda }, name);
        }
        // cuGetProcAddress is asked by base name and version, never by ELF name.
        let base = name.trim_end_matches("_v2").trim_end_matches("_ptsz");
        let get = symbol(self.cuda, "cuGetProcAddress_v2")?;
        type Get = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut c_uint) -> Status;
        // SAFETY: the function of that name has this signature.
        let get = unsafe { std::mem::transmute::<*mut c_void, Get>(get) };
        let (base, mut found) = (CString::new(base).ok()?, std::ptr::null_mut());
        // SAFETY: a NUL-terminated name and a valid output; the status may be null.
        let status = unsafe { get(base.as_ptr(), &raw mut found, version, 0, std::ptr::null_mut()) };
        (status == 0 && !found.is_null()).then_some(found)
    }
}

fn symbol(library: *mut c_void, name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    if library.is_null() {
        return None;
    }
    // SAFETY: a valid handle and a NUL-terminated name.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn number(words: &[&str], index: usize) -> u64 {
    words.get(index).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn answer(status: Status, values: &[u64]) -> String {
    if status != 0 {
        return format!("err {status}");
    }
    values.iter().fold("ok".to_owned(), |line, value| format!("{line} {value}"))
}

fn obey(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    match words.first().copied().unwrap_or_default() {
        "init" => init(libraries),
        "device" => select(libraries, number(words, 1)),
        "alloc" | "alloc-async" | "alloc-pitch" => allocate(libraries, state, words),
        "free" | "free-async" => free(libraries, state, words),
        "info" | "total" | "nvml" | "nvml2" => view(libraries, words[0]),
        "load" | "launch" | "sync" | "count" => work(libraries, state, words),
        "timed" => launches::timed(libraries, state, number(words, 1), number(words, 2)),
        "random" | "children" => random::obey(libraries, &mut state.random, words),
        "threads" => threads::obey(libraries, state, words),
        "sms" | "green" | "green-stream" | "own-context" | "current" | "release" => {
            groups::obey(libraries, state, words)
        }
        "held" => launches::held(libraries, state, number(words, 1)),
        "dependent" => launches::dependent(libraries, state, number(words, 1)),
        "capture" | "capture-join" | "capture-beside" | "replay" => graphs::obey(libraries, state, words),
        "reset" => answer(call!(libraries, "cuDevicePrimaryCtxReset_v2", 11000, (c_int), (0)), &[]),
        "free-address" => answer(call!(libraries, "cuMemFree_v2", 3020, (u64), (number(words, 1))), &[]),
        word if word.contains("around") || word.ends_with("-device") => {
            around::obey(&mut state.around, words)
        }
        "fork" => fork(libraries),
        "exec" => exec(),
        "close-descriptors" => {
            // SAFETY: plain system calls; what is closed is what daemons close.
            unsafe { libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, 0) };
            "ok".into()
        }
        other => format!("unknown command {other}"),
    }
}

fn init(libraries: &Libraries) -> String {
    let status = call!(libraries, "cuInit", 2000, (c_uint), (0));
    if status != 0 {
        return answer(status, &[]);
    }
    select(libraries, 0)
}

/// Works on that device from now on.
fn select(libraries: &Libraries, device: u64) -> String {
    let device = c_int::try_from(device).unwrap_or(c_int::MAX);
    let mut context: *mut c_void = std::ptr::null_mut();
    let out = &raw mut context;
    let status = call!(libraries, "cuDevicePrimaryCtxRetain", 7000, (*mut *mut c_void, c_int), (out, device));
    if status != 0 {
        return answer(status, &[]);
    }
    answer(call!(libraries, "cuCtxSetCurrent", 4000, (*mut c_void), (context)), &[])
}

fn allocate(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    let bytes = usize::try_from(number(words, 1)).unwrap_or(usize::MAX);
    let mut address = 0u64;
    let out = &raw mut address;
    let status = match words[0] {
        "alloc" => call!(libraries, "cuMemAlloc_v2", 3020, (*mut u64, usize), (out, bytes)),
        "alloc-async" => {
            call!(libraries, "cuMemAllocAsync", 11020, (*mut u64, usize, usize), (out, bytes, 0))
        }
        _ => {
            let height = usize::try_from(number(words, 2)).unwrap_or(0);
            let mut pitch = 0usize;
            call!(
                libraries,
                "cuMemAllocPitch_v2",
                3020,
                (*mut u64, *mut usize, usize, usize, c_uint),
                (out, &raw mut pitch, bytes, height, 4)
            )
        }
    };
    if status == 0 {
        state.allocations.push(address);
    }
    answer(status, &[address])
}

fn free(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    let Some(address) = state.allocations.pop() else { return "err 0".into() };
    answer(
        match words[0] {
            "free" => call!(libraries, "cuMemFree_v2", 3020, (u64), (address)),
            _ => call!(libraries, "cuMemFreeAsync", 11020, (u64, usize), (address, 0)),
        },
        &[],
    )
}

fn view(libraries: &Libraries, what: &str) -> String {
    let (mut free, mut total) = (0usize, 0usize);
    match what {
        "info" => {
            let outputs = (&raw mut free, &raw mut total);
            let status =
                call!(libraries, "cuMemGetInfo_v2", 3020, (*mut usize, *mut usize), (outputs.0, outputs.1));
            answer(status, &[free as u64, total as u64])
        }
        "total" => {
            let status =
                call!(libraries, "cuDeviceTotalMem_v2", 3020, (*mut usize, c_int), (&raw mut total, 0));
            answer(status, &[total as u64])
        }
        _ => nvml(libraries, what == "nvml2"),
    }
}

fn nvml(libraries: &Libraries, second: bool) -> String {
    let mut device: *mut c_void = std::ptr::null_mut();
    let mut status = call!(libraries, "nvmlInit_v2", 0, (), ());
    if status == 0 {
        let out = &raw mut device;
        status = call!(libraries, "nvmlDeviceGetHandleByIndex_v2", 0, (c_uint, *mut *mut c_void), (0, out));
    }
    if status != 0 {
        return answer(status, &[]);
    }
    if second {
        // version, total, reserved, free, used
        let mut memory = [40 | (2 << 24), 0u64, 0, 0, 0];
        let out = memory.as_mut_ptr();
        status = call!(libraries, "nvmlDeviceGetMemoryInfo_v2", 0, (*mut c_void, *mut u64), (device, out));
        return answer(status, &[memory[3], memory[1], memory[4]]);
    }
    // total, free, used
    let mut memory = [0u64; 3];
    let out = memory.as_mut_ptr();
    status = call!(libraries, "nvmlDeviceGetMemoryInfo", 0, (*mut c_void, *mut u64), (device, out));
    answer(status, &[memory[1], memory[0], memory[2]])
}

fn work(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    match words[0] {
        "load" => load(libraries, state, words),
        "launch" => {
            for _ in 0..number(words, 1) {
                let status = launch(libraries, state);
                if status != 0 {
                    return answer(status, &[]);
                }
            }
            answer(0, &[])
        }
        "sync" => answer(call!(libraries, "cuCtxSynchronize", 2000, (), ()), &[]),
        _ => {
            let mut count = 0u64;
            let out = (&raw mut count).cast::<c_void>();
            let status =
                call!(libraries, "cuMemcpyDtoH_v2", 3020, (*mut c_void, u64, usize), (out, state.counter, 8));
            answer(status, &[count])
        }
    }
}

/// `load FILE KERNEL`: loads PTX, finds the kernel, makes its counter and a stream.
fn load(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    let text =
        words.get(1).and_then(|path| std::fs::read(path).ok()).and_then(|text| CString::new(text).ok());
    let name = words.get(2).and_then(|name| CString::new(*name).ok());
    let (Some(text), Some(name)) = (text, name) else { return "no such file or kernel".into() };
    let (mut module, mut zero) = (0usize, 0u64);
    let out = &raw mut module;
    let mut status =
        call!(libraries, "cuModuleLoadData", 2000, (*mut usize, *const c_char), (out, text.as_ptr()));
    if status == 0 {
        let out = &raw mut state.function;
        status = call!(
            libraries,
            "cuModuleGetFunction",
            2000,
            (*mut usize, usize, *const c_char),
            (out, module, name.as_ptr())
        );
    }
    if status == 0 {
        let out = &raw mut state.counter;
        status = call!(libraries, "cuMemAlloc_v2", 3020, (*mut u64, usize), (out, 8));
    }
    if status == 0 {
        let from = (&raw mut zero).cast::<c_void>();
        let to = state.counter;
        status = call!(libraries, "cuMemcpyHtoD_v2", 3020, (u64, *const c_void, usize), (to, from, 8));
    }
    if status == 0 {
        const NON_BLOCKING: c_uint = 1;
        let out = &raw mut state.stream;
        status = call!(libraries, "cuStreamCreate", 2000, (*mut usize, c_uint), (out, NON_BLOCKING));
    }
    answer(status, &[])
}

fn launch(libraries: &Libraries, state: &State) -> Status {
    let mut counter = state.counter;
    let mut parameters = [(&raw mut counter).cast::<c_void>()];
    let (function, stream, parameters) = (state.function, state.stream, parameters.as_mut_ptr());
    call!(
        libraries,
        "cuLaunchKernel",
        4000,
        (
            usize,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            usize,
            *mut *mut c_void,
            *mut *mut c_void
        ),
        (function, 1, 1, 1, 32, 1, 1, 0, stream, parameters, std::ptr::null_mut())
    )
}

/// Forks; the child tries to start CUDA and to take a MiB, and reports how that went as its exit status.
fn fork(libraries: &Libraries) -> String {
    // SAFETY: the child only makes driver calls and leaves without running destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut state = State::default();
        let orders: [&[&str]; 2] = [&["init"], &["alloc", "1048576"]];
        let failed = orders.into_iter().map(|order| obey(libraries, &mut state, order));
        let failed = failed.filter_map(|answer| answer.strip_prefix("err ")?.parse::<Status>().ok()).next();
        let status = failed.map_or(0, |code| u8::try_from(code).unwrap_or(255));
        // SAFETY: leaves at once.
        unsafe { libc::_exit(c_int::from(status)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    format!("ok {}", libc::WEXITSTATUS(status))
}

/// Replaces the program by a fresh copy of itself in the same process.
fn exec() -> String {
    use std::os::unix::process::CommandExt;
    let Ok(me) = std::env::current_exe() else { return "no path".into() };
    // Answered first: whoever asks must not send more before the new program reads it.
    println!("ok");
    let error = std::process::Command::new(me).exec();
    format!("exec failed: {error}")
}
