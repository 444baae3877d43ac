//! Copies and fills.
//!
//! Bytes for the device are taken when the call is made and travel in stream order, in pieces. If the source is host
//! memory that an earlier copy is still to fill, the call waits for that copy: what the program means is what will be
//! there. Bytes for the host are pushed when the device has them.

use core::ffi::{c_uint, c_void};
use std::sync::Arc;

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdeviceptr, CUresult, CUstream};

use super::host;
use crate::client::objects::{Context, Reached, Stream};
use crate::client::session::Expected;
use crate::client::state::{Client, client};
use crate::client::{Answer, current, raw, travel};
use crate::limits::PIECE_BYTES_MAX;
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
fn is_device(client: &Client, address: CUdeviceptr, bytes: usize) -> Result<bool, CUresult> {
    match client.allocation(address) {
        None => Ok(false),
        Some((base, found)) if address - base + bytes as u64 <= found.bytes => Ok(true),
        Some(_) => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

fn must_be_device(client: &Client, address: CUdeviceptr, bytes: usize) -> Answer {
    if is_device(client, address, bytes)? { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
}

fn write(stream: CUstream, to: CUdeviceptr, from: *const c_void, bytes: usize) -> Answer {
    let (client, context, stream) = find(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    must_be_device(client, to, bytes)?;
    host::settle(client, from.addr(), bytes)?;
    let source = raw::bytes(from, bytes)?;
    for (index, piece) in source.chunks(PIECE_BYTES_MAX).enumerate() {
        let to = to + (index * PIECE_BYTES_MAX) as u64;
        client.session.tell(context.id, &Operation::Write { stream: stream.id, to, bytes: piece })?;
    }
    stream.touch();
    context.report()
}

/// Has bytes sent; returns when they are there, or at once where the destination is pinned and the call asynchronous.
fn read(stream: CUstream, to: *mut c_void, from: CUdeviceptr, bytes: usize, asynchronous: bool) -> Answer {
    let (client, context, stream) = find(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    must_be_device(client, from, bytes)?;
    stream.touch();
    let reached = if stream.id == 0 { context.blocking() } else { vec![Reached::now(&stream)] };
    let memory = Some((to.expose_provenance(), bytes as u64));
    let token =
        client.session.expect(Expected { reached, event: None, memory, context: Arc::clone(&context) });
    let operation = Operation::Read { stream: stream.id, from, bytes: bytes as u64, token };
    client.session.tell(context.id, &operation)?;
    if asynchronous && client.pinned(to.addr(), bytes).is_some() {
        return context.report();
    }
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

fn on_device(stream: CUstream, to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> Answer {
    if bytes == 0 {
        return Ok(());
    }
    let words = [to.to_word(), from.to_word(), bytes.to_word(), stream.to_word()];
    by_rule(Symbol::cuMemcpyDtoDAsync_v2, &words)
}

fn host_pointer(address: CUdeviceptr) -> *mut c_void {
    <*mut c_void>::from_word(address)
}

/// A copy between any two places.
fn anywhere(
    stream: CUstream,
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    asynchronous: bool,
) -> Answer {
    let client = client()?;
    match (is_device(client, to, bytes)?, is_device(client, from, bytes)?) {
        (true, true) => on_device(stream, to, from, bytes),
        (true, false) => write(stream, to, host_pointer(from), bytes),
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

pub fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
    anywhere(CUstream::NULL, dst, src, bytes, false)
}

pub fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    anywhere(stream, dst, src, bytes, true)
}

pub fn cuMemcpyHtoD_v2(dst: CUdeviceptr, src: *const c_void, bytes: usize) -> Answer {
    write(CUstream::NULL, dst, src, bytes)
}

pub fn cuMemcpyHtoDAsync_v2(dst: CUdeviceptr, src: *const c_void, bytes: usize, stream: CUstream) -> Answer {
    write(stream, dst, src, bytes)
}

pub fn cuMemcpyDtoH_v2(dst: *mut c_void, src: CUdeviceptr, bytes: usize) -> Answer {
    read(CUstream::NULL, dst, src, bytes, false)
}

pub fn cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    read(stream, dst, src, bytes, true)
}

pub fn cuMemcpyDtoD_v2(dst: CUdeviceptr, src: CUdeviceptr, bytes: usize) -> Answer {
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
