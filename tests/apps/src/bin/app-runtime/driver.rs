//! The driver, found as a runtime library finds it: four names from the loader, everything else from the driver's own
//! look-up, by version, and without asking for a status.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use anyhow::{Context, Result, ensure};

/// `CUresult`.
pub(crate) type Code = u32;

/// Fails where a call was not answered as expected.
#[track_caller]
pub(crate) fn expect(what: &str, code: Code, wanted: Code) -> Result<()> {
    ensure!(code == wanted, "{what}: error {code}, expected {wanted}");
    Ok(())
}

type GetProcAddress = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut c_uint) -> Code;
type GetExportTable = unsafe extern "C" fn(*mut *const usize, *const u128) -> Code;

macro_rules! driver {
    ($($field:ident = $name:literal $version:literal $flags:literal ($($arg:ident: $ty:ty),*);)*) => {
        /// Functions of the driver.
        #[derive(Debug)]
        pub(crate) struct Driver {
            /// As `cuDriverGetVersion` tells it.
            pub(crate) version: c_int,
            get_export_table: GetExportTable,
            init: unsafe extern "C" fn(c_uint) -> Code,
            $($field: unsafe extern "C" fn($($ty),*) -> Code,)*
        }

        impl Driver {
            /// Loads it and looks everything up, before it is started.
            pub(crate) fn load() -> Result<Self> {
                // SAFETY: loads the driver's library, as the text says.
                let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
                ensure!(!library.is_null(), "there is no libcuda.so.1");
                let named = |name: &CStr| -> Result<*mut c_void> {
                    // SAFETY: a valid handle and a terminated name.
                    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
                    ensure!(!found.is_null(), "the loader does not find {name:?}");
                    Ok(found)
                };
                // SAFETY: the driver's functions of these names have these signatures (`cuda.h`).
                let init = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_uint) -> Code>(named(c"cuInit")?) };
                // SAFETY: as above.
                let told = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_int) -> Code>(named(c"cuDriverGetVersion")?) };
                // SAFETY: as above.
                let get_export_table = unsafe { core::mem::transmute::<*mut c_void, GetExportTable>(named(c"cuGetExportTable")?) };
                // SAFETY: as above.
                let look_up = unsafe { core::mem::transmute::<*mut c_void, GetProcAddress>(named(c"cuGetProcAddress_v2")?) };
                let find = |name: &CStr, version: c_int, flags: u64| {
                    let mut found = core::ptr::null_mut();
                    // SAFETY: a terminated name, a place for an address, and no place for a status.
                    let code = unsafe { look_up(name.as_ptr(), &raw mut found, version, flags, core::ptr::null_mut()) };
                    if code == 0 { found } else { core::ptr::null_mut() }
                };
                // The first question of all, whose answer nobody uses.
                ensure!(find(c"", 0, 0).is_null(), "nothing has a function");
                ensure!(find(c"cuNoSuchFunction", 12_000, 0).is_null(), "a function that nobody has");
                let mut version = 0;
                // SAFETY: a place for a number.
                expect("cuDriverGetVersion", unsafe { told(&raw mut version) }, 0)?;
                $(
                    let found = find($name, $version, $flags);
                    // SAFETY: the form of this version has this signature (`cudaTypedefs.h`); null becomes None.
                    let $field = unsafe {
                        core::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($ty),*) -> Code>>(found)
                    }
                    .with_context(|| format!("{:?} is not found in version {}", $name, $version))?;
                )*
                let thread_s = find(c"cuMemcpyHtoD", 7_000, 2);
                ensure!(!thread_s.is_null() && thread_s != find(c"cuMemcpyHtoD", 3_020, 0), "per-thread forms");
                Ok(Self { version, get_export_table, init, $($field,)* })
            }

            /// `cuInit`.
            pub(crate) fn init(&self) -> Code {
                // SAFETY: no pointers.
                unsafe { (self.init)(0) }
            }

            /// A private table, as the address of its first word; `None` where it is refused.
            pub(crate) fn table(&self, id: u128) -> Option<*const usize> {
                let (mut table, id) = (core::ptr::null(), id.to_be());
                // SAFETY: a place for an address, and 16 bytes.
                let code = unsafe { (self.get_export_table)(&raw mut table, &raw const id) };
                (code == 0 && !table.is_null()).then_some(table)
            }

            $(
                /// The driver's function.
                #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
                pub(crate) fn $field(&self, $($arg: $ty),*) -> Code {
                    // SAFETY: this program passes places and memory that live as long as the call.
                    unsafe { (self.$field)($($arg),*) }
                }
            )*
        }
    };
}

driver! {
    loading_mode = c"cuModuleGetLoadingMode" 11070 0 (mode: *mut c_uint);
    device_count = c"cuDeviceGetCount" 2000 0 (count: *mut c_int);
    device = c"cuDeviceGet" 2000 0 (device: *mut c_int, ordinal: c_int);
    device_name = c"cuDeviceGetName" 2000 0 (name: *mut c_char, length: c_int, device: c_int);
    device_memory = c"cuDeviceTotalMem" 3020 0 (bytes: *mut usize, device: c_int);
    device_attribute = c"cuDeviceGetAttribute" 2000 0 (value: *mut c_int, attribute: c_uint, device: c_int);
    device_uuid = c"cuDeviceGetUuid" 9020 0 (uuid: *mut [u8; 16], device: c_int);
    device_uuid_v2 = c"cuDeviceGetUuid" 11040 0 (uuid: *mut [u8; 16], device: c_int);
    current = c"cuCtxGetCurrent" 4000 0 (context: *mut usize);
    set_current = c"cuCtxSetCurrent" 4000 0 (context: usize);
    push = c"cuCtxPushCurrent" 4000 0 (context: usize);
    pop = c"cuCtxPopCurrent" 4000 0 (context: *mut usize);
    context_device = c"cuCtxGetDevice" 2000 0 (device: *mut c_int);
    context_device_of = c"cuCtxGetDevice" 13000 0 (device: *mut c_int, context: usize);
    context_version = c"cuCtxGetApiVersion" 3020 0 (context: usize, version: *mut c_uint);
    context_flags = c"cuCtxGetFlags" 7000 0 (flags: *mut c_uint);
    synchronise = c"cuCtxSynchronize" 2000 0 ();
    synchronise_of = c"cuCtxSynchronize" 13000 0 (context: usize);
    retain = c"cuDevicePrimaryCtxRetain" 7000 0 (context: *mut usize, device: c_int);
    release = c"cuDevicePrimaryCtxRelease" 7000 0 (device: c_int);
    reset = c"cuDevicePrimaryCtxReset" 7000 0 (device: c_int);
    state = c"cuDevicePrimaryCtxGetState" 7000 0 (device: c_int, flags: *mut c_uint, active: *mut c_int);
    set_flags = c"cuDevicePrimaryCtxSetFlags" 11000 0 (device: c_int, flags: c_uint);
    alloc = c"cuMemAlloc" 3020 0 (address: *mut u64, bytes: usize);
    alloc_async = c"cuMemAllocAsync" 11020 0 (address: *mut u64, bytes: usize, stream: usize);
    free = c"cuMemFree" 3020 0 (address: u64);
    to_device = c"cuMemcpyHtoD" 3020 0 (to: u64, from: *const c_void, bytes: usize);
    to_host = c"cuMemcpyDtoH" 3020 0 (to: *mut c_void, from: u64, bytes: usize);
    fill = c"cuMemsetD8" 3020 0 (to: u64, value: u8, bytes: usize);
    library_load = c"cuLibraryLoadData" 12000 0 (library: *mut usize, code: *const c_void, a: usize, b: usize, c: c_uint, options: *const c_uint, values: *const usize, count: c_uint);
    library_unload = c"cuLibraryUnload" 12000 0 (library: usize);
    library_module = c"cuLibraryGetModule" 12000 0 (module: *mut usize, library: usize);
    library_kernel = c"cuLibraryGetKernel" 12000 0 (kernel: *mut usize, library: usize, name: *const c_char);
    function = c"cuModuleGetFunction" 2000 0 (function: *mut usize, module: usize, name: *const c_char);
    launch = c"cuLaunchKernel" 4000 0 (function: usize, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: usize, params: *const *const c_void, extra: usize);
}
