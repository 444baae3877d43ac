//! What a session carries, counted to the byte and by kind.
//!
//! Two daemons count the same frames on two nodes, and compare. Frames of operations are numbered and the same however
//! often they are sent, so each counts once, when it is first seen whole: after a break both ends still agree. Greetings
//! and acknowledgements have no number; they are counted for the connection they are on, as `link`.
//!
//! ```text
//! numbered frame = 32 bytes of header + operations = to_device + from_device + arguments + images + control
//! ```
//!
//! `control` is whatever is no payload of a named kind: headers, lengths, handles, replies. So nothing that passes goes
//! uncounted, whatever a program means by it.

use std::fmt;

use crate::wire::frame::{HEADER_BYTES, Header, Kind};
use crate::wire::operation::{Notice, Operation};
use crate::wire::{Malformed, Put as _, Reader};

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the program to the device.
    Up,
    /// Back.
    Down,
}

impl Direction {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Bytes by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Copied to the device.
    pub to_device: u64,
    /// Copied from the device.
    pub from_device: u64,
    /// Kernels' parameters and launch attributes.
    pub arguments: u64,
    /// Code.
    pub images: u64,
    /// Everything else in numbered frames, their headers included.
    pub control: u64,
}

impl Counts {
    fn fields(&self) -> [u64; 5] {
        [self.to_device, self.from_device, self.arguments, self.images, self.control]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.fields().iter().sum()
    }

    fn add(&mut self, other: Self) {
        self.to_device += other.to_device;
        self.from_device += other.from_device;
        self.arguments += other.arguments;
        self.images += other.images;
        self.control += other.control;
    }
}

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Numbered frames so far.
    pub frames: u64,
    /// Their bytes.
    pub counts: Counts,
    /// Bytes of frames without a number, on this connection.
    pub link: u64,
}

impl Mark {
    /// Its payload in a frame of [`Kind::Meter`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.varint(self.frames);
        for count in self.counts.fields() {
            bytes.varint(count);
        }
        bytes.varint(self.link);
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let frames = reader.varint()?;
        let counts = Counts {
            to_device: reader.varint()?,
            from_device: reader.varint()?,
            arguments: reader.varint()?,
            images: reader.varint()?,
            control: reader.varint()?,
        };
        let link = reader.varint()?;
        match reader.is_empty() {
            true => Ok(Self { frames, counts, link }),
            false => Err(Malformed::Misplaced("bytes behind a mark")),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, counts, link } = self;
        write!(
            f,
            "frames={frames} to_device={} from_device={} arguments={} images={} control={} link={link}",
            counts.to_device, counts.from_device, counts.arguments, counts.images, counts.control
        )
    }
}

/// One direction of one session, as one daemon sees it.
#[derive(Clone, Debug)]
pub struct Meter {
    direction: Direction,
    mark: Mark,
    again: u64,
    goodbye: bool,
}

impl Meter {
    /// Nothing yet.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self { direction, mark: Mark::default(), again: 0, goodbye: false }
    }

    /// Which way.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Where it stands.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Bytes that were sent again after breaks. They are no data that was not counted before.
    #[must_use]
    pub fn again(&self) -> u64 {
        self.again
    }

    /// Whether the program has said goodbye.
    #[must_use]
    pub fn said_goodbye(&self) -> bool {
        self.goodbye
    }

    /// A new connection: what has no number is counted anew.
    pub fn connected(&mut self) {
        self.mark.link = 0;
    }

    /// Counts a frame that passes.
    ///
    /// # Errors
    /// When it is none that may: what cannot be read cannot be counted, and a gap hides something.
    pub fn pass(&mut self, header: &Header, payload: &[u8]) -> Result<(), Malformed> {
        let bytes = (HEADER_BYTES + payload.len()) as u64;
        if header.kind != Kind::Operations {
            self.mark.link += bytes;
            return Ok(());
        }
        if header.number <= self.mark.frames {
            self.again += bytes;
            return Ok(());
        }
        if header.number != self.mark.frames + 1 {
            return Err(Malformed::Misplaced("a frame that leaves others out"));
        }
        let mut counts = match self.direction {
            Direction::Up => operations(header.operations, payload, &mut self.goodbye)?,
            Direction::Down => notices(header.operations, payload)?,
        };
        // Each kind's bytes are part of the payload, so nothing is left below zero.
        counts.control = bytes - counts.total();
        self.mark.frames = header.number;
        self.mark.counts.add(counts);
        Ok(())
    }
}

fn operations(count: u32, payload: &[u8], goodbye: &mut bool) -> Result<Counts, Malformed> {
    let (mut counts, mut reader) = (Counts::default(), Reader::new(payload));
    for _ in 0..count {
        match Operation::decode(&mut reader)? {
            Operation::Write { bytes, .. } | Operation::Late { bytes, .. } => {
                counts.to_device += bytes.len() as u64;
            }
            Operation::Image { bytes, .. } => counts.images += bytes.len() as u64,
            Operation::Launch { attributes, parameters, .. } => {
                counts.arguments += (attributes.len() + parameters.len()) as u64;
            }
            Operation::Template { parameters, .. } => counts.arguments += parameters.len() as u64,
            Operation::Again { words, .. } => counts.arguments += words.len() as u64,
            Operation::Goodbye => *goodbye = true,
            _ => {}
        }
    }
    ended(&reader).map(|()| counts)
}

fn notices(count: u32, payload: &[u8]) -> Result<Counts, Malformed> {
    let (mut counts, mut reader) = (Counts::default(), Reader::new(payload));
    for _ in 0..count {
        if let Notice::Data { bytes, .. } = Notice::decode(&mut reader)? {
            counts.from_device += bytes.len() as u64;
        }
    }
    ended(&reader).map(|()| counts)
}

fn ended(reader: &Reader<'_>) -> Result<(), Malformed> {
    if reader.is_empty() { Ok(()) } else { Err(Malformed::Misplaced("bytes behind the last operation")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(number: u64, operations: &[Operation<'_>]) -> (Header, Vec<u8>) {
        let mut payload = Vec::new();
        for operation in operations {
            operation.encode(&mut payload);
        }
        let count = u32::try_from(operations.len()).unwrap();
        let header =
            Header { operations: count, number, ..Header::unnumbered(Kind::Operations, payload.len()) };
        (header, payload)
    }

    #[test]
    fn every_kind_is_counted_and_nothing_twice() {
        let write = Operation::Write { stream: 0, to: 4096, bytes: &[1; 300] };
        let late = Operation::Late { token: 1, to: 4096, last: true, bytes: &[4; 50] };
        let image = Operation::Image { digest: [0; 32], total: 70, offset: 0, bytes: &[2; 70] };
        let again = Operation::Again { slot: 1, stream: 0, changed: 0b101, words: &[3; 16] };
        let mut meter = Meter::new(Direction::Up);
        let (first, payload) = frame(1, &[write, late, image, again]);
        meter.pass(&first, &payload).unwrap();
        let counts = meter.mark().counts;
        assert_eq!((counts.to_device, counts.images, counts.arguments), (350, 70, 16));
        assert_eq!(counts.total(), (HEADER_BYTES + payload.len()) as u64, "nothing passes uncounted");
        meter.pass(&first, &payload).unwrap();
        assert_eq!(meter.mark().counts, counts, "sent again is not sent twice");
        assert_eq!(meter.again(), counts.total());
        let (third, payload) = frame(3, &[write]);
        assert!(meter.pass(&third, &payload).is_err(), "a gap");
    }

    #[test]
    fn marks_come_back_and_connections_count_for_themselves() {
        let mut meter = Meter::new(Direction::Down);
        let header = Header::unnumbered(Kind::Welcome, 5);
        meter.pass(&header, &[0; 5]).unwrap();
        let mark = meter.mark();
        assert_eq!(mark.link, 37);
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        assert!(Mark::decode(&mark.encode()[1..]).is_err());
        meter.connected();
        assert_eq!(meter.mark().link, 0);
    }

    proptest! {
        /// Two meters agree however a session's frames were cut off and sent again.
        #[test]
        fn both_ends_agree_across_breaks(
            sizes in prop::collection::vec(0usize..2_000, 1..20),
            breaks in prop::collection::vec((0usize..20, 0usize..20), 0..6),
        ) {
            let data = vec![7; 2_000];
            let frames: Vec<_> = (1..)
                .zip(&sizes)
                .map(|(number, &size)| frame(number, &[Operation::Write { stream: 0, to: 0, bytes: &data[..size] }]))
                .collect();
            let (mut near, mut far) = (Meter::new(Direction::Up), Meter::new(Direction::Up));
            let mut received = 0;
            for (reach, lost) in breaks {
                // The near daemon sees up to `reach`; of that the far one misses the end.
                let seen = frames.len().min(received + reach);
                for (header, payload) in &frames[received..seen] {
                    near.pass(header, payload).unwrap();
                }
                let arrived = seen.saturating_sub(lost).max(received);
                for (header, payload) in &frames[received..arrived] {
                    far.pass(header, payload).unwrap();
                }
                received = arrived;
            }
            for (header, payload) in &frames[received..] {
                near.pass(header, payload).unwrap();
                far.pass(header, payload).unwrap();
            }
            prop_assert_eq!(near.mark(), far.mark());
            prop_assert_eq!(near.mark().counts.to_device, sizes.iter().sum::<usize>() as u64);
        }

        #[test]
        fn noise_is_refused_or_counted(operations in 0u32..9, payload: Vec<u8>) {
            let header =
                Header { operations, number: 1, ..Header::unnumbered(Kind::Operations, payload.len()) };
            for direction in [Direction::Up, Direction::Down] {
                let mut meter = Meter::new(direction);
                if meter.pass(&header, &payload).is_ok() {
                    prop_assert_eq!(meter.mark().counts.total(), (HEADER_BYTES + payload.len()) as u64);
                } else {
                    prop_assert_eq!(meter.mark(), Mark::default());
                }
            }
        }
    }
}
