//! Memory limits of control groups, the newer process lists and events, by the entry points themselves: bindings do not
//! know them yet, or hide what is wrong about a call.
#![expect(unsafe_code, reason = "NVML is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::{CStr, CString, c_void};
use std::os::fd::AsFd;
use std::process::Command;

use headgate_abi::nvml::{
    NVML_EVENT_XID, NVML_PROCESS_DETAIL_LIST_V1, NvmlDevice, NvmlEventData, NvmlEventSet,
    NvmlGetMemoryLimits, NvmlProcessDetail, NvmlProcessDetailList, NvmlReturn, NvmlSetMemoryLimits,
};
use headgate_simgpu::client::{Connection, Control};
use headgate_simgpu::config::Config;
use headgate_simgpu::protocol::{Reply, Request, Role};
use headgate_simgpu::server::Server;

const BODY_ENV: &str = "SIMNVML_TEST_BODY";
const MIB: u64 = 1 << 20;

/// Serves a device, and runs the test's other half in a process that has it. `None` in that process.
fn serve(name: &str, config: &str) -> Option<()> {
    if std::env::var_os(BODY_ENV).is_some() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("device");
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut server = Server::bind(&socket, Config::parse(config).unwrap()).unwrap();
    let (stopped, stop) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || server.run(stopped.as_fd()).unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("HEADGATE_SIMGPU_SOCKET", &socket)
        .env(BODY_ENV, deps.join("libheadgate_simnvml.so"))
        .output()
        .unwrap();
    drop(stop);
    thread.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

struct Library(*mut c_void);

impl Library {
    fn open() -> Self {
        let path = CString::new(std::env::var(BODY_ENV).unwrap()).unwrap();
        // SAFETY: a terminated path.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        Self(library)
    }

    fn find(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library and a terminated name.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    }

    fn call<T>(&self, name: &CStr, device: NvmlDevice, argument: *mut T) -> NvmlReturn {
        type Function = extern "C" fn(NvmlDevice, *mut c_void) -> NvmlReturn;
        // SAFETY: all functions asked for here have this form.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(self.find(name)) };
        function(device, argument.cast())
    }

    fn device(&self) -> NvmlDevice {
        // SAFETY: the function's form.
        let init = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn() -> NvmlReturn>(self.find(c"nvmlInit_v2"))
        };
        assert_eq!(init(), NvmlReturn::SUCCESS);
        type Function = extern "C" fn(u32, *mut NvmlDevice) -> NvmlReturn;
        let found = self.find(c"nvmlDeviceGetHandleByIndex_v2");
        // SAFETY: the function's form.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(found) };
        let mut device = NvmlDevice(std::ptr::null_mut());
        assert_eq!(function(0, &raw mut device), NvmlReturn::SUCCESS);
        device
    }
}

/// A connection with a context, from this process, so in its control group.
fn worker() -> Connection {
    let socket = std::env::var_os("HEADGATE_SIMGPU_SOCKET").unwrap();
    let work = Connection::open(socket.as_ref(), Role::Driver).unwrap();
    let context = work.ask(&Request::OpenContext { device: 0, legacy_slot: 0, connections: None }).unwrap();
    assert!(matches!(context, Reply::Context(0)));
    work
}

#[test]
fn control_groups_are_held_to_their_limits() {
    let name = "control_groups_are_held_to_their_limits";
    if serve(name, r#"{"group_limits": true}"#).is_some() {
        return;
    }
    let library = Library::open();
    let device = library.device();
    let group = own_group();
    let set = |soft_limit, hard_limit| {
        let name_space = group.as_ptr();
        let mut limits = NvmlSetMemoryLimits { name_space, soft_limit, hard_limit };
        library.call(c"nvmlDeviceSetMemoryLimits_v1", device, &raw mut limits)
    };
    let get = || {
        let (name_space, soft_limit, hard_limit, current_used) = (group.as_ptr(), 0, 0, 0);
        let mut limits = NvmlGetMemoryLimits { name_space, soft_limit, hard_limit, current_used };
        let status = library.call(c"nvmlDeviceGetMemoryLimits_v1", device, &raw mut limits);
        (status, limits.soft_limit, limits.hard_limit, limits.current_used)
    };
    assert_eq!(get().0, NvmlReturn::ERROR_NOT_FOUND);
    let me = std::fs::metadata("/proc/self").unwrap();
    if std::os::unix::fs::MetadataExt::uid(&me) != 0 {
        assert_eq!(set(0, MIB), NvmlReturn::ERROR_NO_PERMISSION);
        return;
    }
    assert_eq!(set(2 * MIB, MIB), NvmlReturn::ERROR_INVALID_ARGUMENT);
    assert_eq!(set(0, 8 * MIB), NvmlReturn::SUCCESS);
    let work = worker();
    let take = |bytes| work.ask(&Request::Allocate { context: 0, bytes }).unwrap();
    assert!(matches!(take(7 * MIB), Reply::Address(_)));
    assert_eq!(get(), (NvmlReturn::SUCCESS, 0, 8 * MIB, 7 * MIB));
    let out_of_memory = 2;
    assert!(matches!(take(2 * MIB), Reply::Refused { status, .. } if status == out_of_memory));
    assert!(matches!(take(MIB), Reply::Address(_)));
    // Lower than what is in use: nothing is taken away, and nothing more is given.
    assert_eq!(set(0, MIB), NvmlReturn::SUCCESS);
    assert!(matches!(take(1), Reply::Refused { status, .. } if status == out_of_memory));
    assert_eq!(set(0, u64::MAX), NvmlReturn::SUCCESS);
    assert!(matches!(take(1), Reply::Address(_)));
    assert_eq!(get().0, NvmlReturn::ERROR_NOT_FOUND);
}

/// Directory of the control group this process is in.
fn own_group() -> CString {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let place = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let place = place.and_then(|line| line.split(' ').nth(1)).unwrap_or("/sys/fs/cgroup");
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    CString::new(format!("{place}{path}")).unwrap()
}

#[test]
fn old_drivers_have_no_limits() {
    if serve("old_drivers_have_no_limits", "{}").is_some() {
        return;
    }
    let library = Library::open();
    let device = library.device();
    let name_space = c"/sys/fs/cgroup".as_ptr();
    let mut limits = NvmlGetMemoryLimits { name_space, soft_limit: 0, hard_limit: 0, current_used: 0 };
    let status = library.call(c"nvmlDeviceGetMemoryLimits_v1", device, &raw mut limits);
    assert_eq!(status, NvmlReturn::ERROR_NOT_SUPPORTED);
}

#[test]
fn processes_are_listed_in_detail() {
    if serve("processes_are_listed_in_detail", "{}").is_some() {
        return;
    }
    let library = Library::open();
    let device = library.device();
    let work = worker();
    assert!(matches!(work.ask(&Request::Allocate { context: 0, bytes: MIB }).unwrap(), Reply::Address(_)));
    let mut rows = [NvmlProcessDetail::default(); 2];
    let mut list = NvmlProcessDetailList {
        version: NVML_PROCESS_DETAIL_LIST_V1,
        mode: 0,
        count: 0,
        processes: rows.as_mut_ptr(),
    };
    let name = c"nvmlDeviceGetRunningProcessDetailList";
    let mut ask = |mode, count, version| {
        (list.mode, list.count, list.version) = (mode, count, version);
        (library.call(name, device, &raw mut list), list.count)
    };
    let version = NVML_PROCESS_DETAIL_LIST_V1;
    assert_eq!(ask(0, 0, version), (NvmlReturn::ERROR_INSUFFICIENT_SIZE, 1));
    assert_eq!(ask(0, 2, version), (NvmlReturn::SUCCESS, 1));
    assert_eq!(ask(2, 2, version), (NvmlReturn::SUCCESS, 0));
    assert_eq!(ask(3, 2, version).0, NvmlReturn::ERROR_INVALID_ARGUMENT);
    assert_eq!(ask(0, 2, 7).0, NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH);
    assert_eq!((rows[0].pid, rows[0].used_gpu_memory), (std::process::id(), MIB));
}

#[test]
fn events_are_told_to_each_set_that_listens_to_their_device() {
    if serve("events_are_told_to_each_set_that_listens_to_their_device", r#"{"devices": [{}, {}]}"#).is_some()
    {
        return;
    }
    let library = Library::open();
    let first = library.device();
    macro_rules! function {
        ($name:literal, $($argument:ty),*) => {{
            let found = library.find($name);
            // SAFETY: the function's form.
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn($($argument),*) -> NvmlReturn>(found) }
        }};
    }
    let index = function!(c"nvmlDeviceGetHandleByIndex_v2", u32, *mut NvmlDevice);
    let create = function!(c"nvmlEventSetCreate", *mut NvmlEventSet);
    let register = function!(c"nvmlDeviceRegisterEvents", NvmlDevice, u64, NvmlEventSet);
    let wait = function!(c"nvmlEventSetWait_v2", NvmlEventSet, *mut NvmlEventData, u32);
    let free = function!(c"nvmlEventSetFree", NvmlEventSet);
    let mut second = first;
    assert_eq!(index(1, &raw mut second), NvmlReturn::SUCCESS);
    let make = || {
        let mut set = NvmlEventSet(std::ptr::null_mut());
        assert_eq!(create(&raw mut set), NvmlReturn::SUCCESS);
        set
    };
    let next = |set, timeout| {
        let device = NvmlDevice(std::ptr::null_mut());
        let (gpu_instance_id, compute_instance_id) = (0, 0);
        let mut data =
            NvmlEventData { device, event_type: 0, event_data: 0, gpu_instance_id, compute_instance_id };
        match wait(set, &raw mut data, timeout) {
            NvmlReturn::SUCCESS => Ok((data.device, data.event_type, data.event_data)),
            status => Err(status),
        }
    };
    let control = Control::open(std::env::var_os("HEADGATE_SIMGPU_SOCKET").unwrap().as_ref()).unwrap();
    let (both, one, none) = (make(), make(), make());
    control.xid(0, 13).unwrap();
    for (device, set) in [(first, both), (second, both), (second, one)] {
        assert_eq!(register(device, NVML_EVENT_XID, set), NvmlReturn::SUCCESS);
    }
    assert_eq!(register(first, NVML_EVENT_XID | 2, one), NvmlReturn::ERROR_NOT_SUPPORTED);
    assert_eq!(next(both, 0), Err(NvmlReturn::ERROR_TIMEOUT), "what was before the registration is not told");
    for (device, code) in [(0, 31), (1, 79), (0, 48)] {
        control.xid(device, code).unwrap();
    }
    assert_eq!(next(both, 0), Ok((first, NVML_EVENT_XID, 31)));
    assert_eq!(next(both, 1_000), Ok((second, NVML_EVENT_XID, 79)));
    assert_eq!(next(both, 0), Ok((first, NVML_EVENT_XID, 48)));
    assert_eq!(next(one, 0), Ok((second, NVML_EVENT_XID, 79)));
    assert_eq!(next(one, 20), Err(NvmlReturn::ERROR_TIMEOUT));
    assert_eq!(next(none, 0), Err(NvmlReturn::ERROR_TIMEOUT));
    assert_eq!(free(one), NvmlReturn::SUCCESS);
    assert_eq!(next(one, 0), Err(NvmlReturn::ERROR_INVALID_ARGUMENT));
    assert_eq!(free(one), NvmlReturn::ERROR_INVALID_ARGUMENT);
}
