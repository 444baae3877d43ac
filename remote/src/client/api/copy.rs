//! Copies and fills.
//!
//! Bytes for the device are taken when the call is made and travel in stream order, in pieces. If the source is host
//! memory that an earlier copy is still to fill, the call waits for that copy: what the program means is what will be
//! there. A program that has streams wait for words in memory may mean what it has yet to write: then pinned memory is read when
//! the stream has come there ([`late`](crate::client::late)). Bytes for the host are pushed when the device has them.

use core::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdeviceptr, CUresult, CUstream};

use super::host;
use crate::client::late::Row;
use crate::client::objects::{Allocation, Context, Reached, Stream, lock};
use crate::client::session::Expected;
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw, travel};
use crate::wire::operation::Operation;
use crate::word::Word as _;

/// A copy's stream, in a context in working order.
fn find(stream: CUstream) -> Result<(&'static Client, Arc<Context>, Arc<Stream>), CUresult> {
    let client = client()?;
    let context = current::context(client)?;
    let stream = current::stream(client, &context, stream.addr())?;
    Ok((client, context, stream))
}

/// Whether a range is device memory; an error where it begins in device memory and goes beyond it.
pub(super) fn is_device(client: &Client, address: CUdeviceptr, bytes: usize) -> Result<bool, CUresult> {
    let Some((base, found)) = client.allocation(address) else { return Ok(false) };
    let end = address.saturating_add(bytes as u64);
    let mut covered = base + found.bytes;
    // Mappings side by side are one memory.
    let is_mapped = |found: &Allocation| found.context == 0;
    let allocations = lock(&client.allocations);
    while covered < end {
        let next = allocations.get(&covered).filter(|next| is_mapped(&found) && is_mapped(next));
        covered += next.ok_or(CUresult::ERROR_INVALID_VALUE)?.bytes;
    }
    Ok(true)
}

/// Copies from and to the host are not recorded: see [`capture`].
fn must_not_be_captured(client: &Client, stream: &Stream) -> Answer {
    if capture::admit(client, stream)? { capture::forbid_in(stream) } else { Ok(()) }
}

fn must_be_device(client: &Client, address: CUdeviceptr, bytes: usize) -> Answer {
    if is_device(client, address, bytes)? { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
}

/// Whether bytes are to be read when their stream has come there: from pinned memory, where the program has streams wait for words
/// and something is still under way, so that it may fill that memory before it lets a stream go.
fn is_read_late(client: &Client, from: *const c_void, rows: &Rows) -> bool {
    let bytes = rows.from_step.saturating_mul(rows.count - 1).saturating_add(rows.bytes);
    let is_done = |context: &Arc<Context>| context.everything().iter().all(Reached::is_done);
    client.session.waits_for_words.load(Ordering::Acquire)
        && client.pinned(from.addr(), bytes).is_some()
        && !client.contexts.all().iter().all(is_done)
}

fn write(stream: CUstream, to: CUdeviceptr, from: *const c_void, bytes: usize, asynchronous: bool) -> Answer {
    write_rows(stream, to, from, &Rows { bytes, count: 1, to_step: 0, from_step: 0 }, asynchronous)
}

/// Takes bytes for the device. They are the program's own again when this returns, unless the copy is asynchronous and its source
/// pinned.
pub(super) fn write_rows(
    stream: CUstream,
    to: CUdeviceptr,
    from: *const c_void,
    rows: &Rows,
    asynchronous: bool,
) -> Answer {
    let (client, context, stream) = find(stream)?;
    must_not_be_captured(client, &stream)?;
    if rows.bytes == 0 || rows.count == 0 {
        return Ok(());
    }
    let place = |row: usize| {
        let to = to + (row * rows.to_step) as u64;
        must_be_device(client, to, rows.bytes)?;
        let from = from.wrapping_byte_add(row * rows.from_step);
        Ok(Row { to, from: raw::lent(from, rows.bytes)? })
    };
    if asynchronous && is_read_late(client, from, rows) {
        let places = (0..rows.count).map(place).collect::<Result<_, CUresult>>()?;
        stream.touch_before();
        let reached = if stream.id == 0 { context.blocking() } else { vec![Reached::now(&stream)] };
        let context_too = Arc::clone(&context);
        let expected = Expected { reached, event: None, memory: None, late: true, context: context_too };
        let written = client.session.write_late(context.id, stream.id, places, expected);
        stream.placed(client.session.placed());
        written?;
        return context.report();
    }
    for row in 0..rows.count {
        let Row { to, from } = place(row)?;
        host::settle(client, from.as_ptr().addr(), from.len())?;
        client.session.write(context.id, stream.id, to, from)?;
        stream.touch(client.session.placed());
    }
    context.report()
}

/// Has bytes sent; returns when they are there, or at once where the destination is pinned and the call asynchronous.
fn read(stream: CUstream, to: *mut c_void, from: CUdeviceptr, bytes: usize, asynchronous: bool) -> Answer {
    let rows = Rows { bytes, count: 1, to_step: 0, from_step: 0 };
    read_rows(stream, to, from, &rows, asynchronous)
}

/// Rows of one length at even distances.
pub(super) struct Rows {
    pub(super) bytes: usize,
    pub(super) count: usize,
    pub(super) to_step: usize,
    pub(super) from_step: usize,
}

/// The same for many rows, which are waited for together.
pub(super) fn read_rows(
    stream: CUstream,
    to: *mut c_void,
    from: CUdeviceptr,
    rows: &Rows,
    asynchronous: bool,
) -> Answer {
    let (client, context, stream) = find(stream)?;
    must_not_be_captured(client, &stream)?;
    if rows.bytes == 0 {
        return Ok(());
    }
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (mut waits, mut token) = (!asynchronous, 0);
    for row in 0..rows.count {
        let from = from + (row * rows.from_step) as u64;
        must_be_device(client, from, rows.bytes)?;
        let to = to.wrapping_byte_add(row * rows.to_step);
        waits |= client.pinned(to.addr(), rows.bytes).is_none();
        stream.touch_before();
        let reached = if stream.id == 0 { context.blocking() } else { vec![Reached::now(&stream)] };
        let memory = Some((to.expose_provenance(), rows.bytes as u64));
        let expected = Expected { reached, event: None, memory, late: false, context: Arc::clone(&context) };
        token = client.session.expect(expected);
        let operation = Operation::Read { stream: stream.id, from, bytes: rows.bytes as u64, token };
        client.session.tell(context.id, &operation)?;
        stream.placed(client.session.placed());
    }
    if !waits || token == 0 {
        return context.report();
    }
    // Rows arrive one after the other. What went wrong with an earlier one the context reports.
    match client.session.wait_for(token)? {
        CUresult::SUCCESS => context.report(),
        status => {
            // It is told here, so not again.
            let _told = context.report();
            Err(status)
        }
    }
}

fn by_rule(symbol: Symbol, words: &[u64]) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, words, Some(&context)).map(|_| ())
}

pub(super) fn on_device(stream: CUstream, to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> Answer {
    if bytes == 0 {
        return Ok(());
    }
    let words = [to.to_word(), from.to_word(), bytes.to_word(), stream.to_word()];
    by_rule(Symbol::cuMemcpyDtoDAsync_v2, &words)
}

pub(super) fn host_pointer(address: CUdeviceptr) -> *mut c_void {
    <*mut c_void>::from_word(address)
}

/// A copy between any two places.
pub(super) fn anywhere(
    stream: CUstream,
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    asynchronous: bool,
) -> Answer {
    let client = client()?;
    match (is_device(client, to, bytes)?, is_device(client, from, bytes)?) {
        (true, true) => on_device(stream, to, from, bytes),
        (true, false) => write(stream, to, host_pointer(from), bytes, asynchronous),
        (false, true) => read(stream, host_pointer(to), from, bytes, asynchronous),
        (false, false) => {
            let (client, context, _) = find(stream)?;
            // In stream order, which on the host means: when the stream has come here.
            super::stream::synchronise_context(client, &context)?;
            raw::put(host_pointer(to), raw::bytes(host_pointer(from), bytes)?);
            Ok(())
        }
    }
}

/// What every copy that waits has to ask first.
pub(super) fn may_wait() -> Answer {
    capture::forbid_unsafe_call(client()?)
}

pub fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
    may_wait()?;
    anywhere(CUstream::NULL, dst, src, bytes, false)
}

pub fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    anywhere(stream, dst, src, bytes, true)
}

pub fn cuMemcpyHtoD_v2(dst: CUdeviceptr, src: *const c_void, bytes: usize) -> Answer {
    may_wait()?;
    write(CUstream::NULL, dst, src, bytes, false)
}

pub fn cuMemcpyHtoDAsync_v2(dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) -> Answer {
    write(stream, dst, src, bytes, true)
}

pub fn cuMemcpyDtoH_v2(dst: *mut c_void, src: CUdeviceptr, bytes: usize) -> Answer {
    may_wait()?;
    read(CUstream::NULL, dst, src, bytes, false)
}

pub fn cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    read(stream, dst, src, bytes, true)
}

pub fn cuMemcpyDtoD_v2(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
    may_wait()?;
    on_device(CUstream::NULL, dst, src, bytes)
}

fn fill(symbol: Symbol, dst: CUdeviceptr, value: u64, count: usize) -> Answer {
    by_rule(symbol, &[dst.to_word(), value, count.to_word(), 0])
}

pub fn cuMemsetD8_v2(dst: CUdeviceptr, value: u8, count: usize) -> Answer {
    fill(Symbol::cuMemsetD8Async, dst, value.to_word(), count)
}

pub fn cuMemsetD16_v2(dst: CUdeviceptr, value: u16, count: usize) -> Answer {
    fill(Symbol::cuMemsetD16Async, dst, value.to_word(), count)
}

pub fn cuMemsetD32_v2(dst: CUdeviceptr, value: c_uint, count: usize) -> Answer {
    fill(Symbol::cuMemsetD32Async, dst, value.to_word(), count)
}

fn fill_rows(
    symbol: Symbol,
    dst: CUdeviceptr,
    pitch: usize,
    value: u64,
    width: usize,
    height: usize,
) -> Answer {
    by_rule(symbol, &[dst.to_word(), pitch.to_word(), value, width.to_word(), height.to_word(), 0])
}

pub fn cuMemsetD2D8_v2(dst: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) -> Answer {
    fill_rows(Symbol::cuMemsetD2D8Async, dst, pitch, value.to_word(), width, height)
}

pub fn cuMemsetD2D16_v2(dst: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize) -> Answer {
    fill_rows(Symbol::cuMemsetD2D16Async, dst, pitch, value.to_word(), width, height)
}

pub fn cuMemsetD2D32_v2(
    dst: CUdeviceptr,
    pitch: usize,
    value: c_uint,
    width: usize,
    height: usize,
) -> Answer {
    fill_rows(Symbol::cuMemsetD2D32Async, dst, pitch, value.to_word(), width, height)
}
