//! Loading code, and telling of kernels.

use std::ffi::CString;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::compiler::Options;
use super::handles::Entry;
use super::session::Session;
use crate::image::Layout;
use crate::wire::described::FUNCTION_ATTRIBUTES;
use crate::wire::operation::{Digest, Names};
use crate::wire::{Described, Malformed};

/// Parameters asked for before a kernel is taken to have no end of them.
const PARAMETERS_MAX: usize = 4096;

impl Session {
    /// Loads a module. The results: what the compiler said, then each asked kernel with a byte before it that says
    /// whether it is there.
    pub(super) fn load(
        &mut self,
        module: u32,
        digest: &Digest,
        options: &[u8],
        kernels: Names<'_>,
    ) -> Result<(CUresult, Vec<u8>), Malformed> {
        let mut results = Vec::new();
        if let Err(status) = self.handles.check_new(Kind::Module, module) {
            return Ok((status, results));
        }
        let Some(image) = self.images.get(digest) else {
            return Ok((CUresult::ERROR_INVALID_IMAGE, results));
        };
        let mut real = 0u64;
        let mut options = Options::of(options);
        let [count, keys, values] = options.words();
        let place = (&raw mut real).expose_provenance() as u64;
        let code = image.as_ptr().expose_provenance() as u64;
        let status = self.driver.call(Symbol::cuModuleLoadDataEx, &[place, code, count, keys, values]);
        options.tell(&mut results);
        if !status.is_success() {
            return Ok((status, results));
        }
        self.handles.insert(
            Kind::Module,
            module,
            Entry { real, context: self.current, parent: 0, of_library: false },
        );
        for name in kernels.iter() {
            match self.find(real, name?).map(|function| self.describe_real(function)) {
                Some(described) => {
                    results.push(1);
                    described.encode(&mut results);
                }
                None => results.push(0),
            }
        }
        Ok((status, results))
    }

    fn find(&self, module: u64, name: &str) -> Option<u64> {
        let name = CString::new(name).ok()?;
        let mut function = 0u64;
        let place = (&raw mut function).expose_provenance() as u64;
        let words = [place, module, name.as_ptr().expose_provenance() as u64];
        self.driver.call(Symbol::cuModuleGetFunction, &words).is_success().then_some(function)
    }

    /// Loads a library. The result: what the compiler said.
    pub(super) fn load_library(
        &mut self,
        library: u32,
        digest: &Digest,
        options: &[u8],
    ) -> (CUresult, Vec<u8>) {
        let mut results = Vec::new();
        if let Err(status) = self.handles.check_new(Kind::Library, library) {
            return (status, results);
        }
        let Some(image) = self.images.get(digest) else {
            return (CUresult::ERROR_INVALID_IMAGE, results);
        };
        let mut real = 0u64;
        let mut options = Options::of(options);
        let [count, keys, values] = options.words();
        let place = (&raw mut real).expose_provenance() as u64;
        let code = image.as_ptr().expose_provenance() as u64;
        let status =
            self.driver.call(Symbol::cuLibraryLoadData, &[place, code, keys, values, count, 0, 0, 0]);
        options.tell(&mut results);
        if status.is_success() {
            self.handles.insert(
                Kind::Library,
                library,
                Entry { real, context: 0, parent: 0, of_library: false },
            );
        }
        (status, results)
    }

    /// What a kernel is, in the current context.
    pub(super) fn describe(&self, function: u32) -> Result<Described, CUresult> {
        let entry = self.handles.entry(Kind::Function, function).ok_or(CUresult::ERROR_NOT_FOUND)?;
        let mut real = entry.real;
        if entry.of_library {
            let mut found = 0u64;
            let place = (&raw mut found).expose_provenance() as u64;
            match self.driver.call(Symbol::cuKernelGetFunction, &[place, entry.real]) {
                CUresult::SUCCESS => real = found,
                status => return Err(status),
            }
        }
        Ok(self.describe_real(real))
    }

    fn describe_real(&self, function: u64) -> Described {
        let mut attributes = [None; FUNCTION_ATTRIBUTES];
        for (number, attribute) in attributes.iter_mut().enumerate() {
            let mut value = 0i32;
            let place = (&raw mut value).expose_provenance() as u64;
            let status = self.driver.call(Symbol::cuFuncGetAttribute, &[place, number as u64, function]);
            *attribute = status.is_success().then_some(value);
        }
        Described { attributes, layout: self.layout(function) }
    }

    /// Where a kernel's parameters lie, asked one after the other until the driver knows no more.
    fn layout(&self, function: u64) -> Option<Layout> {
        if !self.driver.has(Symbol::cuFuncGetParamInfo) {
            return None;
        }
        let mut layout = Layout::new();
        for index in 0..PARAMETERS_MAX {
            let (mut offset, mut bytes) = (0u64, 0u64);
            let place = |word: *mut u64| word.expose_provenance() as u64;
            let words = [function, index as u64, place(&raw mut offset), place(&raw mut bytes)];
            if !self.driver.call(Symbol::cuFuncGetParamInfo, &words).is_success() {
                return Some(layout);
            }
            layout.push((u32::try_from(offset).ok()?, u32::try_from(bytes).ok()?));
        }
        None
    }
}
