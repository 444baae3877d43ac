//! What NVML says of a device on this node, for the client's own NVML.
//!
//! NVML is found as any program finds it, so the hook stands in front of it: what is told is what this guest may see.
#![expect(unsafe_code, reason = "calls NVML's C functions")]

use std::ffi::{CStr, CString, c_char, c_uint, c_void};

use headgate_abi::nvml::{NvmlDevice, NvmlMemory, NvmlReturn, NvmlUtilization};

use crate::wire::{Gauges, uuid_text};

const LIBRARY: &CStr = c"libnvidia-ml.so.1";
/// Bytes of a version's text.
const TEXT_BYTES: c_uint = 96;

type Init = unsafe extern "C" fn() -> NvmlReturn;
type Version = unsafe extern "C" fn(*mut c_char, c_uint) -> NvmlReturn;
type ByUuid = unsafe extern "C" fn(*const c_char, *mut NvmlDevice) -> NvmlReturn;
type Memory = unsafe extern "C" fn(NvmlDevice, *mut NvmlMemory) -> NvmlReturn;
type Utilisation = unsafe extern "C" fn(NvmlDevice, *mut NvmlUtilization) -> NvmlReturn;

/// The loaded library.
#[derive(Debug)]
pub(super) struct Nvml {
    version: Option<Version>,
    by_uuid: ByUuid,
    memory: Memory,
    utilisation: Utilisation,
}

/// A function of the library.
fn look_up(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a handle of dlopen and a terminated name.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A function of a type.
macro_rules! function {
    ($library:expr, $name:literal as $ty:ty) => {
        // SAFETY: the function of this name has this type in NVML's documentation.
        look_up($library, $name).map(|found| unsafe { std::mem::transmute::<*mut c_void, $ty>(found) })
    };
}

impl Nvml {
    /// Loads and starts it. It stays loaded.
    pub(super) fn load() -> Option<Self> {
        // SAFETY: loads the vendor's library, as any program does that watches devices.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return None;
        }
        let init = function!(library, c"nvmlInit_v2" as Init)?;
        // SAFETY: takes nothing and may be called at any time.
        let started = unsafe { init() };
        (started == NvmlReturn::SUCCESS).then_some(())?;
        Some(Self {
            version: function!(library, c"nvmlSystemGetDriverVersion" as Version),
            by_uuid: function!(library, c"nvmlDeviceGetHandleByUUID" as ByUuid)?,
            memory: function!(library, c"nvmlDeviceGetMemoryInfo" as Memory)?,
            utilisation: function!(library, c"nvmlDeviceGetUtilizationRates" as Utilisation)?,
        })
    }

    /// What it says of a device; nothing where it does not know it. Drivers that do not measure use say 0.
    pub(super) fn look(&self, uuid: &[u8; 16]) -> Option<Gauges> {
        let text = CString::new(uuid_text(uuid)).ok()?;
        let mut device = NvmlDevice(std::ptr::null_mut());
        // SAFETY: a terminated text and a place for a handle.
        let found = unsafe { (self.by_uuid)(text.as_ptr(), &raw mut device) };
        (found == NvmlReturn::SUCCESS).then_some(())?;
        let (mut memory, mut utilisation) = (NvmlMemory::default(), NvmlUtilization::default());
        // SAFETY: a handle that was just given, and a place for the structure.
        let told = unsafe { (self.memory)(device, &raw mut memory) };
        (told == NvmlReturn::SUCCESS).then_some(())?;
        // SAFETY: as above. What it comes to is in the structure, which stays 0 otherwise.
        let _status = unsafe { (self.utilisation)(device, &raw mut utilisation) };
        Some(Gauges {
            total: memory.total,
            free: memory.free,
            used: memory.used,
            busy: utilisation.gpu,
            memory_busy: utilisation.memory,
            driver: self.driver(),
        })
    }

    fn driver(&self) -> String {
        let mut text = [0u8; TEXT_BYTES as usize];
        if let Some(version) = self.version {
            // SAFETY: a buffer of so many bytes, the last of which is left over for the end.
            let _status = unsafe { version(text.as_mut_ptr().cast(), TEXT_BYTES - 1) };
        }
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}
