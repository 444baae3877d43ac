//! The driver's linker. Inputs travel as images do; what comes of them is fetched, because programs read it.

use core::ffi::{c_char, c_uint, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUenum, CUlinkState, CUresult};

use super::compiler::Options;
use super::module::send;
use crate::client::objects::lock;
use crate::client::session::Reply;
use crate::client::state::{Client, client};
use crate::client::{Answer, current, raw};
use crate::limits::{IMAGE_BYTES_MAX, LINKED_PIECE_BYTES};
use crate::wire::operation::{Argument, Arguments, Digest, Operation};
use crate::wire::{Malformed, Reader, Said};

/// The greatest `CUjitInputType`, `CU_JIT_INPUT_NVVM`.
const LAST_INPUT: CUenum = 5;

/// A link under way.
#[derive(Debug)]
pub(in crate::client) struct Link {
    id: u32,
    context: u32,
    /// Where the program wants to read what was said, until the link ends.
    options: Mutex<Options>,
    /// What came of it; the program reads it until the link ends.
    image: OnceLock<Vec<u8>>,
}

impl Link {
    /// The context it was begun in.
    pub(in crate::client) fn context(&self) -> u32 {
        self.context
    }
}

fn find(client: &Client, state: CUlinkState) -> Result<Arc<Link>, CUresult> {
    let id = client.arena.id(Kind::Link, state.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    client.links.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

fn garbled(_: Malformed) -> CUresult {
    CUresult::ERROR_UNKNOWN
}

/// Hands on what the linker said, and gives the rest of the results of a call that succeeded.
fn heard<'a>(options: &Options, reply: &'a Reply) -> Result<Reader<'a>, CUresult> {
    let mut reader = Reader::new(&reply.results);
    if !reader.is_empty() {
        options.write(&Said::decode(&mut reader).map_err(garbled)?)?;
    }
    if reply.status.is_success() { Ok(reader) } else { Err(reply.status) }
}

pub fn cuLinkCreate_v2(
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    if state.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let options = Options::read(count, options, values)?;
    let id = client.links.number();
    let create = Operation::LinkCreate { link: id, options: &options.records };
    let reply = client.session.ask(context.id, &create)?;
    heard(&options, &reply)?;
    let made = Link { id, context: context.id, options: Mutex::new(options), image: OnceLock::new() };
    client.links.insert(id, Arc::new(made));
    raw::store(state, CUlinkState::from_addr(client.arena.handle(Kind::Link, id)))
}

fn add(client: &Client, link: &Link, kind: CUenum, data: &[u8], name: &str, options: &Options) -> Answer {
    if LAST_INPUT < kind || data.is_empty() || IMAGE_BYTES_MAX < data.len() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let digest = send(client, link.context, data)?;
    let add = Operation::LinkAdd { link: link.id, kind, digest, name, options: &options.records };
    let reply = client.session.ask(link.context, &add)?;
    heard(&lock(&link.options), &reply).map(|_| ())
}

pub fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUenum,
    data: *mut c_void,
    size: usize,
    name: *const c_char,
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
) -> Answer {
    let client = client()?;
    current::context(client)?;
    let link = find(client, state)?;
    let name = if name.is_null() { "" } else { raw::text(name)? };
    add(client, &link, kind, raw::bytes(data, size)?, name, &Options::read(count, options, values)?)
}

pub fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUenum,
    path: *const c_char,
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
) -> Answer {
    let client = client()?;
    current::context(client)?;
    let link = find(client, state)?;
    let path = raw::text(path)?;
    let bytes = std::fs::read(path).map_err(|_| CUresult::ERROR_FILE_NOT_FOUND)?;
    add(client, &link, kind, &bytes, path, &Options::read(count, options, values)?)
}

/// Asks for the rest of an image whose beginning is there.
fn fetch(client: &Client, context: u32, digest: Digest, image: &mut Vec<u8>, total: usize) -> Answer {
    while image.len() < total {
        let ask = Operation::Linked { digest, offset: image.len() as u64 };
        let reply = client.session.ask(context, &ask)?;
        if !reply.status.is_success() {
            return Err(reply.status);
        }
        let piece = Reader::new(&reply.results).run(LINKED_PIECE_BYTES).map_err(garbled)?.to_vec();
        if piece.is_empty() || total - image.len() < piece.len() {
            return Err(CUresult::ERROR_UNKNOWN);
        }
        image.extend_from_slice(&piece);
    }
    Ok(())
}

fn complete(client: &Client, link: &Link) -> Result<Vec<u8>, CUresult> {
    let reply = client.session.ask(link.context, &Operation::LinkComplete { link: link.id })?;
    let mut reader = heard(&lock(&link.options), &reply)?;
    let total = usize::try_from(reader.varint().map_err(garbled)?).unwrap_or(usize::MAX);
    let mut digest = Digest::default();
    let told = reader.exact(size_of::<Digest>()).map_err(garbled)?;
    digest.copy_from_slice(told);
    let mut image = reader.run(LINKED_PIECE_BYTES).map_err(garbled)?.to_vec();
    if IMAGE_BYTES_MAX < total || total < image.len() {
        return Err(CUresult::ERROR_UNKNOWN);
    }
    fetch(client, link.context, digest, &mut image, total)?;
    // The worker has it already: loading it sends nothing.
    lock(&client.sent).insert(digest);
    Ok(image)
}

/// The image lives as long as the link.
pub fn cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, size: *mut usize) -> Answer {
    let client = client()?;
    current::context(client)?;
    let link = find(client, state)?;
    if link.image.get().is_none() {
        let made = complete(client, &link)?;
        let _by_another_thread = link.image.set(made);
    }
    let made = link.image.get().ok_or(CUresult::ERROR_UNKNOWN)?;
    raw::store_if(size, made.len());
    raw::store(image, made.as_ptr().cast_mut().cast())
}

pub fn cuLinkDestroy(state: CUlinkState) -> Answer {
    let client = client()?;
    let link = find(client, state)?;
    client.links.remove(link.id);
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(Kind::Link, link.id));
    client.session.tell(link.context, &Operation::Call(Symbol::cuLinkDestroy, arguments))
}
