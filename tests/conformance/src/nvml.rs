//! NVML's memory views, by the names programs use.
#![expect(unsafe_code, reason = "calls NVML through pointers found by name")]

use std::ffi::{CStr, c_uint, c_void};
use std::ptr::null_mut;

type Handle = *mut c_void;

/// The first device as NVML sees it.
#[derive(Debug)]
pub struct Nvml {
    library: Handle,
    device: Handle,
}

/// `total`, `free`, `used` in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Installed, or the quota.
    pub total: u64,
    /// Free of that.
    pub free: u64,
    /// Used of that.
    pub used: u64,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: u64,
    instances: [c_uint; 2],
}

/// `nvmlProcessInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfoV1 {
    pid: c_uint,
    used: u64,
}

macro_rules! nvml {
    ($library:expr, $name:expr, ($($ty:ty),*), ($($argument:expr),*)) => {{
        // SAFETY: an open library and a NUL-terminated name.
        let found = unsafe { libc::dlsym($library, $name.as_ptr()) };
        if found.is_null() {
            Err(NOT_FOUND)
        } else {
            type Function = unsafe extern "C" fn($($ty),*) -> c_uint;
            // SAFETY: the function of this name has this signature.
            let function = unsafe { std::mem::transmute::<Handle, Function>(found) };
            // SAFETY: arguments as NVML's documentation says; outputs are valid for writing.
            match unsafe { function($($argument),*) } {
                0 => Ok(()),
                code => Err(code),
            }
        }
    }};
}

/// The answer for a name the library lacks.
const NOT_FOUND: c_uint = 100_000;

impl Nvml {
    /// Starts NVML.
    ///
    /// # Errors
    /// NVML's own number.
    pub fn start() -> Result<Self, c_uint> {
        let name: &CStr = c"libnvidia-ml.so.1";
        // SAFETY: loads the vendor's library.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(NOT_FOUND);
        }
        nvml!(library, c"nvmlInit_v2", (), ())?;
        let mut device = null_mut();
        nvml!(library, c"nvmlDeviceGetHandleByIndex_v2", (c_uint, *mut Handle), (0, &raw mut device))?;
        Ok(Self { library, device })
    }

    /// Memory in the first form.
    ///
    /// # Errors
    /// NVML's own number.
    pub fn memory(&self) -> Result<Memory, c_uint> {
        let mut words = [0u64; 3];
        let out = words.as_mut_ptr();
        nvml!(self.library, c"nvmlDeviceGetMemoryInfo", (Handle, *mut u64), (self.device, out))?;
        Ok(Memory { total: words[0], free: words[1], used: words[2] })
    }

    /// Memory in the second form.
    ///
    /// # Errors
    /// NVML's own number.
    pub fn memory_v2(&self) -> Result<Memory, c_uint> {
        let mut words = [40 | (2 << 24), 0u64, 0, 0, 0];
        let out = words.as_mut_ptr();
        nvml!(self.library, c"nvmlDeviceGetMemoryInfo_v2", (Handle, *mut u64), (self.device, out))?;
        Ok(Memory { total: words[1], free: words[3], used: words[4] })
    }

    /// Process ids and bytes, in the first, second and third form.
    ///
    /// # Errors
    /// NVML's own number.
    pub fn processes(&self) -> Result<[Vec<(u32, u64)>; 3], c_uint> {
        let (device, library) = (self.device, self.library);
        let mut first = [ProcessInfoV1::default(); 256];
        let (mut later, mut count) = ([ProcessInfo::default(); 256], 256);
        let (count_at, list) = (&raw mut count, first.as_mut_ptr());
        nvml!(
            library,
            c"nvmlDeviceGetComputeRunningProcesses",
            (Handle, *mut c_uint, *mut ProcessInfoV1),
            (device, count_at, list)
        )?;
        let one = first.iter().take(count as usize).map(|info| (info.pid, info.used)).collect();
        let mut ask = |name: &CStr| {
            let mut count = 256;
            let (count_at, list) = (&raw mut count, later.as_mut_ptr());
            nvml!(library, name, (Handle, *mut c_uint, *mut ProcessInfo), (device, count_at, list))?;
            Ok::<_, c_uint>(later.iter().take(count as usize).map(|info| (info.pid, info.used)).collect())
        };
        let two = ask(c"nvmlDeviceGetComputeRunningProcesses_v2")?;
        let three = ask(c"nvmlDeviceGetComputeRunningProcesses_v3")?;
        Ok([one, two, three])
    }
}
