//! A device server in the test's own process, and the test's body in a child process that finds its libcuda.
//!
//! Each test is one function that runs twice: started by cargo it serves a device and starts itself again with
//! `LD_LIBRARY_PATH` and the socket set; the child runs the body against cudarc's bindings, which load `libcuda.so.1` as
//! any program does. So the environment is never changed in a running process, and every test has a driver of its own.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test program uses a part")]

use std::ffi::{CStr, CString, c_void};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cudarc::driver::sys::{self, CUresult};
use headgate_simgpu::client::Control;
use headgate_simgpu::config::Config;
use headgate_simgpu::server::Server;
use tempfile::TempDir;

pub(crate) const SPIN: &str = include_str!("../../../../apps/kernels/ptx/spin.ptx");
pub(crate) const SAXPY: &str = include_str!("../../../../apps/kernels/ptx/saxpy.ptx");
pub(crate) const FAULTS: &str = include_str!("../../../../apps/kernels/ptx/faults.ptx");
pub(crate) const CONSTANT: &str = include_str!("../../../../apps/kernels/ptx/constant.ptx");

const BODY_ENV: &str = "SIMCUDA_TEST_BODY";

/// A served device.
pub(crate) struct Device {
    pub(crate) control: Control,
    directory: TempDir,
    stop: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Device {
    pub(crate) fn serve(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse(config).unwrap();
        let mut server = Server::bind(&directory.path().join("device"), config).unwrap();
        keep(&library(), &directory.path().join("libcuda.so.1"));
        let (stopped, stop) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || server.run(stopped.as_fd()).unwrap());
        let control = Control::open(&directory.path().join("device")).unwrap();
        Self { control, directory, stop: Some(stop), thread: Some(thread) }
    }

    /// A program that finds this device.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", self.directory.path())
            .env("HEADGATE_SIMGPU_SOCKET", self.directory.path().join("device"))
            .env("HEADGATE_SIMGPU_LOG", "1");
        command
    }

    /// The child's half of the test `name`, or of another.
    pub(crate) fn start(&self, name: &str, body: &str) -> Child {
        let exe = std::env::current_exe().unwrap();
        let mut command = self.command(exe);
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(BODY_ENV, body);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, name: &str, body: &str) {
        let output = self.start(name, body).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name} ({body}) failed:\n{said}");
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.control.statistics().unwrap()["devices"][0]["memory_used_bytes"].as_u64().unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// The library that cargo built before it ran this test.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    deps.join("libheadgate_simcuda.so")
}

/// A second name, or a copy, of a file that another build may be replacing at this moment.
fn keep(file: &Path, name: &Path) {
    for _ in 0..200 {
        if std::fs::hard_link(file, name).is_ok() || std::fs::copy(file, name).is_ok() {
            return;
        }
        pause(Duration::from_millis(50));
    }
    panic!("cargo built no {}", file.display());
}

/// What this process is to do: `None` in the process that cargo started.
pub(crate) fn body() -> Option<String> {
    std::env::var(BODY_ENV).ok()
}

/// The usual test: one device, one child.
pub(crate) fn in_child(name: &str, config: &str, run: impl FnOnce()) {
    match body() {
        Some(_) => run(),
        None => Device::serve(config).run(name, "body"),
    }
}

/// Waits for something to come true within a second.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("{what}: not within a second");
}

#[expect(clippy::disallowed_methods, reason = "bounded waiting for another process")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

pub(crate) type Outcome<T> = Result<T, CUresult>;

/// Runs a driver call, and makes its status a result.
macro_rules! cu {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the test passes valid arguments, or ones whose refusal it tests.
        let status = unsafe { cudarc::driver::sys::$name($($arg),*) };
        if status == cudarc::driver::sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(status) }
    }};
}
pub(crate) use cu;

/// A started driver with a current primary context.
pub(crate) fn context() -> sys::CUcontext {
    cu!(cuInit(0)).unwrap();
    let mut context = std::ptr::null_mut();
    cu!(cuDevicePrimaryCtxRetain(&mut context, 0)).unwrap();
    cu!(cuCtxSetCurrent(context)).unwrap();
    context
}

pub(crate) fn allocate(bytes: usize) -> Outcome<u64> {
    let mut address = 0;
    cu!(cuMemAlloc_v2(&mut address, bytes)).map(|()| address)
}

pub(crate) fn stream(flags: u32) -> sys::CUstream {
    let mut stream = std::ptr::null_mut();
    cu!(cuStreamCreate(&mut stream, flags)).unwrap();
    stream
}

pub(crate) fn event(flags: u32) -> sys::CUevent {
    let mut event = std::ptr::null_mut();
    cu!(cuEventCreate(&mut event, flags)).unwrap();
    event
}

pub(crate) fn module(ptx: &str) -> Outcome<sys::CUmodule> {
    let text = CString::new(ptx).unwrap();
    let mut module = std::ptr::null_mut();
    cu!(cuModuleLoadData(&mut module, text.as_ptr().cast())).map(|()| module)
}

pub(crate) fn function(module: sys::CUmodule, name: &CStr) -> sys::CUfunction {
    let mut function = std::ptr::null_mut();
    cu!(cuModuleGetFunction(&mut function, module, name.as_ptr())).unwrap();
    function
}

/// Launches blocks of 32 threads.
pub(crate) fn launch<const N: usize>(
    function: sys::CUfunction,
    blocks: u32,
    stream: sys::CUstream,
    mut params: [*mut c_void; N],
) -> Outcome<()> {
    let (params, none) = (params.as_mut_ptr(), std::ptr::null_mut());
    cu!(cuLaunchKernel(function, blocks, 1, 1, 32, 1, 1, 0, stream, params, none))
}

/// A pointer to a parameter's value.
pub(crate) fn param<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

pub(crate) fn download<T: Copy + Default>(address: u64, count: usize) -> Outcome<Vec<T>> {
    let mut values = vec![T::default(); count];
    let bytes = size_of_val(&values[..]);
    cu!(cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), address, bytes)).map(|()| values)
}

pub(crate) fn upload<T: Copy>(address: u64, values: &[T]) -> Outcome<()> {
    cu!(cuMemcpyHtoD_v2(address, values.as_ptr().cast(), size_of_val(values)))
}

/// Holds streams until everything of a measurement has been handed in, so that the machine's own speed is no part of it.
pub(crate) struct Gate(*mut u32);

impl Gate {
    pub(crate) fn new() -> Self {
        let mut page = std::ptr::null_mut();
        // CU_MEMHOSTALLOC_PORTABLE: for every context.
        cu!(cuMemHostAlloc(&mut page, 4_096, 1)).unwrap();
        Self(page.cast())
    }

    pub(crate) fn hold(&self, stream: sys::CUstream) {
        cu!(cuStreamWaitValue32_v2(stream, self.0.addr() as u64, 1, 0)).unwrap();
    }

    pub(crate) fn open(&self) {
        // A question is answered when everything before it has been taken.
        let (mut free, mut total) = (0, 0);
        cu!(cuMemGetInfo_v2(&mut free, &mut total)).unwrap();
        // SAFETY: the page is never freed; the device only reads it.
        unsafe { self.0.write_volatile(1) };
    }
}

/// Milliseconds of device time between two events that are reached in the end.
pub(crate) fn elapsed(begun: sys::CUevent, ended: sys::CUevent) -> f32 {
    cu!(cuEventSynchronize(ended)).unwrap();
    let mut span = 0.0;
    cu!(cuEventElapsedTime(&mut span, begun, ended)).unwrap();
    span
}

/// The null stream.
pub(crate) const NULL: sys::CUstream = std::ptr::null_mut();
