//! The driver API, found at run time as CUDA's own runtime finds it.
#![expect(unsafe_code, reason = "calls C functions found by name")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::str::FromStr;

type Status = c_uint;
type Handle = *mut c_void;

/// How entry points are found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `dlsym` by the name in the library's symbol table.
    Dlsym,
    /// `cuGetProcAddress_v2` by the name in the API and a CUDA version.
    GetProcAddress,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dlsym" => Ok(Self::Dlsym),
            "proc" => Ok(Self::GetProcAddress),
            _ => Err(format!("`{text}` is neither `dlsym` nor `proc`")),
        }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: Handle,
    attributes: *const c_void,
    attribute_count: c_uint,
}

type Init = unsafe extern "C" fn(c_uint) -> Status;
type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> Status;
type Retain = unsafe extern "C" fn(*mut Handle, c_int) -> Status;
type SetCurrent = unsafe extern "C" fn(Handle) -> Status;
type StreamCreate = unsafe extern "C" fn(*mut Handle, c_uint) -> Status;
type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> Status;
type MemAlloc = unsafe extern "C" fn(*mut u64, usize) -> Status;
type MemFree = unsafe extern "C" fn(u64) -> Status;
type Launch = unsafe extern "C" fn(
    Handle,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    Handle,
    *mut *mut c_void,
    *mut *mut c_void,
) -> Status;
type LaunchEx =
    unsafe extern "C" fn(*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void) -> Status;
type GetProcAddress =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut c_uint) -> Status;

/// CUDA version asked of `cuGetProcAddress`.
const CUDA_VERSION: c_int = 12_080;
/// Functions are only ever named, never entered, by a driver that returns at once.
const SOME_FUNCTION: Handle = std::ptr::without_provenance_mut(0x1000);

/// The entry points this program uses, and a stream to launch in.
pub(crate) struct Driver {
    init: Init,
    device_get: DeviceGet,
    retain: Retain,
    set_current: SetCurrent,
    stream_create: StreamCreate,
    mem_get_info: MemGetInfo,
    mem_alloc: MemAlloc,
    mem_free: MemFree,
    launch: Launch,
    launch_ex: LaunchEx,
    stream: Handle,
}

struct Finder {
    library: Handle,
    get_proc_address: Option<GetProcAddress>,
}

impl Finder {
    fn open(way: Way) -> Result<Self, String> {
        // SAFETY: loads the driver library, whose constructors are the vendor's.
        let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err("libcuda.so.1 cannot be loaded; is its directory on LD_LIBRARY_PATH?".to_owned());
        }
        let mut finder = Self { library, get_proc_address: None };
        if way == Way::GetProcAddress {
            let found = finder.find(c"", c"cuGetProcAddress_v2")?;
            // SAFETY: the function of this name has this signature.
            finder.get_proc_address = Some(unsafe { std::mem::transmute::<Handle, GetProcAddress>(found) });
        }
        Ok(finder)
    }

    /// The function of an API name, whose name in the symbol table is `elf_name`.
    fn find(&self, base_name: &CStr, elf_name: &CStr) -> Result<Handle, String> {
        let found = match self.get_proc_address {
            Some(look_up) => {
                let (mut found, mut how) = (null_mut(), 0);
                // SAFETY: a NUL-terminated name and two valid outputs.
                let status =
                    unsafe { look_up(base_name.as_ptr(), &raw mut found, CUDA_VERSION, 0, &raw mut how) };
                check(status, "cuGetProcAddress_v2")?;
                found
            }
            // SAFETY: an open library and a NUL-terminated name.
            None => unsafe { libc::dlsym(self.library, elf_name.as_ptr()) },
        };
        if found.is_null() {
            return Err(format!("the driver has no {}", elf_name.to_string_lossy()));
        }
        Ok(found)
    }
}

/// Finds one function and gives it its type.
macro_rules! find {
    ($finder:expr, $base:literal, $elf:literal, $ty:ty) => {{
        let found = $finder.find($base, $elf)?;
        // SAFETY: the function of this name has this signature.
        unsafe { std::mem::transmute::<Handle, $ty>(found) }
    }};
}

impl Driver {
    /// Loads the library and finds every function; calls none.
    pub(crate) fn find(way: Way) -> Result<Self, String> {
        let finder = Finder::open(way)?;
        Ok(Self {
            init: find!(finder, c"cuInit", c"cuInit", Init),
            device_get: find!(finder, c"cuDeviceGet", c"cuDeviceGet", DeviceGet),
            retain: find!(finder, c"cuDevicePrimaryCtxRetain", c"cuDevicePrimaryCtxRetain", Retain),
            set_current: find!(finder, c"cuCtxSetCurrent", c"cuCtxSetCurrent", SetCurrent),
            stream_create: find!(finder, c"cuStreamCreate", c"cuStreamCreate", StreamCreate),
            mem_get_info: find!(finder, c"cuMemGetInfo", c"cuMemGetInfo_v2", MemGetInfo),
            mem_alloc: find!(finder, c"cuMemAlloc", c"cuMemAlloc_v2", MemAlloc),
            mem_free: find!(finder, c"cuMemFree", c"cuMemFree_v2", MemFree),
            launch: find!(finder, c"cuLaunchKernel", c"cuLaunchKernel", Launch),
            launch_ex: find!(finder, c"cuLaunchKernelEx", c"cuLaunchKernelEx", LaunchEx),
            stream: null_mut(),
        })
    }

    /// `cuInit` and the first device's primary context, made current.
    pub(crate) fn start(&self) -> Result<(), String> {
        let (mut device, mut context) = (0, null_mut());
        // SAFETY: the driver API, as documented.
        check(unsafe { (self.init)(0) }, "cuInit")?;
        // SAFETY: the output is valid for writing.
        check(unsafe { (self.device_get)(&raw mut device, 0) }, "cuDeviceGet")?;
        // SAFETY: the output is valid for writing.
        check(unsafe { (self.retain)(&raw mut context, device) }, "cuDevicePrimaryCtxRetain")?;
        // SAFETY: the context was retained above and is never released.
        check(unsafe { (self.set_current)(context) }, "cuCtxSetCurrent")
    }

    /// Makes the stream that launches go to.
    pub(crate) fn make_stream(&mut self) -> Result<(), String> {
        // SAFETY: the output is valid for writing.
        check(unsafe { (self.stream_create)(&raw mut self.stream, 0) }, "cuStreamCreate")
    }

    /// Which library the functions really come from: `(function, path)`.
    pub(crate) fn origins(&self) -> Vec<(&'static str, String)> {
        vec![
            ("cuLaunchKernel", origin(self.launch as Handle)),
            ("cuLaunchKernelEx", origin(self.launch_ex as Handle)),
            ("cuMemAlloc", origin(self.mem_alloc as Handle)),
            ("cuMemFree", origin(self.mem_free as Handle)),
            ("cuMemGetInfo", origin(self.mem_get_info as Handle)),
        ]
    }

    #[inline]
    pub(crate) fn launch(&self) -> Status {
        // SAFETY: one block of one thread of a function that a null driver never enters.
        unsafe { (self.launch)(SOME_FUNCTION, 1, 1, 1, 1, 1, 1, 0, self.stream, null_mut(), null_mut()) }
    }

    #[inline]
    pub(crate) fn launch_ex(&self) -> Status {
        let config = LaunchConfig {
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            stream: self.stream,
            attributes: null(),
            attribute_count: 0,
        };
        // SAFETY: as for `launch`.
        unsafe { (self.launch_ex)(&raw const config, SOME_FUNCTION, null_mut(), null_mut()) }
    }

    /// Bytes free and in all.
    #[inline]
    pub(crate) fn memory(&self) -> (Status, usize, usize) {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the outputs are valid for writing.
        let status = unsafe { (self.mem_get_info)(&raw mut free, &raw mut total) };
        (status, free, total)
    }

    #[inline]
    pub(crate) fn allocate(&self, bytes: usize) -> (Status, u64) {
        let mut address = 0;
        // SAFETY: the output is valid for writing.
        let status = unsafe { (self.mem_alloc)(&raw mut address, bytes) };
        (status, address)
    }

    #[inline]
    pub(crate) fn free(&self, address: u64) -> Status {
        // SAFETY: the address came from `allocate` and is freed once.
        unsafe { (self.mem_free)(address) }
    }
}

/// A status that is not success, with the call that gave it.
pub(crate) fn check(status: Status, call: &str) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{call} returned CUDA error {status}")) }
}

fn origin(function: Handle) -> String {
    // SAFETY: an all-zero record is a valid value to be filled in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked about; `info` is valid for writing.
    if unsafe { libc::dladdr(function, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: the loader's own NUL-terminated path.
    unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned()
}
