//! The genuine driver's own functions, as far as they are asked anything. None makes or needs a context.
#![expect(unsafe_code, reason = "calls functions of a C library")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::types::{CUcontext, CUdevice, CUenum, CUresult, CUuuid};

use super::tables::CUDART_INTERFACE;
use crate::client::{Answer, raw};

/// Finds a function of the genuine driver; null if it has none of that name.
pub type Find = fn(&CStr) -> *mut c_void;

/// `CUDART_INTERFACE`'s function that tells a primary context's handle without activating it, and the bytes a table must
/// have to hold it.
const PRIMARY_SLOT: usize = 2;
const PRIMARY_TABLE_BYTES: usize = 8 * (PRIMARY_SLOT + 1);

fn answer(status: CUresult) -> Answer {
    if status.is_success() { Ok(()) } else { Err(status) }
}

macro_rules! functions {
    ($($field:ident = $name:literal ($($arg:ident: $ty:ty),*);)*) => {
        /// A loaded driver.
        #[derive(Debug)]
        pub(in crate::client) struct Genuine {
            $($field: unsafe extern "C" fn($($ty),*) -> CUresult,)*
        }

        impl Genuine {
            /// Its functions; `None` if one is missing, as no driver since CUDA 12 lacks any.
            pub(super) fn load(find: Find) -> Option<Self> {
                $(
                    let address = find($name);
                    // SAFETY: the driver's function of this name has this signature (`cuda.h`); null becomes None.
                    let $field = unsafe {
                        core::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($ty),*) -> CUresult>>(address)
                    }?;
                )*
                Some(Self { $($field,)* })
            }

            $(
                /// The driver's own answer, with the program's own arguments.
                pub(in crate::client) fn $field(&self, $($arg: $ty),*) -> Answer {
                    // SAFETY: every pointer is the program's, which the driver API obliges to pass valid ones, or a local.
                    answer(unsafe { (self.$field)($($arg),*) })
                }
            )*
        }
    };
}

functions! {
    init = c"cuInit" (flags: c_uint);
    version = c"cuDriverGetVersion" (version: *mut c_int);
    count = c"cuDeviceGetCount" (count: *mut c_int);
    device = c"cuDeviceGet" (device: *mut CUdevice, ordinal: c_int);
    name = c"cuDeviceGetName" (name: *mut c_char, length: c_int, device: CUdevice);
    uuid = c"cuDeviceGetUuid" (uuid: *mut CUuuid, device: CUdevice);
    uuid_v2 = c"cuDeviceGetUuid_v2" (uuid: *mut CUuuid, device: CUdevice);
    pci = c"cuDeviceGetPCIBusId" (text: *mut c_char, length: c_int, device: CUdevice);
    by_pci = c"cuDeviceGetByPCIBusId" (device: *mut CUdevice, text: *const c_char);
    attribute = c"cuDeviceGetAttribute" (value: *mut c_int, attribute: CUenum, device: CUdevice);
    memory = c"cuDeviceTotalMem_v2" (bytes: *mut usize, device: CUdevice);
    table = c"cuGetExportTable" (table: *mut *const c_void, id: *const CUuuid);
}

impl Genuine {
    /// How many devices it has; none before it is started.
    pub(in crate::client) fn devices(&self) -> c_int {
        let mut count = 0;
        if self.count(&raw mut count).is_ok() { count } else { 0 }
    }

    /// The handle its primary context of a device has or will have.
    pub(super) fn primary(&self, device: CUdevice) -> Result<usize, CUresult> {
        type Primary = unsafe extern "C" fn(*mut CUcontext, CUdevice) -> CUresult;
        let mut table: *const c_void = core::ptr::null();
        self.table(&raw mut table, &CUDART_INTERFACE)?;
        let slots: *const usize = table.cast();
        if raw::load(slots)? < PRIMARY_TABLE_BYTES {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let function = raw::load_at(slots.cast::<*const c_void>(), PRIMARY_SLOT)?;
        // SAFETY: what every driver since CUDA 11 has there; the runtime library calls it so. Null becomes None.
        let primary = unsafe { core::mem::transmute::<*const c_void, Option<Primary>>(function) };
        let mut context = CUcontext::NULL;
        // SAFETY: a place for a handle, and a device of this driver.
        answer(unsafe { primary.ok_or(CUresult::ERROR_NOT_SUPPORTED)?(&raw mut context, device) })?;
        if context.is_null() { Err(CUresult::ERROR_INVALID_CONTEXT) } else { Ok(context.addr()) }
    }
}
