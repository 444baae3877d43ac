//! The private tables a runtime library asks for, in its order, and the test by which it knows its driver.
//!
//! The test is that of the simulated driver, which says what it is computed from; on a genuine driver this program ends
//! here.

use core::ffi::{c_int, c_uint, c_void};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::driver::{Code, Driver, expect};

const CUDART_INTERFACE: u128 = 0x6bd5_fb6c_5bf4_e74a_8987_d939_12fd_9df9;
const RUNTIME_HOOKS: u128 = 0xa094_798c_2e74_2e74_93f2_0800_200c_0a66;
const TOOLS_TLS: u128 = 0x42d8_5a81_23f6_cb47_8298_f6e7_8a3a_ecdc;
const CONTEXT_LOCAL_STORAGE: u128 = 0xc693_336e_1121_df11_a8c3_68f3_55d8_9593;
const CONTEXT_CHECKS: u128 = 0x263e_8860_7cd2_6143_92f6_bbd5_006d_fa7e;
const INTEGRITY_CHECK: u128 = 0xd408_2055_bde6_704b_8d34_ba12_3c66_e1f2;
const ERROR_TEXTS: u128 = 0xf8cf_f951_2146_8b4e_b9e2_fb46_9e7c_0dd9;
const SINCE_13_4: u128 = 0x2131_8c60_9714_3248_8ca6_41ff_7324_c8f2;
const NOBODY_S: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

/// Attributes that runtimes of CUDA 12 and 13 ask of every device. An error for any one of them is fatal.
const ATTRIBUTES: [(u32, u32); 14] = [
    (1, 19),
    (21, 43),
    (45, 91),
    (95, 97),
    (99, 101),
    (106, 106),
    (108, 109),
    (111, 121),
    (125, 125),
    (129, 131),
    (133, 134),
    (139, 140),
    (143, 143),
    (20, 20),
];
/// Functions of the newest known runtime: so many flags are read.
const FLAGS_MIN: usize = 567;
const OTHER_FLAGS_MIN: usize = 14;

/// What a destructor is called with: context, key, value.
pub(crate) type Destructor = extern "C" fn(usize, usize, usize);

/// Context-local storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    put: extern "C" fn(usize, usize, usize, Option<Destructor>) -> Code,
    delete: extern "C" fn(usize, usize) -> Code,
    get: extern "C" fn(*mut usize, usize, usize) -> Code,
}

impl Storage {
    pub(crate) fn put(&self, context: usize, key: usize, value: usize, destructor: Destructor) -> Code {
        (self.put)(context, key, value, Some(destructor))
    }

    pub(crate) fn delete(&self, context: usize, key: usize) -> Code {
        (self.delete)(context, key)
    }

    /// The value, or the error.
    pub(crate) fn get(&self, context: usize, key: usize) -> Result<usize, Code> {
        let mut value = 0;
        match (self.get)(&raw mut value, context, key) {
            0 => Ok(value),
            code => Err(code),
        }
    }
}

/// What start-up found.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) storage: Storage,
    check: extern "C" fn(usize, *mut u32, *mut usize) -> Code,
    /// Handle of the first device's primary context.
    pub(crate) primary: usize,
    /// Who the devices are.
    pub(crate) devices: Vec<Value>,
    /// What the first one can do: multiprocessors and bytes of memory.
    pub(crate) can: Value,
}

impl Started {
    /// Nothing must be wrong with a context.
    pub(crate) fn check(&self, context: usize) -> Result<()> {
        let (mut result, mut more) = (u32::MAX, 0);
        expect("checking a context", (self.check)(context, &raw mut result, &raw mut more), 0)?;
        ensure!(result == 0, "something is wrong with the context: {result}");
        Ok(())
    }
}

/// A function of a table.
///
/// # Safety
/// `F` is the type of the function pointer in that slot.
unsafe fn slot<F: Copy>(table: *const usize, index: usize) -> Result<F> {
    // SAFETY: tables have at least the slots that are asked for here, and live for good.
    let word = unsafe { table.wrapping_add(index).read() };
    ensure!(word != 0, "slot {index} is empty");
    // SAFETY: as promised to this function; a function pointer is a word.
    Ok(unsafe { core::mem::transmute_copy::<usize, F>(&word) })
}

/// Starts the driver in the order of a runtime library, and tests it.
pub(crate) fn start(driver: &Driver) -> Result<Started> {
    ensure!(driver.table(ERROR_TEXTS).is_none(), "a table is offered whose functions nobody has");
    ensure!(driver.table(NOBODY_S).is_none(), "a table is offered that nobody knows");
    expect("cuInit", driver.init(), 0)?;
    let interface = driver.table(CUDART_INTERFACE).context("no CUDART_INTERFACE")?;
    let hooks = driver.table(RUNTIME_HOOKS).context("no TOOLS_RUNTIME_CALLBACK_HOOKS")?;
    let mut mode = 0;
    expect("cuModuleGetLoadingMode", driver.loading_mode(&raw mut mode), 0)?;
    // SAFETY: what runtimes since 13.3 call there.
    let load_compilers = unsafe { slot::<extern "C" fn() -> Code>(interface, 12) }?;
    expect("loading the compilers", load_compilers(), 0)?;
    let mut count = 0;
    expect("cuDeviceGetCount", driver.device_count(&raw mut count), 0)?;
    ensure!(count > 0, "there is no device");
    // SAFETY: what every runtime calls there.
    let primary_of = unsafe { slot::<extern "C" fn(*mut usize, c_int) -> Code>(interface, 2) }?;
    let (mut told, mut devices, mut handles) = (Vec::new(), Vec::new(), Vec::new());
    for ordinal in 0..count {
        let (mut device, mut handle) = (-1, 0);
        expect("cuDeviceGet", driver.device(&raw mut device, ordinal), 0)?;
        expect("a primary context's handle", primary_of(&raw mut handle, device), 0)?;
        ensure!(handle != 0 && !handles.contains(&handle), "primary contexts have handles of their own");
        handles.push(handle);
        let identity = Identity::ask(driver, device)?;
        identity.add_to(u64::try_from(ordinal)?, &mut told);
        devices.push(identity.show());
    }
    let can = abilities(driver)?;
    flags(hooks)?;
    driver.table(TOOLS_TLS).context("no TOOLS_TLS")?;
    driver.table(SINCE_13_4).context("no table that runtimes since 13.4 ask for")?;
    let storage = driver.table(CONTEXT_LOCAL_STORAGE).context("no CONTEXT_LOCAL_STORAGE")?;
    // SAFETY: three functions and a null, without a size before them.
    let put = unsafe { slot(storage, 0) }?;
    // SAFETY: as above.
    let delete = unsafe { slot(storage, 1) }?;
    // SAFETY: as above.
    let get = unsafe { slot(storage, 2) }?;
    let storage = Storage { put, delete, get };
    let checks = driver.table(CONTEXT_CHECKS).context("no CONTEXT_CHECKS")?;
    // SAFETY: what runtimes since 12.4 call there.
    let checked = unsafe { slot::<extern "C" fn() -> u32>(checks, 3) }?;
    ensure!(checked() <= 1, "a check that is not known");
    // SAFETY: likewise.
    let check = unsafe { slot(checks, 2) }?;
    test(driver, interface, &told)?;
    ensure!(driver.table(CUDART_INTERFACE) == Some(interface), "a table moved");
    Ok(Started { storage, check, primary: handles[0], devices, can })
}

/// Which device it is.
struct Identity {
    uuid: [u8; 16],
    /// Bus, device, domain.
    pci: [c_int; 3],
    name: String,
}

impl Identity {
    fn ask(driver: &Driver, device: c_int) -> Result<Self> {
        let mut text = [0u8; 256];
        expect("cuDeviceGetName", driver.device_name(text.as_mut_ptr().cast(), 256, device), 0)?;
        let name = core::ffi::CStr::from_bytes_until_nul(&text)?.to_str()?.to_owned();
        let mut bytes = 0;
        expect("cuDeviceTotalMem", driver.device_memory(&raw mut bytes, device), 0)?;
        ensure!(bytes > 0, "a device without memory");
        for (first, last) in ATTRIBUTES {
            for number in first..=last {
                let mut value = 0;
                let code = driver.device_attribute(&raw mut value, number, device);
                expect(&format!("attribute {number} of device {device}"), code, 0)?;
            }
        }
        let (mut uuid, mut same) = ([0; 16], [0; 16]);
        expect("cuDeviceGetUuid", driver.device_uuid(&raw mut uuid, device), 0)?;
        expect("cuDeviceGetUuid at 11040", driver.device_uuid_v2(&raw mut same, device), 0)?;
        ensure!(uuid == same, "a device has two UUIDs");
        let mut pci = [0; 3];
        for (value, number) in pci.iter_mut().zip([33, 34, 50]) {
            expect("a PCI attribute", driver.device_attribute(value, number, device), 0)?;
        }
        Ok(Self { uuid, pci, name })
    }

    fn add_to(&self, number: u64, told: &mut Vec<u8>) {
        told.extend_from_slice(&number.to_le_bytes());
        told.extend_from_slice(&self.uuid);
        self.pci.iter().for_each(|value| told.extend_from_slice(&value.to_le_bytes()));
        told.extend_from_slice(self.name.as_bytes());
    }

    fn show(&self) -> Value {
        let uuid: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "name": self.name, "uuid": uuid, "pci": self.pci })
    }
}

fn abilities(driver: &Driver) -> Result<Value> {
    let (mut multiprocessors, mut bytes) = (0, 0);
    expect("multiprocessors", driver.device_attribute(&raw mut multiprocessors, 16, 0), 0)?;
    expect("memory", driver.device_memory(&raw mut bytes, 0), 0)?;
    Ok(json!({ "multiprocessors": multiprocessors, "memory_bytes": bytes }))
}

/// The flags that say whether a tool listens: as many as are read, and none set.
fn flags(hooks: *const usize) -> Result<()> {
    for (index, least) in [(2, FLAGS_MIN), (6, OTHER_FLAGS_MIN)] {
        type Flags = extern "C" fn(*mut *const c_void, *mut usize) -> Code;
        let (mut flags, mut count) = (core::ptr::null::<c_void>(), 0);
        // SAFETY: what every runtime calls there.
        let ask = unsafe { slot::<Flags>(hooks, index) }?;
        let _unused = ask(&raw mut flags, &raw mut count);
        ensure!(!flags.is_null() && count >= least, "slot {index} tells of {count} flags");
        // SAFETY: the driver keeps so many words for good.
        let flags = unsafe { core::slice::from_raw_parts(flags.cast::<u32>(), least) };
        ensure!(flags.iter().all(|&flag| flag == 0), "a tool listens");
    }
    Ok(())
}

/// Has the driver prove, three times, that it is the one it told of.
#[expect(clippy::disallowed_methods, reason = "the test is about the time, too")]
fn test(driver: &Driver, interface: *const usize, devices: &[u8]) -> Result<()> {
    let table = driver.table(INTEGRITY_CHECK).context("no INTEGRITY_CHECK")?;
    // SAFETY: what every runtime calls there.
    let ask = unsafe { slot::<extern "C" fn(c_uint, u64, *mut [u8; 16]) -> Code>(table, 1) }?;
    // SAFETY: the same word, as a number.
    let function = unsafe { slot::<usize>(table, 1) }?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for version in [13_050, 13_051, 13_052] {
        let mut answer = [0; 16];
        expect("the self-test", ask(version, seconds, &raw mut answer), 0)?;
        let mut told = b"simulated self-test".to_vec();
        let words = [u64::try_from(driver.version)?, version.into(), seconds, std::process::id().into()];
        let addresses = [interface.addr(), table.addr(), function].map(|address| address as u64);
        words.into_iter().chain(addresses).for_each(|word| told.extend_from_slice(&word.to_le_bytes()));
        told.extend_from_slice(devices);
        let mut wanted = [0; 16];
        for (lane, place) in wanted.chunks_exact_mut(8).enumerate() {
            let start = 0xcbf2_9ce4_8422_2325 ^ lane as u64;
            let sum = told
                .iter()
                .fold(start, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
            place.copy_from_slice(&sum.to_le_bytes());
        }
        ensure!(answer == wanted, "the self-test fails: this is not the driver that it says it is");
    }
    Ok(())
}
