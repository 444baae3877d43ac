//! Executing a call by its row's rules.

use std::ffi::CString;

use headgate_abi::cuda::remote::{Kind, Len, Line, Rule};
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CU_MEM_LOCATION_TYPE_DEVICE, CUresult};

use super::handles::Entry;
use super::session::Session;
use crate::limits::RESULT_BYTES_MAX;
use crate::wire::operation::{ARGUMENTS_MAX, Argument, Arguments};

impl Session {
    /// Executes a call: its status, and its results one behind the other.
    pub(super) fn call(
        &mut self,
        symbol: Symbol,
        line: &Line,
        arguments: &Arguments<'_>,
    ) -> (CUresult, Vec<u8>) {
        match self.try_call(symbol, line, arguments) {
            Ok(results) => (CUresult::SUCCESS, results),
            Err(status) => (status, Vec::new()),
        }
    }

    fn try_call(
        &mut self,
        symbol: Symbol,
        line: &Line,
        arguments: &Arguments<'_>,
    ) -> Result<Vec<u8>, CUresult> {
        must_be_the_devices(symbol, arguments)?;
        let given = arguments.words();
        let mut words = [0u64; ARGUMENTS_MAX];
        let mut places = [0u64; ARGUMENTS_MAX];
        let mut kept: Vec<Vec<u64>> = Vec::new();
        let mut texts: Vec<CString> = Vec::new();
        // Results of more than a word, by argument.
        let mut wide: [Vec<u64>; ARGUMENTS_MAX] = Default::default();
        for (index, argument) in arguments.all().iter().enumerate() {
            let bytes = match line.args.get(index) {
                Some(Rule::Out(length) | Rule::OutMaybe(length)) => result_bytes(*length, &given),
                _ => 0,
            };
            let mut place = || match bytes {
                0..=8 => (&raw mut places[index]).expose_provenance() as u64,
                _ => {
                    wide[index] = vec![0; bytes.div_ceil(8)];
                    wide[index].as_mut_ptr().expose_provenance() as u64
                }
            };
            words[index] = match *argument {
                Argument::Word(word) => word,
                Argument::Handle(kind, id) | Argument::End(kind, id) => self.handles.real(kind, id)?,
                Argument::New(kind, id) => {
                    self.handles.check_new(kind, id)?;
                    place()
                }
                Argument::Out(true) => place(),
                Argument::Out(false) => 0,
                Argument::In(bytes) => {
                    kept.push(aligned(bytes));
                    kept.last().map_or(0, |copy| copy.as_ptr().expose_provenance() as u64)
                }
                Argument::Text(text) => {
                    texts.push(CString::new(text).map_err(|_| CUresult::ERROR_INVALID_VALUE)?);
                    texts.last().map_or(0, |copy| copy.as_ptr().expose_provenance() as u64)
                }
            };
        }
        self.before(symbol, arguments);
        // The driver writes results into `places`, whose addresses were handed out above.
        let status = self.driver.call(symbol, &words);
        if !status.is_success() {
            return Err(status);
        }
        let mut results = Vec::new();
        for (index, (rule, argument)) in line.args.iter().zip(arguments.all()).enumerate() {
            match (rule, argument) {
                (Rule::Out(length) | Rule::OutMaybe(length), Argument::Out(true)) => {
                    let end = results.len() + result_bytes(*length, &given);
                    let words =
                        if wide[index].is_empty() { &places[index..=index] } else { &wide[index][..] };
                    words.iter().for_each(|word| results.extend_from_slice(&word.to_le_bytes()));
                    results.truncate(end);
                }
                (Rule::New(kind), Argument::New(_, id)) => self.keep(*kind, *id, places[index], arguments),
                (Rule::End(kind), Argument::End(_, id)) => self.handles.remove(*kind, *id),
                _ => {}
            }
        }
        self.after(symbol, arguments);
        Ok(results)
    }

    /// Remembers a new handle and what it belongs to.
    fn keep(&mut self, kind: Kind, id: u32, real: u64, arguments: &Arguments<'_>) {
        let parent = arguments.all().iter().find_map(|argument| match argument {
            Argument::Handle(Kind::Module, id) => Some((*id, false)),
            Argument::Handle(Kind::Library, id) => Some((*id, true)),
            _ => None,
        });
        let (parent, of_library) = parent.unwrap_or_default();
        // Libraries' kernels, pools and contexts themselves end with no context.
        let context = match kind {
            Kind::Context | Kind::Library | Kind::Pool | Kind::Graph | Kind::Exec | Kind::Physical => 0,
            Kind::Function if of_library => 0,
            _ => self.current,
        };
        self.handles.insert(kind, id, Entry { real, context, parent, of_library });
    }

    /// What has to happen before the driver hears of a call.
    fn before(&mut self, symbol: Symbol, arguments: &Arguments<'_>) {
        match symbol {
            Symbol::cuCtxDestroy_v2 => {
                if let [Argument::End(_, id)] = arguments.all() {
                    self.watch.drain(*id);
                }
            }
            Symbol::cuDevicePrimaryCtxReset
            | Symbol::cuDevicePrimaryCtxReset_v2
            | Symbol::cuDevicePrimaryCtxRelease
            | Symbol::cuDevicePrimaryCtxRelease_v2 => {
                if let Some(id) = self.primary(arguments) {
                    self.watch.drain(id);
                }
            }
            _ => {}
        }
    }

    /// What has to happen after a call that succeeded.
    fn after(&mut self, symbol: Symbol, arguments: &Arguments<'_>) {
        match symbol {
            Symbol::cuCtxCreate_v2 => {
                // It was made current; what is current here follows the operations.
                let _status = self.driver.call(Symbol::cuCtxPopCurrent_v2, &[0]);
                self.enter(self.current);
            }
            Symbol::cuCtxDestroy_v2 => {
                if let [Argument::End(_, id)] = arguments.all() {
                    self.recall.ended(*id);
                    self.late.ended(*id);
                    if *id == self.current {
                        self.enter(0);
                    }
                }
            }
            Symbol::cuMemFree_v2 => {
                if let [Argument::Word(address)] = arguments.all() {
                    self.recall.freed(*address);
                }
            }
            Symbol::cuLinkDestroy => {
                if let [Argument::End(_, id)] = arguments.all() {
                    self.links.remove(id);
                }
            }
            Symbol::cuDevicePrimaryCtxRetain => {
                if let [Argument::New(_, id), Argument::Word(device)] = arguments.all() {
                    self.primaries.insert(*device, *id);
                }
            }
            Symbol::cuDevicePrimaryCtxReset
            | Symbol::cuDevicePrimaryCtxReset_v2
            | Symbol::cuDevicePrimaryCtxRelease
            | Symbol::cuDevicePrimaryCtxRelease_v2 => {
                if let (Some(id), [Argument::Word(device)]) = (self.primary(arguments), arguments.all())
                    && !self.is_active(*device)
                {
                    self.handles.remove(Kind::Context, id);
                    self.primaries.remove(device);
                    self.recall.ended(id);
                    self.late.ended(id);
                    if id == self.current {
                        self.enter(0);
                    }
                }
            }
            _ => {}
        }
    }

    /// The number of the primary context of the device a call names.
    fn primary(&self, arguments: &Arguments<'_>) -> Option<u32> {
        match arguments.all() {
            [Argument::Word(device)] => self.primaries.get(device).copied(),
            _ => None,
        }
    }

    fn is_active(&self, device: u64) -> bool {
        let (mut flags, mut active) = (0u32, 0u32);
        let place = |word: *mut u32| word.expose_provenance() as u64;
        let words = [device, place(&raw mut flags), place(&raw mut active)];
        self.driver.call(Symbol::cuDevicePrimaryCtxGetState, &words).is_success() && active != 0
    }
}

/// Physical memory and pools of a client are the device's: those of the host would be this node's, and count for nobody.
fn must_be_the_devices(symbol: Symbol, arguments: &Arguments<'_>) -> Result<(), CUresult> {
    /// Where `CUmemAllocationProp` and `CUmemPoolProps` hold the type of the location.
    const LOCATION: std::ops::Range<usize> = 8..12;
    if !matches!(symbol, Symbol::cuMemCreate | Symbol::cuMemPoolCreate) {
        return Ok(());
    }
    let device = CU_MEM_LOCATION_TYPE_DEVICE.to_le_bytes();
    let is_device = |argument: &Argument<'_>| match argument {
        Argument::In(properties) => properties.get(LOCATION) == Some(&device[..]),
        _ => false,
    };
    match arguments.all().iter().any(is_device) {
        true => Ok(()),
        false => Err(CUresult::ERROR_NOT_SUPPORTED),
    }
}

/// A copy that is aligned for any structure of words.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    // One more, so that even nothing has an address.
    bytes.chunks(8).map(word).chain([0]).collect()
}

/// Bytes of a result.
fn result_bytes(length: Len, words: &[u64]) -> usize {
    length.of(words).unwrap_or(0).min(RESULT_BYTES_MAX)
}
