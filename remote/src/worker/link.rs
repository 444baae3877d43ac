//! The driver's linker, on behalf of a client: inputs come as images, what comes of them stays here as one.

use std::ffi::CString;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::compiler::Options;
use super::handles::Entry;
use super::session::Session;
use crate::limits::{IMAGE_BYTES_MAX, LINK_INPUTS_MAX, LINKED_PIECE_BYTES};
use crate::wire::Put as _;
use crate::wire::operation::Digest;

/// What the driver reads and writes while a link lives.
#[derive(Debug)]
pub(super) struct Link {
    options: Options,
    inputs: usize,
}

/// A status and results.
type Outcome = (CUresult, Vec<u8>);

impl Session {
    /// Begins a link. The result: what the linker said.
    pub(super) fn link_create(&mut self, link: u32, options: &[u8]) -> Outcome {
        let mut results = Vec::new();
        if let Err(status) = self.handles.check_new(Kind::Link, link) {
            return (status, results);
        }
        let mut options = Options::of(options);
        let [count, keys, values] = options.words();
        let mut real = 0u64;
        let place = (&raw mut real).expose_provenance() as u64;
        let status = self.driver.call(Symbol::cuLinkCreate_v2, &[count, keys, values, place]);
        options.tell(&mut results);
        if status.is_success() {
            let entry = Entry { real, context: self.current, parent: 0, of_library: false };
            self.handles.insert(Kind::Link, link, entry);
            self.links.insert(link, Link { options, inputs: 0 });
        }
        (status, results)
    }

    /// The driver's handle of a link, and its state.
    fn link(&mut self, link: u32) -> Result<(u64, &mut Link), CUresult> {
        let real = self.handles.real(Kind::Link, link)?;
        let found = self.links.get_mut(&link).filter(|_| real != 0);
        found.map(|found| (real, found)).ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Adds an input. The result: what the linker said.
    pub(super) fn link_add(
        &mut self,
        link: u32,
        kind: u32,
        digest: &Digest,
        name: &str,
        options: &[u8],
    ) -> Outcome {
        let mut results = Vec::new();
        let status = self.try_link_add(link, kind, digest, name, options, &mut results);
        (status.err().unwrap_or(CUresult::SUCCESS), results)
    }

    fn try_link_add(
        &mut self,
        link: u32,
        kind: u32,
        digest: &Digest,
        name: &str,
        options: &[u8],
        results: &mut Vec<u8>,
    ) -> Result<(), CUresult> {
        let (image, bytes) = self.images.with_length(digest).ok_or(CUresult::ERROR_INVALID_IMAGE)?;
        let name = CString::new(name).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let (real, found) = self.link(link)?;
        if found.inputs >= LINK_INPUTS_MAX {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        found.inputs += 1;
        let mut numbers = Options::numbers(options);
        let [count, keys, values] = numbers.words();
        let (data, name) =
            (image.as_ptr().expose_provenance() as u64, name.as_ptr().expose_provenance() as u64);
        let words = [real, kind.into(), data, bytes as u64, name, count, keys, values];
        let status = self.driver.call(Symbol::cuLinkAddData_v2, &words);
        if let Some(found) = self.links.get(&link) {
            found.options.tell(results);
        }
        if status.is_success() { Ok(()) } else { Err(status) }
    }

    /// Finishes a link. The results: what the linker said; then the image's length, digest and beginning.
    pub(super) fn link_complete(&mut self, link: u32) -> Outcome {
        let mut results = Vec::new();
        let status = self.try_link_complete(link, &mut results);
        (status.err().unwrap_or(CUresult::SUCCESS), results)
    }

    fn try_link_complete(&mut self, link: u32, results: &mut Vec<u8>) -> Result<(), CUresult> {
        let (real, _) = self.link(link)?;
        let (mut address, mut bytes) = (0u64, 0u64);
        let place = |word: *mut u64| word.expose_provenance() as u64;
        let words = [real, place(&raw mut address), place(&raw mut bytes)];
        let status = self.driver.call(Symbol::cuLinkComplete, &words);
        if let Some(found) = self.links.get(&link) {
            found.options.tell(results);
        }
        if !status.is_success() {
            return Err(status);
        }
        let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= IMAGE_BYTES_MAX);
        let image = self.driver.read(address, bytes.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?);
        let (digest, length) = (self.images.add(&image), image.len());
        results.varint(length as u64);
        results.extend_from_slice(&digest);
        results.run(&image[..length.min(LINKED_PIECE_BYTES)]);
        Ok(())
    }

    /// A piece of an image. The result: the piece.
    pub(super) fn linked(&self, digest: &Digest, offset: u64) -> Outcome {
        let mut results = Vec::new();
        let Some((image, length)) = self.images.with_length(digest) else {
            return (CUresult::ERROR_INVALID_IMAGE, results);
        };
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
        results.run(&image[begin..length.min(begin.saturating_add(LINKED_PIECE_BYTES))]);
        (CUresult::SUCCESS, results)
    }
}
