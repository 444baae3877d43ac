//! The ways by which programs come by the driver's functions, one a process: a way that misses the hook escapes the
//! quota. Complaint groups 17 and 18.
//!
//! Nothing here goes through cudarc: each way uses the C library's own look-ups and the pointers they give.
#![expect(unsafe_code, reason = "calls C functions through pointers found by name")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use crate::gpu::UNIT;

type Handle = *mut c_void;
type Status = c_uint;

/// Calls a function by pointer.
macro_rules! call {
    ($function:expr, ($($ty:ty),*), ($($argument:expr),*)) => {{
        type Pointer = unsafe extern "C" fn($($ty),*) -> Status;
        // SAFETY: found by the name of a function that has this signature in NVIDIA's documentation.
        let function = unsafe { std::mem::transmute::<Handle, Pointer>($function) };
        // SAFETY: arguments as the documentation says; outputs are valid for writing or null where that is tested.
        unsafe { function($($argument),*) }
    }};
}

/// A function: its name in the symbol table, its base name and version for `cuGetProcAddress`.
type Function = (&'static CStr, &'static CStr, c_int);

/// The functions a route needs.
const FUNCTIONS: [Function; 5] = [
    (c"cuInit", c"cuInit", 2000),
    (c"cuDevicePrimaryCtxRetain", c"cuDevicePrimaryCtxRetain", 7000),
    (c"cuCtxSetCurrent", c"cuCtxSetCurrent", 4000),
    (c"cuMemAlloc_v2", c"cuMemAlloc", 3020),
    (c"cuMemAllocAsync", c"cuMemAllocAsync", 11020),
];

/// A way: its name, and the functions in the order of [`FUNCTIONS`].
type Way = (&'static str, fn(&Path) -> Result<[Handle; 5], String>);

/// All of them. The path is a folder of the way's own, for copies of libraries.
pub const WAYS: &[Way] = &[
    ("dlsym-handle", |_| by(driver()?, plain)),
    ("dlopen-by-path", |_| by(open(&path_of_driver()?, libc::RTLD_NOW)?, plain)),
    ("dlsym-default", |_| by(everywhere(libc::RTLD_DEFAULT)?, plain)),
    ("dlsym-next", |_| by(everywhere(libc::RTLD_NEXT)?, plain)),
    ("dlsym-by-dlvsym", |_| by(driver()?, |library, name| called(dlvsym(c"dlsym"), library, name.0))),
    ("dlsym-of-dlsym", |_| by(driver()?, |library, name| dlsym_by(libc::RTLD_DEFAULT, library, name.0))),
    ("dlsym-of-libc", |_| {
        let c_library = open(c"libc.so.6", libc::RTLD_NOW)?;
        by(driver()?, |library, name| dlsym_by(c_library, library, name.0))
    }),
    ("cuGetProcAddress", |_| by(driver()?, |library, name| asked(library, name, 0, false))),
    ("cuGetProcAddress_v2", |_| by(driver()?, |library, name| asked(library, name, 1, true))),
    ("per-thread", |_| by(driver()?, |library, name| asked(library, name, 2, true))),
    ("copied-driver", |at| by(open(&copy(at, "libcuda.so.1")?, libc::RTLD_NOW)?, plain)),
    ("renamed-driver", |at| by(open(&copy(at, "libvendor.so")?, libc::RTLD_NOW)?, plain)),
    ("dlmopen", |_| by(new_namespace()?, plain)),
];

/// Starts CUDA by a way and takes units until one is refused: how many, and the code that refused.
///
/// # Errors
/// When the way finds no functions or CUDA does not start.
pub fn take(way: &str, scratch: &Path) -> Result<(u64, Status), String> {
    let (_, find) = WAYS.iter().find(|(name, _)| *name == way).ok_or(format!("no way {way}"))?;
    let [init, retain, current, plain, stream_ordered] = find(scratch)?;
    let started = call!(init, (c_uint), (0));
    if started != 0 {
        return Err(format!("cuInit: {started}"));
    }
    let mut context = null_mut();
    let retained = call!(retain, (*mut Handle, c_int), (&raw mut context, 0));
    let entered = call!(current, (Handle), (context));
    if retained != 0 || entered != 0 {
        return Err(format!("a context: {retained}, {entered}"));
    }
    let (mut units, mut address) = (0u64, 0u64);
    let bytes = usize::try_from(UNIT).unwrap_or(usize::MAX);
    loop {
        // Both kinds by turns, so that neither escapes.
        let status = if units.is_multiple_of(2) {
            call!(plain, (*mut u64, usize), (&raw mut address, bytes))
        } else {
            call!(stream_ordered, (*mut u64, usize, Handle), (&raw mut address, bytes, null_mut()))
        };
        if status != 0 {
            return Ok((units, status));
        }
        units += 1;
    }
}

/// What `cuGetProcAddress` answers to many questions, one a line, by the names of what it gives: the same natively and
/// under the hook, whose functions bear the names of those they stand in front of.
///
/// # Errors
/// When there is no driver.
pub fn answers() -> Result<Vec<String>, String> {
    let driver = open(c"libcuda.so.1", libc::RTLD_NOW)?;
    let names = [
        c"cuInit",
        c"cuMemAlloc",
        c"cuMemAlloc_v2",
        c"cuMemFree",
        c"cuMemGetInfo",
        c"cuDeviceTotalMem",
        c"cuMemAllocAsync",
        c"cuMemAllocFromPoolAsync",
        c"cuMemFreeAsync",
        c"cuLaunchKernel",
        c"cuLaunchKernelEx",
        c"cuLaunchCooperativeKernel",
        c"cuGraphLaunch",
        c"cuGraphInstantiate",
        c"cuStreamBeginCapture",
        c"cuStreamBatchMemOp",
        c"cuMemcpy",
        c"cuMemcpyHtoD",
        c"cuCtxCreate",
        c"cuIpcOpenMemHandle",
        c"cuArrayCreate",
        c"cuMemCreate",
        c"cuMulticastCreate",
        c"cuGetProcAddress",
        c"cuStreamSynchronize",
        c"cuEventRecord",
        c"cuDevicePrimaryCtxRelease",
        c"cuNoSuchFunction",
        c"",
        c"nvmlInit",
    ];
    let mut lines = Vec::new();
    for name in names {
        for version in [
            0, 2000, 3020, 4000, 6050, 7000, 9000, 10_000, 11_000, 11_020, 11_030, 11_080, 12_000, 12_080,
            13_000,
        ] {
            for flags in [0u64, 1, 2, 3, 4, 1 << 40] {
                let (mut first, mut second, mut state) = (null_mut(), null_mut(), 77);
                let (one, two) = (dlsym(driver, c"cuGetProcAddress"), dlsym(driver, c"cuGetProcAddress_v2"));
                let by_first = call!(
                    one,
                    (*const c_char, *mut Handle, c_int, u64),
                    (name.as_ptr(), &raw mut first, version, flags)
                );
                let by_second = call!(
                    two,
                    (*const c_char, *mut Handle, c_int, u64, *mut c_uint),
                    (name.as_ptr(), &raw mut second, version, flags, &raw mut state)
                );
                let (first, second) = (name_at(first), name_at(second));
                lines.push(format!(
                    "{name:?} {version} {flags}: {by_first} {first}, {by_second} {second} {state}"
                ));
            }
        }
    }
    let two = dlsym(driver, c"cuGetProcAddress_v2");
    let nowhere: *mut Handle = null_mut();
    let status = call!(
        two,
        (*const c_char, *mut Handle, c_int, u64, *mut c_uint),
        (c"cuInit".as_ptr(), nowhere, 12_000, 0, null_mut())
    );
    lines.push(format!("nowhere to put it: {status}"));
    Ok(lines)
}

/// The library that a driver function of that name lies in, as a program that looks it up after start finds it.
///
/// # Errors
/// When there is no driver or no such function.
pub fn home_of(name: &CStr) -> Result<PathBuf, String> {
    let found = dlsym(open(c"libcuda.so.1", libc::RTLD_NOW)?, name);
    library_at(found).ok_or(format!("{name:?} is nowhere"))
}

fn by(library: Handle, find: impl Fn(Handle, Function) -> Handle) -> Result<[Handle; 5], String> {
    let mut found = [null_mut(); 5];
    for (function, slot) in FUNCTIONS.into_iter().zip(&mut found) {
        *slot = find(library, function);
        if slot.is_null() {
            return Err(format!("{:?} is not found this way", function.0));
        }
    }
    Ok(found)
}

fn plain(library: Handle, name: Function) -> Handle {
    dlsym(library, name.0)
}

fn dlsym(library: Handle, name: &CStr) -> Handle {
    // SAFETY: a valid handle and a terminated name.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// A function of the C library by the version it has had since x86-64 began, as layers find the `dlsym` behind theirs.
fn dlvsym(name: &CStr) -> Handle {
    // SAFETY: a pseudo handle and terminated names.
    unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), c"GLIBC_2.2.5".as_ptr()) }
}

/// `dlsym` as `dlsym` itself finds it in `place`, as layers do that stand in front of it.
fn dlsym_by(place: Handle, library: Handle, name: &CStr) -> Handle {
    called(dlsym(place, c"dlsym"), library, name)
}

/// What the `dlsym` at this address finds.
fn called(found: Handle, library: Handle, name: &CStr) -> Handle {
    type Dlsym = unsafe extern "C" fn(Handle, *const c_char) -> Handle;
    if found.is_null() {
        return found;
    }
    // SAFETY: the function of that name has this signature.
    let again = unsafe { std::mem::transmute::<Handle, Dlsym>(found) };
    // SAFETY: a valid handle and a terminated name.
    unsafe { again(library, name.as_ptr()) }
}

fn asked(library: Handle, (_, base, version): Function, flags: u64, second: bool) -> Handle {
    let (mut found, mut state) = (null_mut(), 0);
    let get = dlsym(library, if second { c"cuGetProcAddress_v2" } else { c"cuGetProcAddress" });
    let status = if get.is_null() {
        1
    } else if second {
        call!(
            get,
            (*const c_char, *mut Handle, c_int, u64, *mut c_uint),
            (base.as_ptr(), &raw mut found, version, flags, &raw mut state)
        )
    } else {
        call!(get, (*const c_char, *mut Handle, c_int, u64), (base.as_ptr(), &raw mut found, version, flags))
    };
    if status == 0 { found } else { null_mut() }
}

fn driver() -> Result<Handle, String> {
    open(c"libcuda.so.1", libc::RTLD_NOW)
}

fn open(name: &CStr, flags: c_int) -> Result<Handle, String> {
    // SAFETY: a terminated name; loads the driver, as any program does.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if handle.is_null() { Err(format!("{name:?} does not load")) } else { Ok(handle) }
}

/// Has the driver's names in the global scope, where `RTLD_DEFAULT` and `RTLD_NEXT` look.
fn everywhere(scope: Handle) -> Result<Handle, String> {
    open(c"libcuda.so.1", libc::RTLD_NOW | libc::RTLD_GLOBAL).map(|_| scope)
}

fn new_namespace() -> Result<Handle, String> {
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
    // SAFETY: a terminated name; a namespace of its own.
    let handle = unsafe { libc::dlmopen(libc::LM_ID_NEWLM, c"libcuda.so.1".as_ptr(), flags) };
    if handle.is_null() {
        Err("the driver does not load into a namespace of its own".into())
    } else {
        Ok(handle)
    }
}

/// Where the loader finds the driver, without leaving it loaded in this process.
fn path_of_driver() -> Result<CString, String> {
    let folders = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"].map(PathBuf::from);
    let found = std::env::split_paths(&folders)
        .chain(usual)
        .map(|folder| folder.join("libcuda.so.1"))
        .find_map(|path| path.canonicalize().ok())
        .ok_or("no libcuda.so.1 in the usual places")?;
    CString::new(found.into_os_string().into_encoded_bytes()).map_err(|error| error.to_string())
}

fn copy(folder: &Path, name: &str) -> Result<CString, String> {
    let driver = path_of_driver()?;
    let to = folder.join(name);
    let from = driver.to_str().map_err(|error| error.to_string())?;
    std::fs::copy(from, &to).map_err(|error| format!("copying the driver: {error}"))?;
    CString::new(to.into_os_string().into_encoded_bytes()).map_err(|error| error.to_string())
}

/// The loader's record of what lies at an address.
fn record(at: Handle) -> Option<libc::Dl_info> {
    // SAFETY: an all-zero record is a valid value to be filled in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked about; the record is valid for writing.
    let known = unsafe { libc::dladdr(at, &raw mut info) };
    (known != 0).then_some(info)
}

fn library_at(at: Handle) -> Option<PathBuf> {
    let path = record(at)?.dli_fname;
    // SAFETY: the loader's own terminated text, or null.
    (!path.is_null()).then(|| PathBuf::from(unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned()))
}

fn name_at(at: Handle) -> String {
    if at.is_null() {
        return "nothing".into();
    }
    let name = record(at).map_or(std::ptr::null(), |info| info.dli_sname);
    if name.is_null() {
        return "something without a name".into();
    }
    // SAFETY: the loader's own terminated text.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
