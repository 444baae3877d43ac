//! Frames, and the two that begin a connection.

use super::codec::{Malformed, Put, Reader};
use super::table::fingerprint;
use crate::limits::{DEVICES_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 32;
/// Version of everything in this room. Either side refuses another, and says so in the other's version: the header, and what
/// [`Kind::Refused`] and [`Kind::Over`] look like, are the same in all of them. It goes up with each operation, notice
/// or field that is added or changed; a golden test holds it to them.
pub const VERSION: u8 = 7;
/// Where the header holds it.
const VERSION_AT: usize = 4;
const MAGIC: u32 = u32::from_le_bytes(*b"HGR1");

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The client's first: which session it wants.
    Hello = 1,
    /// The worker's answer to it.
    Welcome = 2,
    /// The worker's other answer: why not, as text.
    Refused = 3,
    /// Operations. Only these are numbered, kept until acknowledged, and sent again after a break.
    Operations = 4,
    /// Nothing but an acknowledgement.
    Acknowledge = 5,
    /// What comes before a greeting where daemons carry the session: a program's [`Wish`](super::call::Wish) to its own
    /// daemon, and a borrower's [`Claim`](super::call::Claim) to a lender's.
    Call = 6,
    /// Between daemons only: what one direction has carried up to here ([`crate::meter`]).
    Meter = 7,
    /// The session is over for good; why, as text. To the client from whoever ends it, to a lender's daemon from a
    /// borrower's.
    Over = 8,
    /// From a daemon to a worker: finish what is under way, take nothing new, and end.
    Drain = 9,
    /// A client's answer to rings that came with the welcome: one byte, 1 if what follows comes over them, both ways.
    Rings = 10,
    /// From a borrower's daemon, and on to the worker: finish what is under way, put what is on the device aside, and wait.
    /// Back, all the way: so it is.
    Aside = 11,
    /// From a borrower's daemon, with the [`Claim`](super::call::Claim) of the new loan, and on to the worker without: the device
    /// is lent again, go on. Back, all the way: so it does.
    Return = 12,
}

impl Kind {
    /// A frame of this kind that is not numbered, whole.
    #[must_use]
    pub fn alone(self, payload: &[u8]) -> Vec<u8> {
        let payload = &payload[..payload.len().min(FRAME_BYTES_MAX)];
        let header = Header::unnumbered(self, payload.len());
        [&header.encode()[..], payload].concat()
    }

    /// Whether frames of this kind are read in whatever version they come: they say why there is no session.
    fn is_read_in_any_version(self) -> bool {
        matches!(self, Self::Refused | Self::Over)
    }
}

/// A refusal, whole, in the version that whoever is refused speaks.
#[must_use]
pub fn refusal(why: &str, version: u8) -> Vec<u8> {
    let mut frame = Kind::Refused.alone(why.as_bytes());
    frame[VERSION_AT] = version;
    frame
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes behind the header.
    pub bytes: usize,
    /// Operations in them.
    pub operations: u32,
    /// Number of the frame, from 1, in its direction of the session. 0 where frames are not numbered.
    pub number: u64,
    /// Number of the last frame received in the other direction.
    pub acknowledged: u64,
    /// What a greeting or a welcome says of rings.
    pub rings: Rings,
}

/// What a greeting or a welcome says of rings. Whoever knows none leaves it 0 and does not look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Rings {
    /// Nothing.
    #[default]
    None = 0,
    /// In a greeting: its sender would go on over rings. In a welcome: they come with it, and the worker is at their other
    /// end, so that they end with the session.
    Direct = 1,
    /// In a welcome: they come with it, and at their other end is a daemon that carries the session, which may go on over
    /// others. To who knows the former only this is nothing.
    Carried = 2,
}

impl Rings {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Direct,
            2 => Self::Carried,
            _ => Self::None,
        }
    }
}

impl Header {
    /// Of a frame that is not numbered.
    #[must_use]
    pub fn unnumbered(kind: Kind, bytes: usize) -> Self {
        Self { kind, bytes, operations: 0, number: 0, acknowledged: 0, rings: Rings::None }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[VERSION_AT] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[6] = self.rings as u8;
        let length = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.operations.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When it is another protocol's or version's, or announces more than a frame may hold.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(0) != MAGIC {
            return Err(Malformed::Unknown { what: "protocol", value: word(0).into() });
        }
        let version = bytes[VERSION_AT];
        let kind = kind(bytes[5]);
        if version != VERSION && !kind.is_some_and(Kind::is_read_in_any_version) {
            return Err(Malformed::Version { theirs: version, ours: VERSION });
        }
        let kind = kind.ok_or(Malformed::Unknown { what: "kind of frame", value: bytes[5].into() })?;
        let length = word(8);
        let length = match usize::try_from(length) {
            Ok(length) if length <= FRAME_BYTES_MAX => length,
            _ => return Err(Malformed::TooLong { length: length.into(), most: FRAME_BYTES_MAX }),
        };
        Ok(Self {
            kind,
            bytes: length,
            operations: word(12),
            number: long(16),
            acknowledged: long(24),
            rings: Rings::of(bytes[6]),
        })
    }
}

fn kind(number: u8) -> Option<Kind> {
    Some(match number {
        1 => Kind::Hello,
        2 => Kind::Welcome,
        3 => Kind::Refused,
        4 => Kind::Operations,
        5 => Kind::Acknowledge,
        6 => Kind::Call,
        7 => Kind::Meter,
        8 => Kind::Over,
        9 => Kind::Drain,
        10 => Kind::Rings,
        11 => Kind::Aside,
        12 => Kind::Return,
        _ => return None,
    })
}

/// Names a session and proves a claim to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ticket {
    /// Which session; zero asks for a new one.
    pub session: u64,
    /// What only its two ends know.
    pub secret: [u8; 16],
}

/// The client's first frame, with what its table of calls hashes to. What it has received so far stands in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// The session it wants.
    pub ticket: Ticket,
}

impl Hello {
    /// Its payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.word(self.ticket.session);
        bytes.extend_from_slice(&self.ticket.secret);
        bytes.word(fingerprint());
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not one, or is from a release with another table of calls.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let ticket = ticket(&mut reader)?;
        let table = reader.word()?;
        if !reader.is_empty() {
            return Err(Malformed::Misplaced("bytes behind a greeting"));
        }
        if table != fingerprint() {
            return Err(Malformed::Table);
        }
        Ok(Self { ticket })
    }
}

fn ticket(reader: &mut Reader<'_>) -> Result<Ticket, Malformed> {
    let session = reader.word()?;
    let mut secret = [0; 16];
    secret.copy_from_slice(reader.exact(16)?);
    Ok(Ticket { session, secret })
}

/// What a device is, as far as it never changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceSnapshot {
    /// `cuDeviceGetName`.
    pub name: String,
    /// `cuDeviceGetUuid`.
    pub uuid: [u8; 16],
    /// `cuDeviceGetPCIBusId`.
    pub pci: String,
    /// `cuDeviceTotalMem`: what the lender's quota shows.
    pub memory_bytes: u64,
    /// `cuDeviceGetAttribute`, by number; `None` where the driver knows none.
    pub attributes: Vec<Option<i32>>,
}

/// The worker's answer: everything a program asks before its first allocation, in one reply.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Welcome {
    /// The session.
    pub ticket: Ticket,
    /// CUDA version of the worker's driver.
    pub driver_version: u32,
    /// The devices.
    pub devices: Vec<DeviceSnapshot>,
}

/// Attributes asked for at the handshake: those of CUDA 13, and some room.
pub const ATTRIBUTES: u32 = 160;

impl Welcome {
    /// Its payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.word(self.ticket.session);
        bytes.extend_from_slice(&self.ticket.secret);
        bytes.varint(self.driver_version.into());
        bytes.varint(self.devices.len() as u64);
        for device in &self.devices {
            bytes.run(device.name.as_bytes());
            bytes.extend_from_slice(&device.uuid);
            bytes.run(device.pci.as_bytes());
            bytes.varint(device.memory_bytes);
            bytes.varint(device.attributes.len() as u64);
            for attribute in &device.attributes {
                // 0 for "none", else one more than the value's bits.
                let bits = attribute.map_or(0, |value| u64::from(value.cast_unsigned()) + 1);
                bytes.varint(bits);
            }
        }
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let ticket = ticket(&mut reader)?;
        let driver_version = reader.varint32()?;
        let count = reader.varint()?;
        if count > DEVICES_MAX as u64 {
            return Err(Malformed::TooLong { length: count, most: DEVICES_MAX });
        }
        let mut devices = Vec::new();
        for _ in 0..count {
            let name = reader.text(NAME_BYTES_MAX)?.to_owned();
            let mut uuid = [0; 16];
            uuid.copy_from_slice(reader.exact(16)?);
            let pci = reader.text(NAME_BYTES_MAX)?.to_owned();
            let memory_bytes = reader.varint()?;
            let known = reader.varint()?;
            if known > ATTRIBUTES.into() {
                return Err(Malformed::TooLong { length: known, most: ATTRIBUTES as usize });
            }
            let attributes = (0..known).map(|_| attribute(reader.varint()?)).collect::<Result<_, _>>()?;
            devices.push(DeviceSnapshot { name, uuid, pci, memory_bytes, attributes });
        }
        if !reader.is_empty() {
            return Err(Malformed::Misplaced("bytes behind a welcome"));
        }
        Ok(Self { ticket, driver_version, devices })
    }
}

fn attribute(bits: u64) -> Result<Option<i32>, Malformed> {
    match bits.checked_sub(1) {
        None => Ok(None),
        Some(bits) => {
            u32::try_from(bits).map(|bits| Some(bits.cast_signed())).map_err(|_| Malformed::Overlong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_strangers_are_refused() {
        let header = Header {
            operations: 3,
            number: 1 << 40,
            acknowledged: 5,
            rings: Rings::Carried,
            ..Header::unnumbered(Kind::Operations, 77)
        };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        bytes[VERSION_AT] += 1;
        let other = Malformed::Version { theirs: VERSION + 1, ours: VERSION };
        assert_eq!(Header::decode(&bytes), Err(other));
        let said = other.to_string();
        assert!(said.contains(&format!("version {}", VERSION + 1)), "{said}");
        assert!(said.contains(&format!("version {VERSION}")), "{said}");
        bytes[VERSION_AT] -= 1;
        bytes[5] = 99;
        assert!(Header::decode(&bytes).is_err(), "no such frame");
        bytes[5] = 4;
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Header::decode(&bytes).is_err(), "more than a frame holds");
    }

    #[test]
    fn a_refusal_is_read_in_every_version() {
        for version in 0..=u8::MAX {
            let frame = refusal("not you", version);
            let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
            assert_eq!((header.kind, header.bytes), (Kind::Refused, 7));
            assert_eq!(frame[HEADER_BYTES..], *b"not you");
            assert_eq!(frame[VERSION_AT], version, "whoever is refused knows its own version only");
        }
    }

    #[test]
    fn welcomes_come_back_and_never_in_part() {
        let device = DeviceSnapshot {
            name: "a device".to_owned(),
            uuid: [7; 16],
            pci: "0000:01:00.0".to_owned(),
            memory_bytes: 80 << 30,
            attributes: vec![None, Some(-1), Some(0), Some(i32::MAX), Some(i32::MIN)],
        };
        let ticket = Ticket { session: 9, secret: [3; 16] };
        let welcome = Welcome { ticket, driver_version: 13_000, devices: vec![device.clone(), device] };
        let bytes = welcome.encode();
        assert_eq!(Welcome::decode(&bytes), Ok(welcome));
        for cut in 0..bytes.len() {
            assert!(Welcome::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let hello = Hello { ticket };
        let mut bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        bytes[24] ^= 1;
        assert_eq!(Hello::decode(&bytes), Err(Malformed::Table));
    }
}
