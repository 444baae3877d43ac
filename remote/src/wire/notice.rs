//! What comes back in a session: notices, unasked or as answers.

use super::codec::{Malformed, Put, Reader};
use super::large::DataHead;
use crate::limits::PIECE_BYTES_MAX;

/// What a notice of bytes begins with.
pub(super) const DATA: u8 = 4;

/// What the worker tells the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice<'a> {
    /// The answer to an operation.
    Reply {
        /// Its number.
        operation: u64,
        /// `CUresult`.
        status: u32,
        /// Results, in the order of the arguments that ask for them.
        results: &'a [u8],
    },
    /// An operation failed whose client has long returned.
    Fault {
        /// Its number.
        operation: u64,
        /// The context it was in.
        context: u32,
        /// `CUresult`.
        status: u32,
    },
    /// A fence was reached, an event is complete, a read is over.
    Done {
        /// Whose.
        token: u64,
        /// `CUresult`: what stuck to the context meanwhile.
        status: u32,
    },
    /// A stream has come past an operation, told unasked.
    Reached {
        /// The stream's context.
        context: u32,
        /// The stream.
        stream: u32,
        /// Number of the operation: whatever was put into the stream up to there is done.
        operation: u64,
    },
    /// Bytes of a read.
    Data {
        /// Of which.
        token: u64,
        /// Where they belong.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Nothing has come for a while. What was taken ahead and is not used others could use.
    Idle,
    /// A stream has come to where it waits for bytes ([`Operation::Hold`](super::operation::Operation::Hold)).
    Fetch {
        /// Which bytes.
        token: u64,
    },
    /// Another process of the guest is about to be refused memory: what was taken ahead and is not used it needs now.
    CallBack {
        /// Which call, for the answer.
        call: u32,
    },
}

impl<'a> Notice<'a> {
    /// Adds the notice to a payload.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Reply { operation, status, results } => {
                to.push(1);
                to.varint(*operation);
                to.varint((*status).into());
                to.run(results);
            }
            Self::Fault { operation, context, status } => {
                to.push(2);
                to.varint(*operation);
                to.varint((*context).into());
                to.varint((*status).into());
            }
            Self::Done { token, status } => {
                to.push(3);
                to.varint(*token);
                to.varint((*status).into());
            }
            Self::Reached { context, stream, operation } => {
                to.push(5);
                to.varint((*context).into());
                to.varint((*stream).into());
                to.varint(*operation);
            }
            Self::Idle => to.push(6),
            Self::CallBack { call } => {
                to.push(7);
                to.varint((*call).into());
            }
            Self::Fetch { token } => {
                to.push(8);
                to.varint(*token);
            }
            Self::Data { token, offset, bytes } => {
                DataHead { token: *token, offset: *offset, bytes: bytes.len() }.encode(to);
                to.extend_from_slice(bytes);
            }
        }
    }

    /// Takes the next notice.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            1 => Self::Reply {
                operation: from.varint()?,
                status: from.varint32()?,
                results: from.run(PIECE_BYTES_MAX)?,
            },
            2 => {
                Self::Fault { operation: from.varint()?, context: from.varint32()?, status: from.varint32()? }
            }
            3 => Self::Done { token: from.varint()?, status: from.varint32()? },
            DATA => Self::Data {
                token: from.varint()?,
                offset: from.varint()?,
                bytes: from.run(PIECE_BYTES_MAX)?,
            },
            5 => Self::Reached {
                context: from.varint32()?,
                stream: from.varint32()?,
                operation: from.varint()?,
            },
            6 => Self::Idle,
            7 => Self::CallBack { call: from.varint32()? },
            8 => Self::Fetch { token: from.varint()? },
            other => return Err(Malformed::Unknown { what: "a notice", value: other.into() }),
        })
    }
}
