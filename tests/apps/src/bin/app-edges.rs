//! What a program sees at the edges of small pieces of device memory: copies, fills and frees that go beyond them, come too
//! late, or come twice; what ranges and attributes say; what is left when a context ends, and in a forked child. One line of
//! JSON, with nothing in it that differs from run to run: the same on every driver that keeps to the documentation.
#![expect(unsafe_code, reason = "calls the driver API itself, with what a safe interface would not pass on")]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use anyhow::{Result, ensure};
use cudarc::driver::sys;
use headgate_apps::{Arguments, print};
use serde_json::{Map, Value, json};

/// A length that is no multiple of anything an allocator would like.
const BYTES: usize = 100;

/// The status of a call.
macro_rules! status {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: outputs are valid for writing, and host memory is as long as is said. Device addresses are what is tested.
        let status = unsafe { sys::$name($($argument),*) };
        status as u32
    }};
}

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        let status = status!($name($($argument),*));
        ensure!(status == 0, "{}: {status}", stringify!($name));
    }};
}

fn take() -> Result<u64> {
    let mut address = 0u64;
    cu!(cuMemAlloc_v2(&raw mut address, BYTES));
    Ok(address)
}

/// Free bytes, and all.
fn room() -> Result<[usize; 2]> {
    let (mut free, mut total) = (0usize, 0usize);
    cu!(cuMemGetInfo_v2(&raw mut free, &raw mut total));
    Ok([free, total])
}

/// Copies between the host and an address.
fn copied(at: u64, bytes: usize, stream: sys::CUstream) -> Value {
    let mut host = vec![0u8; bytes];
    let host = host.as_mut_ptr().cast::<c_void>();
    json!({
        "to device": status!(cuMemcpyHtoD_v2(at, host, bytes)),
        "to device, later": status!(cuMemcpyHtoDAsync_v2(at, host, bytes, stream)),
        "to host": status!(cuMemcpyDtoH_v2(host, at, bytes)),
    })
}

/// Copies and fills of so many bytes, from an address on.
fn touched(at: u64, bytes: usize, other: u64, stream: sys::CUstream) -> Value {
    json!({
        "copied": copied(at, bytes, stream),
        "to": status!(cuMemcpyDtoD_v2(at, other, bytes)),
        "from": status!(cuMemcpyDtoD_v2(other, at, bytes)),
        "to, later": status!(cuMemcpyDtoDAsync_v2(at, other, bytes, stream)),
        "filled": status!(cuMemsetD8_v2(at, 1, bytes)),
        "filled, later": status!(cuMemsetD8Async(at, 1, bytes, stream)),
        "filled in rows": status!(cuMemsetD2D8_v2(at, bytes / 2, 1, bytes - bytes / 2, 2)),
    })
}

/// What is known of an address that lies so far behind the first one of its piece.
fn known(address: u64, first: u64) -> Value {
    let (mut base, mut bytes) = (0u64, 0usize);
    let range = status!(cuMemGetAddressRange_v2(&raw mut base, &raw mut bytes, address));
    let range = (range == 0).then(|| [base.wrapping_sub(first), bytes as u64]);
    let attribute = |which: sys::CUpointer_attribute| {
        let mut value = 0u64;
        let status = status!(cuPointerGetAttribute((&raw mut value).cast(), which, address));
        (status == 0).then_some(value)
    };
    use sys::CUpointer_attribute as Attribute;
    let start = attribute(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
    let (mut kind, mut length) = (7u32, 7usize);
    let mut attributes =
        [Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE];
    let mut places = [(&raw mut kind).cast::<c_void>(), (&raw mut length).cast()];
    let several = status!(cuPointerGetAttributes(2, attributes.as_mut_ptr(), places.as_mut_ptr(), address));
    json!({
        "range": range,
        "start": start.map(|start| start.wrapping_sub(first)),
        "bytes": attribute(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE),
        "has a context": attribute(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT).map(|context| context != 0),
        "several": [u64::from(several), u64::from(kind), length as u64],
    })
}

/// What a forked child is told.
fn in_child(address: u64) -> Value {
    let (mut pipe, mut other) = ([0 as c_int; 2], 0u64);
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(pipe.as_mut_ptr()) };
    // SAFETY: the child makes driver calls, which natively refuse, writes their statuses, and leaves.
    if unsafe { libc::fork() } == 0 {
        let told = [status!(cuMemAlloc_v2(&raw mut other, BYTES)), status!(cuMemFree_v2(address))];
        // SAFETY: eight bytes of its own.
        unsafe { libc::write(pipe[1], told.as_ptr().cast(), size_of_val(&told)) };
        // SAFETY: leaves at once.
        unsafe { libc::_exit(0) };
    }
    let mut told = [u32::MAX; 2];
    // SAFETY: its own; so the child's end is an end for whoever reads.
    unsafe { libc::close(pipe[1]) };
    // SAFETY: room for eight bytes.
    unsafe { libc::read(pipe[0], told.as_mut_ptr().cast(), size_of_val(&told)) };
    // SAFETY: nothing is to be told of the child.
    unsafe { libc::wait(null_mut()) };
    json!(told)
}

fn main() -> Result<()> {
    Arguments::read(&[])?;
    let (mut device, mut context, mut stream) = (0, null_mut(), null_mut());
    cu!(cuInit(0));
    cu!(cuDeviceGet(&raw mut device, 0));
    cu!(cuDevicePrimaryCtxRetain(&raw mut context, device));
    cu!(cuCtxSetCurrent(context));
    cu!(cuStreamCreate(&raw mut stream, 1));
    let [begin, _] = room()?;
    // Neighbours on both sides, if there are such.
    let pieces = [take()?, take()?, take()?];
    let middle = pieces[1];
    let mut large = 0u64;
    cu!(cuMemAlloc_v2(&raw mut large, 1 << 20));
    let end = middle + BYTES as u64;
    let mut found = Map::new();
    let mut note = |name: &str, value: Value| drop(found.insert(name.to_owned(), value));
    note("used", json!(begin - room()?[0]));
    note("all of it", touched(middle, BYTES, large, stream));
    note("one byte more", touched(middle, BYTES + 1, large, stream));
    note("much more", touched(middle, 4096, large, stream));
    note("from its end on", touched(end, 8, large, stream));
    note("its last byte", touched(end - 1, 2, large, stream));
    note("nothing of it", json!(status!(cuMemsetD8_v2(middle, 1, 0))));
    for (name, at) in [("at its begin", middle), ("inside", middle + 50), ("behind it", end)] {
        note(name, known(at, middle));
    }
    note("free inside", json!(status!(cuMemFree_v2(middle + 50))));
    note("free behind", json!(status!(cuMemFree_v2(end))));
    note("in a child", in_child(middle));
    note("free", json!(status!(cuMemFree_v2(middle))));
    note("free again", json!(status!(cuMemFree_v2(middle))));
    note("too late", touched(middle, BYTES, large, stream));
    note("known too late", known(middle, middle));
    note("used then", json!(begin - room()?[0]));
    // In a context of its own, which ends with everything in it.
    let mut own = null_mut();
    cu!(cuCtxCreate_v2(&raw mut own, 0, device));
    let inside = [take()?, take()?];
    note("free in another context", json!(status!(cuMemFree_v2(inside[0]))));
    cu!(cuCtxDestroy_v2(own));
    cu!(cuCtxSetCurrent(context));
    note("of an ended context", copied(inside[1], BYTES, stream));
    note("free of an ended context", json!(status!(cuMemFree_v2(inside[1]))));
    note("used after it", json!(begin - room()?[0]));
    cu!(cuCtxSynchronize());
    cu!(cuDevicePrimaryCtxReset_v2(device));
    cu!(cuDevicePrimaryCtxRetain(&raw mut context, device));
    cu!(cuCtxSetCurrent(context));
    note("free after it was retained again", json!(status!(cuMemFree_v2(pieces[0]))));
    let again = take()?;
    note("then", touched(again, BYTES, again, null_mut()));
    print(&Value::Object(found));
    Ok(())
}
