//! Modules and libraries. An image travels once, by what it hashes to; what it says of its kernels is read here.

use core::ffi::{c_char, c_uint, c_void};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, OnceLock};

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdeviceptr, CUenum, CUfunction, CUkernel, CUlibrary, CUmodule, CUresult};
use sha2::{Digest as _, Sha256};

use super::compiler::Options;
use super::memory;
use crate::client::objects::{Context, Function, Known, Library, Module, lock};
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw, travel};
use crate::image;
use crate::limits::{IMAGE_BYTES_MAX, KERNELS_TOLD_MAX, PIECE_BYTES_MAX};
use crate::wire::operation::{Argument, Arguments, Digest, Names, Operation};
use crate::wire::{Described, Reader, Said};
use crate::word::Word as _;

/// Has the worker keep an image, if it has not already.
pub(super) fn send(client: &Client, context: u32, image: &[u8]) -> Result<Digest, CUresult> {
    if image.len() > IMAGE_BYTES_MAX {
        return Err(CUresult::ERROR_INVALID_IMAGE);
    }
    let digest = Digest::from(Sha256::digest(image));
    let mut sent = lock(&client.sent);
    if !sent.contains(&digest) {
        for (index, bytes) in image.chunks(PIECE_BYTES_MAX).enumerate() {
            let offset = (index * PIECE_BYTES_MAX) as u64;
            let piece = Operation::Image { digest, total: image.len() as u64, offset, bytes };
            client.session.tell(context, &piece)?;
        }
        sent.insert(digest);
    }
    Ok(digest)
}

/// What an image says of its kernels.
fn known(image: &[u8]) -> Known {
    let found = image::kernels(image);
    Known { complete: found.is_some(), layouts: found.unwrap_or_default(), described: HashMap::new() }
}

fn load(module: *mut CUmodule, code: *const c_void, options: &Options) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    if module.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    capture::forbid_unsafe_call(client)?;
    let image = raw::image(code)?;
    let mut kernels = known(image);
    let digest = send(client, context.id, image)?;
    let id = client.modules.number();
    let mut names: Vec<&String> = kernels.layouts.keys().collect();
    names.sort_unstable();
    names.truncate(KERNELS_TOLD_MAX);
    let list = Names::encode(names.iter().map(|name| name.as_str()));
    let load = Operation::Load { module: id, digest, options: &options.records, kernels: Names::of(&list) };
    let reply = client.session.ask(context.id, &load)?;
    let garbled = |_| CUresult::ERROR_UNKNOWN;
    let mut reader = Reader::new(&reply.results);
    if !reader.is_empty() {
        options.write(&Said::decode(&mut reader).map_err(garbled)?)?;
    }
    if !reply.status.is_success() {
        return Err(reply.status);
    }
    let mut described = HashMap::new();
    for name in &names {
        if reader.byte().map_err(garbled)? != 0 {
            described.insert((*name).clone(), Described::decode(&mut reader).map_err(garbled)?);
        }
    }
    kernels.described = described;
    let made =
        Module { id, context: context.id, kernels, functions: Mutex::default(), variables: Mutex::default() };
    client.modules.insert(id, Arc::new(made));
    raw::store(module, CUmodule::from_addr(client.arena.handle(Kind::Module, id)))
}

pub fn cuModuleLoad(module: *mut CUmodule, path: *const c_char) -> Answer {
    client()?;
    let mut bytes = std::fs::read(raw::text(path)?).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CUresult::ERROR_FILE_NOT_FOUND,
        _ => CUresult::ERROR_OPERATING_SYSTEM,
    })?;
    // Room for the terminator, and for a header that is looked at before it is known to be one.
    bytes.extend_from_slice(&[0; 64]);
    load(module, bytes.as_ptr().cast(), &Options::default())
}

pub fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> Answer {
    load(module, image, &Options::default())
}

pub fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
) -> Answer {
    load(module, image, &Options::read(count, options, values)?)
}

pub fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) -> Answer {
    load(module, image, &Options::default())
}

fn find(client: &Client, module: CUmodule) -> Result<Arc<Module>, CUresult> {
    let id = client.arena.id(Kind::Module, module.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    client.modules.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub fn cuModuleUnload(module: CUmodule) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let module = find(client, module)?;
    client.modules.remove(module.id);
    for (_, function) in lock(&module.functions).drain() {
        client.functions.remove(function.id);
    }
    for (_, (address, _)) in lock(&module.variables).drain() {
        lock(&client.allocations).remove(&address);
    }
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(Kind::Module, module.id));
    client.session.tell(context.id, &Operation::Call(Symbol::cuModuleUnload, arguments))
}

/// Whose kernel is looked for.
struct Owner<'a> {
    symbol: Symbol,
    kind: Kind,
    id: u32,
    /// Context of a module, 0 for a library.
    context: u32,
    kernels: &'a Known,
    functions: &'a Mutex<HashMap<String, Arc<Function>>>,
}

/// The kernel of a name; one for each. Where the image has told its name, the worker is not waited for.
fn kernel(client: &Client, context: u32, owner: &Owner<'_>, name: &str) -> Result<u32, CUresult> {
    let mut functions = lock(owner.functions);
    if let Some(function) = functions.get(name) {
        return Ok(function.id);
    }
    let told = owner.kernels.layouts.get(name);
    if told.is_none() && owner.kernels.complete {
        return Err(CUresult::ERROR_NOT_FOUND);
    }
    let id = client.functions.number();
    let mut arguments = Arguments::new();
    arguments.push(Argument::New(Kind::Function, id));
    arguments.push(Argument::Handle(owner.kind, owner.id));
    arguments.push(Argument::Text(name));
    client.session.tell(context, &Operation::Call(owner.symbol, arguments))?;
    let described = OnceLock::new();
    let mut layout = told.cloned().flatten();
    if let Some(known) = owner.kernels.described.get(name) {
        let _first = described.set(known.clone());
    } else if told.is_none() {
        let found = super::function::describe(client, context, id)?;
        layout.clone_from(&found.layout);
        let _first = described.set(found);
    }
    let made = Arc::new(Function {
        id,
        name: CString::new(name).map_err(|_| CUresult::ERROR_NOT_FOUND)?,
        parent: owner.id,
        of_library: owner.kind == Kind::Library,
        context: owner.context,
        layout,
        described,
        dynamic_shared_max: AtomicI32::new(-1),
    });
    client.functions.insert(id, Arc::clone(&made));
    functions.insert(name.to_owned(), made);
    Ok(id)
}

pub fn cuModuleGetFunction(handle: *mut CUfunction, module: CUmodule, name: *const c_char) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let module = find(client, module)?;
    let owner = Owner {
        symbol: Symbol::cuModuleGetFunction,
        kind: Kind::Module,
        id: module.id,
        context: module.context,
        kernels: &module.kernels,
        functions: &module.functions,
    };
    let id = kernel(client, context.id, &owner, raw::text(name)?)?;
    raw::store(handle, CUfunction::from_addr(client.arena.handle(Kind::Function, id)))
}

pub fn cuModuleGetGlobal_v2(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let module = find(client, module)?;
    let text = raw::text(name)?;
    let mut variables = lock(&module.variables);
    if !variables.contains_key(text) {
        let (mut address, mut length) = (0u64, 0u64);
        let symbol = Symbol::cuModuleGetGlobal_v2;
        let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
        let place = |word: *mut u64| word.to_word();
        let module = client.arena.handle(Kind::Module, module.id).to_word();
        let words = [place(&raw mut address), place(&raw mut length), module, name.to_word()];
        travel::by_rule(client, symbol, line, &words, Some(&context))?;
        memory::remember(client, &context, address, length);
        variables.insert(text.to_owned(), (address, length));
    }
    let (address, length) = variables.get(text).copied().ok_or(CUresult::ERROR_NOT_FOUND)?;
    raw::store_if(dptr, address);
    raw::store_if(bytes, usize::try_from(length).unwrap_or(usize::MAX));
    Ok(())
}

/// A variable of a library lives in its module in the current context.
pub fn cuLibraryGetGlobal(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let library = find_library(client, library)?;
    let module = library_module(client, &context, &library)?;
    let module = CUmodule::from_addr(client.arena.handle(Kind::Module, module.id));
    cuModuleGetGlobal_v2(dptr, bytes, module, name)
}

pub fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    jit_options: *mut CUenum,
    jit_values: *mut *mut c_void,
    jit_count: c_uint,
    _options: *mut CUenum,
    _values: *mut *mut c_void,
    _count: c_uint,
) -> Answer {
    let client = client()?;
    client.session.check()?;
    if library.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let options = Options::read(jit_count, jit_options, jit_values)?;
    let image = raw::image(code)?;
    let digest = send(client, 0, image)?;
    let id = client.libraries.number();
    let load = Operation::LoadLibrary { library: id, digest, options: &options.records };
    let reply = client.session.ask(0, &load)?;
    let mut reader = Reader::new(&reply.results);
    if !reader.is_empty() {
        options.write(&Said::decode(&mut reader).map_err(|_| CUresult::ERROR_UNKNOWN)?)?;
    }
    if !reply.status.is_success() {
        return Err(reply.status);
    }
    let made = Library {
        id,
        kernels: Arc::new(known(image)),
        functions: Mutex::default(),
        modules: Mutex::default(),
    };
    client.libraries.insert(id, Arc::new(made));
    raw::store(library, CUlibrary::from_addr(client.arena.handle(Kind::Library, id)))
}

fn find_library(client: &Client, library: CUlibrary) -> Result<Arc<Library>, CUresult> {
    let id = client.arena.id(Kind::Library, library.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    client.libraries.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub fn cuLibraryUnload(library: CUlibrary) -> Answer {
    let client = client()?;
    let library = find_library(client, library)?;
    client.libraries.remove(library.id);
    for (_, function) in lock(&library.functions).drain() {
        client.functions.remove(function.id);
    }
    for (_, module) in lock(&library.modules).drain() {
        client.modules.remove(module.id);
        for (_, function) in lock(&module.functions).drain() {
            client.functions.remove(function.id);
        }
    }
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(Kind::Library, library.id));
    client.session.tell(0, &Operation::Call(Symbol::cuLibraryUnload, arguments))
}

pub fn cuLibraryGetKernel(handle: *mut CUkernel, library: CUlibrary, name: *const c_char) -> Answer {
    let client = client()?;
    let library = find_library(client, library)?;
    let owner = Owner {
        symbol: Symbol::cuLibraryGetKernel,
        kind: Kind::Library,
        id: library.id,
        context: 0,
        kernels: &library.kernels,
        functions: &library.functions,
    };
    let context = current::any(client).map_or(0, |context| context.id);
    let id = kernel(client, context, &owner, raw::text(name)?)?;
    raw::store(handle, CUkernel::from_addr(client.arena.handle(Kind::Function, id)))
}

pub fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let library = find_library(client, library)?;
    let made = library_module(client, &context, &library)?;
    raw::store(module, CUmodule::from_addr(client.arena.handle(Kind::Module, made.id)))
}

/// The library's module in a context, the same every time.
fn library_module(
    client: &Client,
    context: &Arc<Context>,
    library: &Library,
) -> Result<Arc<Module>, CUresult> {
    let mut modules = lock(&library.modules);
    if let Some(module) = modules.get(&context.id) {
        return Ok(Arc::clone(module));
    }
    let symbol = Symbol::cuLibraryGetModule;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let mut handle = 0u64;
    let place = (&raw mut handle).to_word();
    let words = [place, client.arena.handle(Kind::Library, library.id).to_word()];
    let made = travel::by_rule(client, symbol, line, &words, Some(context))?;
    let id = made.first().copied().ok_or(CUresult::ERROR_UNKNOWN)?;
    let kernels = Known {
        complete: library.kernels.complete,
        layouts: library.kernels.layouts.clone(),
        described: HashMap::new(),
    };
    let module = Arc::new(Module {
        id,
        context: context.id,
        kernels,
        functions: Mutex::default(),
        variables: Mutex::default(),
    });
    client.modules.insert(id, Arc::clone(&module));
    modules.insert(context.id, Arc::clone(&module));
    Ok(module)
}
