//! The real driver, found as any program finds it, so that the hook stands in front of it.
#![expect(unsafe_code, reason = "calls the driver's C functions")]

use std::ffi::{CStr, CString, c_void};

use headgate_abi::ahead;
use headgate_abi::cuda::symbols::{COUNT, SYMBOLS, Symbol};
use headgate_abi::cuda::types::*;
use headgate_abi::remote_way;
use thiserror::Error;

use crate::word::Word;

const LIBRARY: &CStr = c"libcuda.so.1";
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const RELAXED: u32 = 2;

/// Why there is no driver.
#[derive(Debug, Error)]
pub enum NoDriver {
    /// The library cannot be loaded.
    #[error("libcuda.so.1 cannot be loaded: {0}; is there an NVIDIA driver on this node?")]
    Library(String),
    /// It refuses to start.
    #[error("the driver refuses to start: {0:?}")]
    Start(CUresult),
}

type Typed = unsafe fn(*mut c_void, &[u64]) -> CUresult;

macro_rules! typed {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[allow(non_snake_case, reason = "the names are those of the driver API")]
        pub(super) unsafe fn $name(entry: *mut c_void, words: &[u64]) -> CUresult {
            type Entry = unsafe extern "C" fn($($ty),*) -> CUresult;
            // SAFETY: the caller passes the driver's function of this row, whose signature the table holds.
            let entry: Entry = unsafe { std::mem::transmute(entry) };
            let [$($arg),*] = first(words);
            $(let $arg = <$ty as Word>::from_word($arg);)*
            // SAFETY: the caller passes arguments that the driver API's documentation allows.
            unsafe { entry($($arg),*) }
        }
    };
}

/// As many words as a call has arguments; what is missing is 0.
fn first<const N: usize>(words: &[u64]) -> [u64; N] {
    let mut all = [0; N];
    for (place, word) in all.iter_mut().zip(words) {
        *place = *word;
    }
    all
}

macro_rules! none {
    ($base:ident) => {
        None
    };
}

macro_rules! nothing {
    ($base:ident) => {};
}

macro_rules! tables {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        mod typed {
            use core::ffi::{c_char, c_int, c_uint};

            use super::*;
            $(remote_way! { $name,
                own { typed! { $name ($($arg: $ty),*) } }
                plain { typed! { $name ($($arg: $ty),*) } }
                twin nothing {}
                absent {}
            })*
        }

        static TYPED: [Option<Typed>; COUNT] = [$(remote_way! { $name,
            own { Some(typed::$name as Typed) }
            plain { Some(typed::$name as Typed) }
            twin none {}
            absent { None }
        },)*];
    };
}
headgate_abi::cuda_symbols!(tables);

/// The loaded driver.
#[derive(Debug)]
pub(super) struct Driver {
    entries: Vec<usize>,
}

impl Driver {
    /// Loads and starts it.
    pub(super) fn load() -> Result<Self, NoDriver> {
        // SAFETY: loads the vendor's library, as any CUDA program does. It stays loaded: entry points of it are kept.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(NoDriver::Library(last_error()));
        }
        let entries = SYMBOLS.iter().map(|symbol| look_up(handle, symbol.row().elf_name)).collect();
        let driver = Self { entries };
        match driver.call(Symbol::cuInit, &[0]) {
            CUresult::SUCCESS => Ok(driver),
            status => Err(NoDriver::Start(status)),
        }
    }

    /// Whether it has a function.
    pub(super) fn has(&self, symbol: Symbol) -> bool {
        self.entries[symbol.index()] != 0
    }

    /// Calls a function. Words that stand for pointers must be what the driver API's documentation asks for; handles
    /// and addresses of the device the driver checks itself.
    pub(super) fn call(&self, symbol: Symbol, words: &[u64]) -> CUresult {
        match (self.entries[symbol.index()], TYPED[symbol.index()]) {
            (entry, Some(typed)) if entry != 0 => {
                // SAFETY: the entry is the driver's function of the row; the words are as said above.
                unsafe { typed(std::ptr::with_exposed_provenance_mut(entry), words) }
            }
            _ => CUresult::ERROR_NOT_SUPPORTED,
        }
    }
}

/// What the hook has for a worker ([`headgate_abi::ahead`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) holds: ahead::Holds,
    pub(super) called: ahead::Called,
    pub(super) answered: ahead::Answered,
}

impl Driver {
    /// Has calls of this thread harm no capture: whose calls may do so, the client decides by its own threads.
    pub(super) fn relax_captures(&self) {
        let mut mode = RELAXED;
        let place = (&raw mut mode).expose_provenance() as u64;
        if self.has(Symbol::cuThreadExchangeStreamCaptureMode) {
            let _status = self.call(Symbol::cuThreadExchangeStreamCaptureMode, &[place]);
        }
    }

    /// The hook's functions for memory taken ahead, where there is a hook.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        let (holds, called) = (self.of_hook(ahead::HOLDS)?, self.of_hook(ahead::CALLED)?);
        let answered = self.of_hook(ahead::ANSWERED)?;
        // SAFETY: only the hook knows these names, and what it has under them is of these types.
        let holds = unsafe { std::mem::transmute::<*const c_void, ahead::Holds>(holds) };
        // SAFETY: as above.
        let called = unsafe { std::mem::transmute::<*const c_void, ahead::Called>(called) };
        // SAFETY: as above.
        let answered = unsafe { std::mem::transmute::<*const c_void, ahead::Answered>(answered) };
        Some(Ahead { holds, called, answered })
    }

    fn of_hook(&self, name: &CStr) -> Option<*const c_void> {
        /// The first version in which the driver has this look-up.
        const VERSION: u64 = 12_000;
        let (mut found, mut status) = (0u64, 0u32);
        let (place, told) = ((&raw mut found).expose_provenance(), (&raw mut status).expose_provenance());
        let name = name.as_ptr().expose_provenance() as u64;
        let words = [name, place as u64, VERSION, 0, told as u64];
        let known = self.call(Symbol::cuGetProcAddress_v2, &words).is_success() && found != 0;
        known.then(|| std::ptr::with_exposed_provenance(usize::try_from(found).unwrap_or(0)))
    }

    /// A step of checkpointing this process; `args` are those of the step, or null. No client asks for one: they have no
    /// class in the table.
    pub(super) fn checkpoint_step(&self, symbol: Symbol, args: *mut c_void) -> CUresult {
        type Step = unsafe extern "C" fn(i32, *mut c_void) -> CUresult;
        let entry: *mut c_void = std::ptr::with_exposed_provenance_mut(self.entries[symbol.index()]);
        let (false, Ok(own)) = (entry.is_null(), i32::try_from(std::process::id())) else {
            return CUresult::ERROR_NOT_SUPPORTED;
        };
        // SAFETY: the driver's functions of these names have this signature (cuda.h).
        let step = unsafe { std::mem::transmute::<*mut c_void, Step>(entry) };
        // SAFETY: the caller passes the step's arguments, or none.
        unsafe { step(own, args) }
    }

    /// Copies memory that the driver has just handed out: it says where it is and how long.
    pub(super) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let from: *const u8 = std::ptr::with_exposed_provenance(usize::try_from(address).unwrap_or(0));
        if from.is_null() || bytes == 0 {
            return Vec::new();
        }
        // SAFETY: the driver keeps so many readable bytes there until the object they belong to ends, which is later.
        unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec()
    }
}

fn look_up(handle: *mut c_void, name: &str) -> usize {
    let Ok(name) = CString::new(name) else { return 0 };
    // SAFETY: a handle of dlopen and a terminated name.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    found.expose_provenance()
}

fn last_error() -> String {
    // SAFETY: tells of this thread's last failure; the text is the loader's own.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: not null, hence a terminated text that is valid until the next call of the loader.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
