//! Calls that travel by their row's rules.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::{Class, Kind, Len, Line, Rule};
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::objects::{Context, Stream};
use super::state::{Client, client};
use super::{Answer, capture, current, raw};
use crate::wire::operation::{Argument, Arguments, Operation};
use crate::word::Word as _;

/// A call by rule, of a program's own arguments as words.
///
/// # Errors
/// The driver's.
pub fn plain(symbol: Symbol, words: &[u64]) -> Answer {
    let client = client()?;
    client.session.check()?;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let context = if line.bound { Some(current::context(client)?) } else { current::any(client).ok() };
    by_rule(client, symbol, line, words, context.as_ref()).map(|_| ())
}

/// Numbers of handles that a call made, in order.
pub(super) type Made = Vec<u32>;

/// Sends a call by rule and, where its class says so, waits for its results and stores them.
pub(super) fn by_rule(
    client: &Client,
    symbol: Symbol,
    line: &Line,
    words: &[u64],
    context: Option<&Arc<Context>>,
) -> Result<Made, CUresult> {
    if !ranges(symbol, words).into_iter().all(|(at, bytes)| client.session.credits.admits(at, bytes)) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if matches!(symbol, Symbol::cuStreamWaitValue32_v2 | Symbol::cuStreamWaitValue64_v2) {
        client.session.waits_for_words.store(true, Ordering::Release);
    }
    let mut arguments = Arguments::new();
    let mut touched: Option<Arc<Stream>> = None;
    let mut made: Vec<(Kind, u32, u64)> = Vec::new();
    for (rule, &word) in line.args.iter().zip(words) {
        arguments.push(match *rule {
            Rule::Word | Rule::Address => Argument::Word(word),
            Rule::Handle(Kind::Stream) => {
                let context = context.ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
                let stream = current::stream(client, context, usize::from_word(word))?;
                capture::admit(client, &stream)?;
                let id = stream.id;
                touched = Some(stream);
                Argument::Handle(Kind::Stream, id)
            }
            Rule::Handle(kind) => Argument::Handle(kind, id(client, kind, word)?),
            Rule::End(kind) => Argument::End(kind, id(client, kind, word)?),
            Rule::New(kind) => {
                if word == 0 {
                    return Err(CUresult::ERROR_INVALID_VALUE);
                }
                let id = number(client, kind);
                made.push((kind, id, word));
                Argument::New(kind, id)
            }
            Rule::Out(_) if word == 0 => return Err(CUresult::ERROR_INVALID_VALUE),
            Rule::Out(_) | Rule::OutMaybe(_) => Argument::Out(word != 0),
            Rule::In(length) => {
                let length = length.of(words).ok_or(CUresult::ERROR_INVALID_VALUE)?;
                Argument::In(raw::bytes(Word::<core::ffi::c_void>::pointer(word), length)?)
            }
            Rule::Text => Argument::Text(raw::text(Word::<core::ffi::c_char>::pointer(word))?),
        });
    }
    let number = context.map_or(0, |context| context.id);
    let operation = Operation::Call(symbol, arguments);
    if matches!(line.class, Class::Reply | Class::Sync) {
        let reply = client.session.ask(number, &operation)?;
        if !reply.status.is_success() {
            return Err(reply.status);
        }
        store_results(line, words, &reply.results)?;
    } else {
        client.session.tell(number, &operation)?;
    }
    if let Some(stream) = touched {
        stream.touch(client.session.placed());
    }
    for &(kind, id, place) in &made {
        raw::store_if(Word::<usize>::pointer(place).cast_mut(), client.arena.handle(kind, id));
    }
    Ok(made.into_iter().map(|(_, id, _)| id).collect())
}

/// Device memory that a call is about, where the client can tell: first addresses and bytes. What is of the driver's own
/// making the driver checks; of memory that was carved from a larger piece it cannot know where it ends.
fn ranges(symbol: Symbol, words: &[u64]) -> [(u64, u64); 2] {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    let run = |element: u64| [(word(0), word(2).saturating_mul(element)), (0, 0)];
    let rows = |element: u64| {
        let (pitch, width, height) = (word(1), word(3).saturating_mul(element), word(4));
        let before = pitch.saturating_mul(height.saturating_sub(1));
        [(word(0), if height == 0 { 0 } else { before.saturating_add(width) }), (0, 0)]
    };
    match symbol {
        Symbol::cuMemcpyDtoDAsync_v2 => [(word(0), word(2)), (word(1), word(2))],
        Symbol::cuMemsetD8Async => run(1),
        Symbol::cuMemsetD16Async => run(2),
        Symbol::cuMemsetD32Async => run(4),
        Symbol::cuMemsetD2D8Async => rows(1),
        Symbol::cuMemsetD2D16Async => rows(2),
        Symbol::cuMemsetD2D32Async => rows(4),
        Symbol::cuStreamWriteValue32_v2 | Symbol::cuStreamWaitValue32_v2 => [(word(1), 4), (0, 0)],
        Symbol::cuStreamWriteValue64_v2 | Symbol::cuStreamWaitValue64_v2 => [(word(1), 8), (0, 0)],
        _ => [(0, 0); 2],
    }
}

/// Pointers from words.
struct Word<T>(core::marker::PhantomData<T>);

impl<T> Word<T> {
    fn pointer(word: u64) -> *const T {
        <*const T>::from_word(word)
    }
}

/// Writes results where the program wants them.
fn store_results(line: &Line, words: &[u64], mut results: &[u8]) -> Answer {
    for (rule, &word) in line.args.iter().zip(words) {
        let (Rule::Out(length) | Rule::OutMaybe(length)) = rule else { continue };
        if word == 0 {
            continue;
        }
        let bytes = Len::of(*length, words).unwrap_or(0);
        // A worker that answers less than was asked is no driver.
        let (result, rest) = results.split_at_checked(bytes).ok_or(CUresult::ERROR_UNKNOWN)?;
        raw::put(Word::<core::ffi::c_void>::pointer(word).cast_mut(), result);
        results = rest;
    }
    Ok(())
}

/// A number for something new.
fn number(client: &Client, kind: Kind) -> u32 {
    match kind {
        Kind::Context => client.contexts.number(),
        Kind::Stream => client.streams.number(),
        Kind::Event => client.events.number(),
        Kind::Module => client.modules.number(),
        Kind::Function => client.functions.number(),
        Kind::Library => client.libraries.number(),
        Kind::Pool => client.pools.number(),
        Kind::Graph => client.graphs.number(),
        Kind::Exec => client.execs.number(),
        Kind::Physical => client.physical.number(),
        Kind::Link => client.links.number(),
    }
}

/// The number of a live handle; 0 for null.
fn id(client: &Client, kind: Kind, word: u64) -> Result<u32, CUresult> {
    if word == 0 {
        return match kind {
            Kind::Pool => Ok(0),
            _ => Err(CUresult::ERROR_INVALID_HANDLE),
        };
    }
    let id = client.arena.id(kind, usize::from_word(word)).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let live = match kind {
        Kind::Context => client.contexts.get(id).is_some(),
        Kind::Stream => client.streams.get(id).is_some(),
        Kind::Event => client.events.get(id).is_some(),
        Kind::Module => client.modules.get(id).is_some(),
        Kind::Function => client.functions.get(id).is_some(),
        Kind::Library => client.libraries.get(id).is_some(),
        Kind::Graph => client.graphs.get(id).is_some(),
        Kind::Exec => client.execs.get(id).is_some(),
        Kind::Physical => client.physical.get(id).is_some(),
        Kind::Link => client.links.get(id).is_some(),
        // The worker knows which pools are.
        Kind::Pool => true,
    };
    if live { Ok(id) } else { Err(CUresult::ERROR_INVALID_HANDLE) }
}
