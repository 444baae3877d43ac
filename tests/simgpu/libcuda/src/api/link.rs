//! The linker of the driver API (`cuLink*`), for one PTX text.
//!
//! What `cuLinkComplete` hands out is opaque to programs and only good for loading on this very driver; here it is
//! the text itself, compiled once when it is added, as the genuine driver does, so that mistakes are reported then.
//! Linking several inputs would mean resolving symbols between them and is refused, never pretended.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_char, c_uint, c_void};
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::types::{CUenum, CUlinkState, CUresult};
use headgate_simgpu::protocol::Request;

use super::module;
use crate::driver::{Answer, Driver, driver};
use crate::objects::lock;
use crate::{current, raw};

/// `CU_JIT_INPUT_PTX`.
const PTX: CUenum = 1;
/// The greatest `CUjitInputType`, `CU_JIT_INPUT_NVVM`.
const LAST_INPUT: CUenum = 5;
/// Largest input looked at.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// A link under way.
#[derive(Debug)]
pub(crate) struct Link {
    options: Options,
    /// The input, terminated; handed out by `cuLinkComplete` and kept until `cuLinkDestroy`.
    image: Mutex<Option<Arc<Vec<u8>>>>,
}

/// The options of a call. Those of `cuLinkCreate` stay valid as long as the link lives: outputs go there.
#[derive(Clone, Copy, Debug)]
struct Options {
    count: c_uint,
    names: usize,
    values: usize,
}

impl Options {
    fn of(count: c_uint, names: *mut CUenum, values: *mut *mut c_void) -> Self {
        Self { count, names: names.expose_provenance(), values: values.expose_provenance() }
    }

    fn write(self, log: &str) -> Answer {
        let names = core::ptr::with_exposed_provenance_mut(self.names);
        let values = core::ptr::with_exposed_provenance_mut(self.values);
        module::write_log(self.count, names, values, log)
    }
}

pub(crate) fn cuLinkCreate_v2(
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let handle = driver.links.reserve();
    raw::store(state, CUlinkState::from_addr(handle))?;
    let options = Options::of(count, options, values);
    driver.links.insert(handle, Arc::new(Link { options, image: Mutex::new(None) }));
    Ok(())
}

fn find(driver: &Driver, state: CUlinkState) -> Result<Arc<Link>, CUresult> {
    driver.links.get(state.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

#[allow(clippy::too_many_arguments, reason = "the signature is the driver API's")]
pub(crate) fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUenum,
    data: *mut c_void,
    size: usize,
    _name: *const c_char,
    _count: c_uint,
    _options: *mut CUenum,
    _values: *mut *mut c_void,
) -> Answer {
    let driver = driver()?;
    let link = find(driver, state)?;
    if data.is_null() || size == 0 || INPUT_BYTES_MAX < size || LAST_INPUT < kind {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    add(driver, &link, kind, raw::bytes(data, size)?)
}

#[allow(clippy::too_many_arguments, reason = "the signature is the driver API's")]
pub(crate) fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUenum,
    path: *const c_char,
    _count: c_uint,
    _options: *mut CUenum,
    _values: *mut *mut c_void,
) -> Answer {
    let driver = driver()?;
    let link = find(driver, state)?;
    if LAST_INPUT < kind {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let bytes = std::fs::read(raw::text(path)?).map_err(|_| CUresult::ERROR_FILE_NOT_FOUND)?;
    add(driver, &link, kind, bytes)
}

fn add(driver: &Driver, link: &Link, kind: CUenum, mut text: Vec<u8>) -> Answer {
    let mut image = lock(&link.image);
    if kind != PTX || image.is_some() {
        link.options.write("the simulated driver links one PTX text and nothing else")?;
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    let context = current::context(driver)?;
    match module::load(driver, &context, &text) {
        Ok(loaded) => {
            driver.modules.remove(loaded.handle);
            driver.ask(&Request::UnloadModule { module: loaded.info.module })?;
        }
        Err((status, log)) => {
            link.options.write(&log)?;
            return Err(status);
        }
    }
    text.push(0);
    *image = Some(Arc::new(text));
    Ok(())
}

/// The image lives until `cuLinkDestroy`.
pub(crate) fn cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, size: *mut usize) -> Answer {
    let link = find(driver()?, state)?;
    let text = lock(&link.image).clone().ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(image, text.as_ptr().cast_mut().cast())?;
    raw::store(size, text.len())?;
    link.options.write("")
}

pub(crate) fn cuLinkDestroy(state: CUlinkState) -> Answer {
    driver()?.links.remove(state.addr()).map(|_| ()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}
