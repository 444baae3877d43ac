//! Kernels, as far as they can be asked about.

use core::ffi::{c_char, c_int};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdevice, CUenum, CUfunction, CUkernel, CUlibrary, CUmodule, CUresult};

use crate::client::objects::Function;
use crate::client::state::{Client, client};
use crate::client::{Answer, current, raw, travel};
use crate::image::Layout;
use crate::wire::operation::Operation;
use crate::wire::{Described, Reader};
use crate::word::Word as _;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: CUenum = 8;

/// Asks the worker what a kernel is.
pub(super) fn describe(client: &Client, context: u32, id: u32) -> Result<Described, CUresult> {
    let reply = client.session.ask(context, &Operation::Describe { function: id })?;
    if !reply.status.is_success() {
        return Err(reply.status);
    }
    Described::decode(&mut Reader::new(&reply.results)).map_err(|_| CUresult::ERROR_UNKNOWN)
}

/// The kernel of a handle.
pub(super) fn find(client: &Client, handle: usize) -> Result<Arc<Function>, CUresult> {
    let id = client.arena.id(Kind::Function, handle).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    client.functions.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

impl Function {
    /// What it is; the worker is asked the first time, where its load has not told.
    pub(super) fn described(&self, client: &Client, context: u32) -> Result<&Described, CUresult> {
        if let Some(known) = self.described.get() {
            return Ok(known);
        }
        let found = describe(client, context, self.id)?;
        Ok(self.described.get_or_init(|| found))
    }

    /// Where its parameters lie.
    pub(super) fn layout(&self, client: &Client, context: u32) -> Result<&Layout, CUresult> {
        match &self.layout {
            Some(layout) => Ok(layout),
            None => self.described(client, context)?.layout.as_ref().ok_or(CUresult::ERROR_NOT_SUPPORTED),
        }
    }
}

pub fn cuFuncGetAttribute(value: *mut c_int, attribute: CUenum, function: CUfunction) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let function = find(client, function.addr())?;
    let set = function.dynamic_shared_max.load(Ordering::Acquire);
    if attribute == MAX_DYNAMIC_SHARED && set >= 0 {
        return raw::store(value, set);
    }
    let described = function.described(client, context.id)?;
    let known = described.attributes.get(attribute as usize).copied().flatten();
    raw::store(value, known.ok_or(CUresult::ERROR_INVALID_VALUE)?)
}

/// Of a kernel on a device: what is known of it in its module, where it is known. Otherwise the worker is asked.
pub fn cuKernelGetAttribute(
    value: *mut c_int,
    attribute: CUenum,
    kernel: CUkernel,
    device: CUdevice,
) -> Answer {
    let client = client()?;
    client.session.check()?;
    let function = find(client, kernel.addr())?;
    let index = super::device::index(client, device)?;
    let context = current::any(client).ok().filter(|context| context.device == index);
    let one_device = client.session.welcome.devices.len() == 1;
    let set = function.dynamic_shared_max.load(Ordering::Acquire);
    if one_device && attribute == MAX_DYNAMIC_SHARED && set >= 0 {
        return raw::store(value, set);
    }
    let described = match (function.described.get(), &context) {
        (Some(known), _) if one_device => Some(known),
        (None, Some(context)) if one_device => Some(function.described(client, context.id)?),
        _ => None,
    };
    if let Some(known) = described.and_then(|known| known.attributes.get(attribute as usize)) {
        return raw::store(value, known.ok_or(CUresult::ERROR_INVALID_VALUE)?);
    }
    let symbol = Symbol::cuKernelGetAttribute;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let words = [value.to_word(), attribute.to_word(), kernel.to_word(), device.to_word()];
    travel::by_rule(client, symbol, line, &words, context.as_ref()).map(|_| ())
}

pub fn cuKernelSetAttribute(attribute: CUenum, value: c_int, kernel: CUkernel, device: CUdevice) -> Answer {
    let client = client()?;
    client.session.check()?;
    let function = find(client, kernel.addr())?;
    let symbol = Symbol::cuKernelSetAttribute;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let words = [attribute.to_word(), value.to_word(), kernel.to_word(), device.to_word()];
    travel::by_rule(client, symbol, line, &words, current::any(client).ok().as_ref())?;
    if attribute == MAX_DYNAMIC_SHARED {
        function.dynamic_shared_max.store(value, Ordering::Release);
    }
    Ok(())
}

pub fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) -> Answer {
    let client = client()?;
    let function = find(client, kernel.addr())?;
    if !function.of_library {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    raw::store(library, CUlibrary::from_addr(client.arena.handle(Kind::Library, function.parent)))
}

pub fn cuFuncSetAttribute(function: CUfunction, attribute: CUenum, value: c_int) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let known = find(client, function.addr())?;
    let symbol = Symbol::cuFuncSetAttribute;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let words = [function.to_word(), attribute.to_word(), value.to_word()];
    travel::by_rule(client, symbol, line, &words, Some(&context))?;
    if attribute == MAX_DYNAMIC_SHARED {
        known.dynamic_shared_max.store(value, Ordering::Release);
    }
    Ok(())
}

/// The module lives as long as the kernel.
pub fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) -> Answer {
    let client = client()?;
    current::context(client)?;
    let function = find(client, function.addr())?;
    if function.of_library {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    raw::store(module, CUmodule::from_addr(client.arena.handle(Kind::Module, function.parent)))
}

/// The text lives as long as the kernel.
pub fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) -> Answer {
    raw::store(name, find(client()?, function.addr())?.name.as_ptr())
}

pub fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> Answer {
    raw::store(name, find(client()?, kernel.addr())?.name.as_ptr())
}

fn parameter(handle: usize, index: usize, offset: *mut usize, bytes: *mut usize) -> Answer {
    let client = client()?;
    let function = find(client, handle)?;
    let context = current::any(client).map_or(0, |context| context.id);
    let layout = function.layout(client, context)?;
    let &(at, length) = layout.get(index).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(offset, at as usize)?;
    raw::store_if(bytes, length as usize);
    Ok(())
}

pub fn cuFuncGetParamInfo(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> Answer {
    parameter(function.addr(), index, offset, bytes)
}

pub fn cuKernelGetParamInfo(kernel: CUkernel, index: usize, offset: *mut usize, bytes: *mut usize) -> Answer {
    parameter(kernel.addr(), index, offset, bytes)
}

/// A kernel and its function are one here; the worker's driver tells them apart by itself.
pub fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) -> Answer {
    let client = client()?;
    current::context(client)?;
    find(client, kernel.addr())?;
    raw::store(function, CUfunction::from_addr(kernel.addr()))
}
