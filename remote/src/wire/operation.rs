//! What a session's two ends say to each other.
//!
//! The client's operations are numbered from 1 by counting; the number is never sent. The worker's notices name it.

use headgate_abi::cuda::remote::{Kind, Line, Rule};
use headgate_abi::cuda::symbols::{COUNT, SYMBOLS, Symbol};

use super::codec::{Malformed, Put, Reader};
use super::large::{LateHead, WriteHead};
pub use super::notice::Notice;
use crate::limits::{
    FRAME_BYTES_MAX, IMAGE_BYTES_MAX, KERNELS_TOLD_MAX, LAUNCH_ATTRIBUTES_MAX, NAME_BYTES_MAX,
    PARAMETER_BYTES_MAX, PIECE_BYTES_MAX,
};

/// Most arguments of any call that travels by rule.
pub const ARGUMENTS_MAX: usize = 8;
/// Bytes of `CUlaunchAttribute`.
pub const LAUNCH_ATTRIBUTE_BYTES: usize = 72;
/// What an image is known by: its SHA-256.
pub type Digest = [u8; 32];

/// An argument on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument<'a> {
    /// By value.
    Word(u64),
    /// A handle by its number, 0 for null.
    Handle(Kind, u32),
    /// The number of a handle to be made.
    New(Kind, u32),
    /// The number of a handle that ends.
    End(Kind, u32),
    /// Whether a result is wanted.
    Out(bool),
    /// Bytes read by the call.
    In(&'a [u8]),
    /// A text read by the call.
    Text(&'a str),
}

/// The arguments of a call, as many as its row has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arguments<'a> {
    list: [Argument<'a>; ARGUMENTS_MAX],
    count: usize,
}

impl<'a> Arguments<'a> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { list: [Argument::Word(0); ARGUMENTS_MAX], count: 0 }
    }

    /// Adds one. More than any row has are dropped; the table's tests keep rows within the bound.
    pub fn push(&mut self, argument: Argument<'a>) {
        if let Some(place) = self.list.get_mut(self.count) {
            *place = argument;
            self.count += 1;
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Argument<'a>] {
        &self.list[..self.count]
    }

    /// The arguments as words, where those that are not numbers count as 0: what [`Len::of`] looks at.
    ///
    /// [`Len::of`]: headgate_abi::cuda::remote::Len::of
    #[must_use]
    pub fn words(&self) -> [u64; ARGUMENTS_MAX] {
        self.list.map(|argument| match argument {
            Argument::Word(word) => word,
            _ => 0,
        })
    }

    fn encode(&self, to: &mut Vec<u8>) {
        for argument in self.all() {
            match *argument {
                Argument::Word(word) => to.varint(word),
                Argument::Handle(_, id) | Argument::New(_, id) | Argument::End(_, id) => to.varint(id.into()),
                Argument::Out(wanted) => to.push(wanted.into()),
                Argument::In(bytes) => to.run(bytes),
                Argument::Text(text) => to.run(text.as_bytes()),
            }
        }
    }

    fn decode(rules: &[Rule], from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut arguments = Self::new();
        for rule in rules {
            arguments.push(match *rule {
                Rule::Word | Rule::Address => Argument::Word(from.varint()?),
                Rule::Handle(kind) => Argument::Handle(kind, from.varint32()?),
                Rule::New(kind) => Argument::New(kind, from.varint32()?),
                Rule::End(kind) => Argument::End(kind, from.varint32()?),
                Rule::Out(_) | Rule::OutMaybe(_) => match from.byte()? {
                    0 => Argument::Out(false),
                    1 => Argument::Out(true),
                    other => return Err(Malformed::Unknown { what: "a wish", value: other.into() }),
                },
                Rule::In(_) => Argument::In(from.run(PIECE_BYTES_MAX)?),
                Rule::Text => Argument::Text(from.text(NAME_BYTES_MAX)?),
            });
        }
        // What lengths depend on may stand behind the bytes themselves.
        let words = arguments.words();
        for (rule, argument) in rules.iter().zip(arguments.all()) {
            if let (Rule::In(length), Argument::In(bytes)) = (rule, argument)
                && length.of(&words) != Some(bytes.len())
            {
                return Err(Malformed::Misplaced("bytes that are not as many as their call says"));
            }
        }
        Ok(arguments)
    }
}

impl Default for Arguments<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A launch, without its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Shape {
    /// The kernel, by its number.
    pub function: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether its blocks run all at once.
    pub cooperative: bool,
}

/// What the client tells the worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// A call that travels by rule.
    Call(Symbol, Arguments<'a>),
    /// The context of what follows.
    Context(u32),
    /// Starts a kernel.
    Launch {
        /// What, and how much of it.
        shape: Shape,
        /// Where.
        stream: u32,
        /// Launch attributes, as `cuda.h` lays them out.
        attributes: &'a [u8],
        /// The parameter block.
        parameters: &'a [u8],
    },
    /// Remembers a launch's shape under a number, replacing what was there.
    Template {
        /// The number, below [`TEMPLATES`].
        slot: u8,
        /// What to remember.
        shape: Shape,
        /// The parameter block it starts from.
        parameters: &'a [u8],
    },
    /// Launches a remembered shape, with some 8-byte words of its parameters replaced for good.
    Again {
        /// Which shape.
        slot: u8,
        /// Where.
        stream: u32,
        /// Bit n: word n of the parameters has changed and stands in `words`.
        changed: u64,
        /// The changed words, in order.
        words: &'a [u8],
    },
    /// Host bytes to device memory, in stream order.
    Write {
        /// In which stream.
        stream: u32,
        /// Device address.
        to: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Device memory to the host, in stream order.
    Read {
        /// In which stream.
        stream: u32,
        /// Device address.
        from: u64,
        /// How many bytes.
        bytes: u64,
        /// What the client knows it by.
        token: u64,
    },
    /// Tell me when a stream has come here.
    Fence {
        /// Which stream.
        stream: u32,
        /// What the client knows it by.
        token: u64,
    },
    /// Records an event, and tells when it is complete.
    Record {
        /// Which event.
        event: u32,
        /// In which stream.
        stream: u32,
        /// `cuEventRecordWithFlags`.
        flags: u32,
        /// What the client knows it by.
        token: u64,
    },
    /// A piece of an image.
    Image {
        /// Of which image.
        digest: Digest,
        /// All of its bytes.
        total: u64,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        bytes: &'a [u8],
    },
    /// Loads an image that was sent, into the current context.
    Load {
        /// The module's number.
        module: u32,
        /// The image.
        digest: Digest,
        /// Bits of `CUjit_option`s to pass on: identifier and value, four bytes each.
        options: &'a [u8],
        /// Names of kernels whose attributes the reply shall tell.
        kernels: Names<'a>,
    },
    /// Loads an image that was sent as a library.
    LoadLibrary {
        /// The library's number.
        library: u32,
        /// The image.
        digest: Digest,
        /// As in `Load`; told by a later question.
        options: &'a [u8],
    },
    /// Attributes of kernels of a library, in the current context.
    Describe {
        /// The kernel.
        function: u32,
    },
    /// Begins a link of code, in the current context.
    LinkCreate {
        /// The link's number.
        link: u32,
        /// As in `Load`.
        options: &'a [u8],
    },
    /// Adds an input that was sent as an image.
    LinkAdd {
        /// To which link.
        link: u32,
        /// `CUjitInputType`.
        kind: u32,
        /// The input.
        digest: Digest,
        /// What the linker shall call it.
        name: &'a str,
        /// As in `Load`.
        options: &'a [u8],
    },
    /// Finishes a link. What came of it is an image that was never sent, known by its digest; the reply tells it and
    /// begins to tell the image itself.
    LinkComplete {
        /// Which link.
        link: u32,
    },
    /// A piece of an image the worker has.
    Linked {
        /// The image.
        digest: Digest,
        /// Where the piece begins.
        offset: u64,
    },
    /// The program has waited for something. A driver gives back what pools keep too much of when it is waited for, and
    /// waiting here is nobody's business but the client's.
    Settle,
    /// Device memory of the current context, ahead of its use. Its address, where there is plenty.
    Ahead {
        /// How many bytes.
        bytes: u64,
    },
    /// Memory that was taken ahead is given back inside the client: what follows begins when the current context's work is
    /// done, as behind a `cuMemFree`.
    Barrier,
    /// What NVML on the worker's node says of a device.
    Observe {
        /// Which device.
        device: u32,
    },
    /// Gives back memory of the current context that was taken ahead and that was called back. Where that would wait for work of
    /// the context for too long, the answer is [`CUresult::ERROR_NOT_READY`], and the memory is the client's as before.
    ///
    /// [`CUresult::ERROR_NOT_READY`]: headgate_abi::cuda::types::CUresult::ERROR_NOT_READY
    GiveBack {
        /// Where it begins.
        address: u64,
    },
    /// A stream waits from here on until [`Operation::Late`] bytes have come whole: the worker asks for them
    /// ([`Notice::Fetch`]) when the stream has come here, and tells when they are in their place. This is the last operation of
    /// its frame.
    Hold {
        /// Which stream.
        stream: u32,
        /// What the client knows it by; not 0.
        token: u64,
    },
    /// Host bytes that were asked for, to device memory. It has a frame for itself, may come before operations that were
    /// numbered earlier, and is not numbered itself.
    Late {
        /// For which stream that waits.
        token: u64,
        /// Device address.
        to: u64,
        /// Whether they are the last, and the stream goes on behind them.
        last: bool,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// All that could be given back at a call was.
    GaveBack {
        /// Which call.
        call: u32,
    },
    /// The default pool of a device, under a number.
    DefaultPool {
        /// Which device.
        device: u32,
        /// The pool's number.
        pool: u32,
    },
    /// The session is over; nothing is to be kept for it.
    Goodbye,
}

/// Shapes a session may have remembered at a time.
pub const TEMPLATES: usize = 64;

/// A list of names, not yet taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Names<'a> {
    bytes: &'a [u8],
}

impl<'a> Names<'a> {
    /// Names in the form they travel in.
    #[must_use]
    pub fn encode<'n>(names: impl Iterator<Item = &'n str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.run(name.as_bytes());
        }
        bytes
    }

    /// From that form.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Result<&'a str, Malformed>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let mut count = 0;
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            count += 1;
            if count > KERNELS_TOLD_MAX {
                return Some(Err(Malformed::Misplaced("more names than are told")));
            }
            Some(reader.text(NAME_BYTES_MAX))
        })
    }
}

pub(super) mod code {
    pub(super) const CALL: u8 = 1;
    pub(super) const CONTEXT: u8 = 2;
    pub(super) const LAUNCH: u8 = 3;
    pub(super) const TEMPLATE: u8 = 4;
    pub(super) const AGAIN: u8 = 5;
    pub(in crate::wire) const WRITE: u8 = 6;
    pub(super) const READ: u8 = 7;
    pub(super) const FENCE: u8 = 8;
    pub(super) const RECORD: u8 = 9;
    pub(super) const IMAGE: u8 = 10;
    pub(super) const LOAD: u8 = 11;
    pub(super) const LOAD_LIBRARY: u8 = 12;
    pub(super) const DESCRIBE: u8 = 13;
    pub(super) const DEFAULT_POOL: u8 = 14;
    pub(super) const GOODBYE: u8 = 15;
    pub(super) const LINK_CREATE: u8 = 16;
    pub(super) const LINK_ADD: u8 = 17;
    pub(super) const LINK_COMPLETE: u8 = 18;
    pub(super) const LINKED: u8 = 19;
    pub(super) const OBSERVE: u8 = 20;
    pub(super) const SETTLE: u8 = 21;
    pub(super) const AHEAD: u8 = 22;
    pub(super) const BARRIER: u8 = 23;
    pub(super) const GIVE_BACK: u8 = 24;
    pub(super) const GAVE_BACK: u8 = 25;
    pub(super) const HOLD: u8 = 26;
    pub(in crate::wire) const LATE: u8 = 27;
}

fn put_shape(to: &mut Vec<u8>, shape: &Shape) {
    to.varint(shape.function.into());
    for side in shape.grid.into_iter().chain(shape.block) {
        to.varint(side.into());
    }
    to.varint(shape.shared_bytes.into());
    to.push(shape.cooperative.into());
}

fn take_shape(from: &mut Reader<'_>) -> Result<Shape, Malformed> {
    let function = from.varint32()?;
    let mut sides = [0; 6];
    for side in &mut sides {
        *side = from.varint32()?;
    }
    let [gx, gy, gz, bx, by, bz] = sides;
    let shared_bytes = from.varint32()?;
    let cooperative = match from.byte()? {
        0 => false,
        1 => true,
        other => return Err(Malformed::Unknown { what: "a launch", value: other.into() }),
    };
    Ok(Shape { function, grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes, cooperative })
}

fn take_digest(from: &mut Reader<'_>) -> Result<Digest, Malformed> {
    let mut digest = [0; 32];
    digest.copy_from_slice(from.exact(32)?);
    Ok(digest)
}

fn take_slot(from: &mut Reader<'_>) -> Result<u8, Malformed> {
    match from.byte()? {
        slot if usize::from(slot) < TEMPLATES => Ok(slot),
        other => Err(Malformed::Unknown { what: "a remembered launch", value: other.into() }),
    }
}

impl<'a> Operation<'a> {
    /// Adds the operation to a payload.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Call(symbol, arguments) => {
                to.push(code::CALL);
                to.varint(symbol.index() as u64);
                arguments.encode(to);
            }
            Self::Context(id) => {
                to.push(code::CONTEXT);
                to.varint((*id).into());
            }
            Self::Launch { shape, stream, attributes, parameters } => {
                to.push(code::LAUNCH);
                put_shape(to, shape);
                to.varint((*stream).into());
                to.run(attributes);
                to.run(parameters);
            }
            Self::Template { slot, shape, parameters } => {
                to.push(code::TEMPLATE);
                to.push(*slot);
                put_shape(to, shape);
                to.run(parameters);
            }
            Self::Again { slot, stream, changed, words } => {
                to.push(code::AGAIN);
                to.push(*slot);
                to.varint((*stream).into());
                to.varint(*changed);
                to.extend_from_slice(words);
            }
            Self::Write { stream, to: address, bytes } => {
                WriteHead { stream: *stream, to: *address, bytes: bytes.len() }.encode(to);
                to.extend_from_slice(bytes);
            }
            Self::Read { stream, from, bytes, token } => {
                to.push(code::READ);
                to.varint((*stream).into());
                to.varint(*from);
                to.varint(*bytes);
                to.varint(*token);
            }
            Self::Fence { stream, token } => {
                to.push(code::FENCE);
                to.varint((*stream).into());
                to.varint(*token);
            }
            Self::Record { event, stream, flags, token } => {
                to.push(code::RECORD);
                to.varint((*event).into());
                to.varint((*stream).into());
                to.varint((*flags).into());
                to.varint(*token);
            }
            Self::Late { token, to: address, last, bytes } => {
                LateHead { token: *token, to: *address, last: *last, bytes: bytes.len() }.encode(to);
                to.extend_from_slice(bytes);
            }
            _ => self.encode_rare(to),
        }
    }

    fn encode_rare(&self, to: &mut Vec<u8>) {
        match self {
            Self::Image { digest, total, offset, bytes } => {
                to.push(code::IMAGE);
                to.extend_from_slice(digest);
                to.varint(*total);
                to.varint(*offset);
                to.run(bytes);
            }
            Self::Load { module, digest, options, kernels } => {
                to.push(code::LOAD);
                to.varint((*module).into());
                to.extend_from_slice(digest);
                to.run(options);
                to.run(kernels.bytes);
            }
            Self::LoadLibrary { library, digest, options } => {
                to.push(code::LOAD_LIBRARY);
                to.varint((*library).into());
                to.extend_from_slice(digest);
                to.run(options);
            }
            Self::Describe { function } => {
                to.push(code::DESCRIBE);
                to.varint((*function).into());
            }
            Self::DefaultPool { device, pool } => {
                to.push(code::DEFAULT_POOL);
                to.varint((*device).into());
                to.varint((*pool).into());
            }
            Self::LinkCreate { link, options } => {
                to.push(code::LINK_CREATE);
                to.varint((*link).into());
                to.run(options);
            }
            Self::LinkAdd { link, kind, digest, name, options } => {
                to.push(code::LINK_ADD);
                to.varint((*link).into());
                to.varint((*kind).into());
                to.extend_from_slice(digest);
                to.run(name.as_bytes());
                to.run(options);
            }
            Self::LinkComplete { link } => {
                to.push(code::LINK_COMPLETE);
                to.varint((*link).into());
            }
            Self::Linked { digest, offset } => {
                to.push(code::LINKED);
                to.extend_from_slice(digest);
                to.varint(*offset);
            }
            Self::Observe { device } => {
                to.push(code::OBSERVE);
                to.varint((*device).into());
            }
            Self::Ahead { bytes } => {
                to.push(code::AHEAD);
                to.varint(*bytes);
            }
            Self::Barrier => to.push(code::BARRIER),
            Self::GiveBack { address } => {
                to.push(code::GIVE_BACK);
                to.varint(*address);
            }
            Self::Hold { stream, token } => {
                to.push(code::HOLD);
                to.varint((*stream).into());
                to.varint(*token);
            }
            Self::GaveBack { call } => {
                to.push(code::GAVE_BACK);
                to.varint((*call).into());
            }
            Self::Settle => to.push(code::SETTLE),
            _ => to.push(code::GOODBYE),
        }
    }

    /// Takes the next operation.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            code::CALL => {
                let index = from.varint()?;
                let (symbol, line) = travelling(index)?;
                Self::Call(symbol, Arguments::decode(line.args, from)?)
            }
            code::CONTEXT => Self::Context(from.varint32()?),
            code::LAUNCH => Self::Launch {
                shape: take_shape(from)?,
                stream: from.varint32()?,
                attributes: whole(
                    from.run(LAUNCH_ATTRIBUTES_MAX * LAUNCH_ATTRIBUTE_BYTES)?,
                    LAUNCH_ATTRIBUTE_BYTES,
                )?,
                parameters: from.run(PARAMETER_BYTES_MAX)?,
            },
            code::TEMPLATE => Self::Template {
                slot: take_slot(from)?,
                shape: take_shape(from)?,
                parameters: from.run(PARAMETER_BYTES_MAX)?,
            },
            code::AGAIN => {
                let (slot, stream, changed) = (take_slot(from)?, from.varint32()?, from.varint()?);
                Self::Again { slot, stream, changed, words: from.exact(8 * changed.count_ones() as usize)? }
            }
            code::WRITE => Self::Write {
                stream: from.varint32()?,
                to: from.varint()?,
                bytes: from.run(PIECE_BYTES_MAX)?,
            },
            code::READ => Self::Read {
                stream: from.varint32()?,
                from: from.varint()?,
                bytes: from.varint()?,
                token: from.varint()?,
            },
            code::FENCE => Self::Fence { stream: from.varint32()?, token: from.varint()? },
            code::RECORD => Self::Record {
                event: from.varint32()?,
                stream: from.varint32()?,
                flags: from.varint32()?,
                token: from.varint()?,
            },
            rare => return Self::decode_rare(rare, from),
        })
    }

    fn decode_rare(code: u8, from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match code {
            code::IMAGE => {
                let (digest, total, offset) = (take_digest(from)?, from.varint()?, from.varint()?);
                let bytes = from.run(PIECE_BYTES_MAX)?;
                let end = offset.checked_add(bytes.len() as u64);
                if total > IMAGE_BYTES_MAX as u64 || end.is_none_or(|end| end > total) {
                    return Err(Malformed::TooLong { length: total, most: IMAGE_BYTES_MAX });
                }
                Self::Image { digest, total, offset, bytes }
            }
            code::LOAD => Self::Load {
                module: from.varint32()?,
                digest: take_digest(from)?,
                options: whole(from.run(NAME_BYTES_MAX)?, 8)?,
                kernels: Names::of(from.run(FRAME_BYTES_MAX)?),
            },
            code::LOAD_LIBRARY => Self::LoadLibrary {
                library: from.varint32()?,
                digest: take_digest(from)?,
                options: whole(from.run(NAME_BYTES_MAX)?, 8)?,
            },
            code::DESCRIBE => Self::Describe { function: from.varint32()? },
            code::DEFAULT_POOL => Self::DefaultPool { device: from.varint32()?, pool: from.varint32()? },
            code::LINK_CREATE => {
                Self::LinkCreate { link: from.varint32()?, options: whole(from.run(NAME_BYTES_MAX)?, 8)? }
            }
            code::LINK_ADD => Self::LinkAdd {
                link: from.varint32()?,
                kind: from.varint32()?,
                digest: take_digest(from)?,
                name: from.text(NAME_BYTES_MAX)?,
                options: whole(from.run(NAME_BYTES_MAX)?, 8)?,
            },
            code::LINK_COMPLETE => Self::LinkComplete { link: from.varint32()? },
            code::LINKED => Self::Linked { digest: take_digest(from)?, offset: from.varint()? },
            code::OBSERVE => Self::Observe { device: from.varint32()? },
            code::SETTLE => Self::Settle,
            code::AHEAD => Self::Ahead { bytes: from.varint()? },
            code::BARRIER => Self::Barrier,
            code::GIVE_BACK => Self::GiveBack { address: from.varint()? },
            code::GAVE_BACK => Self::GaveBack { call: from.varint32()? },
            code::HOLD => Self::Hold { stream: from.varint32()?, token: from.varint()? },
            code::LATE => Self::Late {
                token: from.varint()?,
                to: from.varint()?,
                last: match from.byte()? {
                    0 => false,
                    1 => true,
                    other => {
                        return Err(Malformed::Unknown { what: "an end of late bytes", value: other.into() });
                    }
                },
                bytes: from.run(PIECE_BYTES_MAX)?,
            },
            code::GOODBYE => Self::Goodbye,
            other => return Err(Malformed::Unknown { what: "an operation", value: other.into() }),
        })
    }
}

/// Bytes that are a whole number of records.
fn whole(bytes: &[u8], record: usize) -> Result<&[u8], Malformed> {
    match bytes.len() % record {
        0 => Ok(bytes),
        _ => Err(Malformed::Misplaced("part of a record")),
    }
}

/// The row of a number, if it travels by rule.
fn travelling(index: u64) -> Result<(Symbol, &'static Line), Malformed> {
    let unknown = Malformed::Unknown { what: "a call", value: index };
    let symbol = *usize::try_from(index)
        .ok()
        .filter(|&index| index < COUNT)
        .and_then(|index| SYMBOLS.get(index))
        .ok_or(unknown)?;
    match symbol.line() {
        Some(line) if !line.args.is_empty() => Ok((symbol, line)),
        _ => Err(unknown),
    }
}
