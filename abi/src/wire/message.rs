//! The messages.
//!
//! ```text
//! hook                                     daemon
//!  | Hello{driver, devices, hook text}  ->  |   identity: SO_PEERCRED pid, its cgroup -> tenant
//!  | <- Welcome{seat, rows} + 2 descriptors |   limits segment, ledger segment
//!  | <- Refused{reason, text}               |   or why not
//! ```

use std::fmt;

use super::frame::{Frame, FrameError, Reader, Writer};
use crate::limits::{DEVICES_MAX, SEATS_MAX, TENANTS_MAX};
use crate::segment::SeatIndex;

const KIND_HELLO: u16 = 1;
const KIND_WELCOME: u16 = 2;
const KIND_REFUSED: u16 = 3;

/// No seat yet.
const NO_SEAT: u32 = u32::MAX;

/// First words of a hook. Nothing in it is identity: the daemon takes that from the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// CUDA version of the driver found in the process (`cuDriverGetVersion`).
    pub driver_version: i32,
    /// First address of the hook's text in this process, for the bypass witness.
    pub text_start: u64,
    /// End of the hook's text in this process.
    pub text_end: u64,
    /// The seat held under an earlier run of the daemon, and its generation.
    pub seat: Option<(SeatIndex, u64)>,
    /// UUIDs of the devices this process sees, in its own order.
    pub devices: Vec<[u8; 16]>,
}

/// The daemon's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A seat. Two descriptors come with the frame: the limits segment, then the ledger segment.
    Welcome(Welcome),
    /// No seat.
    Refused {
        /// Why, for programs.
        reason: RefusalReason,
        /// Why and what to do, for people.
        text: String,
    },
}

/// A seat and how to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The tenant's index in the daemon's table.
    pub tenant: u32,
    /// The seat.
    pub seat: SeatIndex,
    /// Which taking of the seat this is.
    pub generation: u64,
    /// Whether the seat is new and empty. Otherwise it is the one the hook named, charges and all.
    pub fresh: bool,
    /// Enforcement is off for this tenant: hand out the driver's own pointers.
    pub off: bool,
    /// For each device of the hello, its row in both segments; `None` for a device the daemon does not know.
    pub rows: Vec<Option<u8>>,
    /// The tenant's name, for messages.
    pub tenant_name: String,
}

/// Why a process gets no seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The process is in no tenant's cgroup and there is no default tenant.
    NoTenant,
    /// The tenant has [`SEATS_MAX`] processes already.
    SeatsFull,
    /// The hello was malformed.
    BadHello,
    /// The daemon could not make or send the segments.
    Internal,
}

impl RefusalReason {
    const ALL: [(u16, Self); 4] =
        [(1, Self::NoTenant), (2, Self::SeatsFull), (3, Self::BadHello), (4, Self::Internal)];

    fn code(self) -> u16 {
        Self::ALL.iter().find(|(_, reason)| *reason == self).map_or(0, |(code, _)| *code)
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTenant => "no tenant",
            Self::SeatsFull => "seats full",
            Self::BadHello => "bad hello",
            Self::Internal => "internal",
        })
    }
}

impl Hello {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(KIND_HELLO);
        writer.bytes(&self.driver_version.to_le_bytes());
        writer.u64(self.text_start);
        writer.u64(self.text_end);
        writer.u32(self.seat.map_or(NO_SEAT, |(seat, _)| seat.to_u32()));
        writer.u64(self.seat.map_or(0, |(_, generation)| generation));
        let devices = &self.devices[..self.devices.len().min(DEVICES_MAX)];
        writer.u8(count(devices.len()));
        for uuid in devices {
            writer.bytes(uuid);
        }
        writer.finish()
    }

    /// Reads a frame.
    pub fn decode(frame: Frame<'_>) -> Result<Self, FrameError> {
        if frame.kind != KIND_HELLO {
            return Err(FrameError::Kind { found: frame.kind });
        }
        let mut reader = Reader::new(frame.payload);
        let driver_version = reader.u32("driver_version")?.cast_signed();
        let text_start = reader.u64("text_start")?;
        let text_end = reader.u64("text_end")?;
        let seat = reader.u32("seat")?;
        let generation = reader.u64("generation")?;
        let seat = if seat == NO_SEAT { None } else { Some((seat_index(seat)?, generation)) };
        let count = reader.u8("device_count")?;
        bounded("device_count", u64::from(count), DEVICES_MAX as u64)?;
        let devices = (0..count).map(|_| reader.uuid("device_uuid")).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { driver_version, text_start, text_end, seat, devices })
    }
}

impl Answer {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => {
                let mut writer = Writer::new(KIND_WELCOME);
                writer.u32(welcome.tenant);
                writer.u32(welcome.seat.to_u32());
                writer.u64(welcome.generation);
                writer.u8(u8::from(welcome.fresh));
                writer.u8(u8::from(welcome.off));
                let rows = &welcome.rows[..welcome.rows.len().min(DEVICES_MAX)];
                writer.u8(count(rows.len()));
                for row in rows {
                    writer.u8(row.unwrap_or(u8::MAX));
                }
                writer.text(&welcome.tenant_name);
                writer.finish()
            }
            Self::Refused { reason, text } => {
                let mut writer = Writer::new(KIND_REFUSED);
                writer.u16(reason.code());
                writer.text(text);
                writer.finish()
            }
        }
    }

    /// Reads a frame.
    pub fn decode(frame: Frame<'_>) -> Result<Self, FrameError> {
        let mut reader = Reader::new(frame.payload);
        match frame.kind {
            KIND_WELCOME => {
                let tenant = reader.u32("tenant")?;
                bounded("tenant", u64::from(tenant), TENANTS_MAX as u64 - 1)?;
                let seat = seat_index(reader.u32("seat")?)?;
                let generation = reader.u64("generation")?;
                let fresh = flag("fresh", reader.u8("fresh")?)?;
                let off = flag("off", reader.u8("off")?)?;
                let count = reader.u8("row_count")?;
                bounded("row_count", u64::from(count), DEVICES_MAX as u64)?;
                let rows = (0..count)
                    .map(|_| match reader.u8("row")? {
                        u8::MAX => Ok(None),
                        row => bounded("row", u64::from(row), DEVICES_MAX as u64 - 1).map(|()| Some(row)),
                    })
                    .collect::<Result<_, FrameError>>()?;
                let tenant_name = reader.text("tenant_name")?;
                reader.end()?;
                Ok(Self::Welcome(Welcome { tenant, seat, generation, fresh, off, rows, tenant_name }))
            }
            KIND_REFUSED => {
                let code = reader.u16("reason")?;
                let reason = RefusalReason::ALL
                    .iter()
                    .find(|(known, _)| *known == code)
                    .map_or(RefusalReason::Internal, |(_, reason)| *reason);
                let text = reader.text("text")?;
                reader.end()?;
                Ok(Self::Refused { reason, text })
            }
            found => Err(FrameError::Kind { found }),
        }
    }
}

fn seat_index(found: u32) -> Result<SeatIndex, FrameError> {
    SeatIndex::new(found).ok_or(FrameError::Range {
        field: "seat",
        found: u64::from(found),
        max: SEATS_MAX as u64 - 1,
    })
}

fn bounded(field: &'static str, found: u64, max: u64) -> Result<(), FrameError> {
    if max < found { Err(FrameError::Range { field, found, max }) } else { Ok(()) }
}

/// A device count, already cut to [`DEVICES_MAX`].
fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn flag(field: &'static str, found: u8) -> Result<bool, FrameError> {
    bounded(field, u64::from(found), 1).map(|()| found == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Frame<'_> {
        let (frame, length) = Frame::parse(bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        frame
    }

    proptest! {
        #[test]
        fn hellos_survive_the_wire(version: i32, start: u64, end: u64, seat in proptest::option::of((0u32..1024, any::<u64>())),
                                   devices in proptest::collection::vec(any::<[u8; 16]>(), 0..=DEVICES_MAX)) {
            let seat = seat.map(|(index, generation)| (SeatIndex::new(index).unwrap(), generation));
            let hello = Hello { driver_version: version, text_start: start, text_end: end, seat, devices };
            prop_assert_eq!(Hello::decode(whole(&hello.encode())).unwrap(), hello);
        }

        #[test]
        fn answers_survive_the_wire(tenant in 0u32..4096, seat in 0u32..1024, generation: u64, fresh: bool, off: bool,
                                    rows in proptest::collection::vec(proptest::option::of(0u8..16), 0..=DEVICES_MAX),
                                    name in ".{0,40}") {
            let seat = SeatIndex::new(seat).unwrap();
            let answer = Answer::Welcome(Welcome { tenant, seat, generation, fresh, off, rows, tenant_name: name.clone() });
            prop_assert_eq!(Answer::decode(whole(&answer.encode())).unwrap(), answer);
            let refused = Answer::Refused { reason: RefusalReason::NoTenant, text: name };
            prop_assert_eq!(Answer::decode(whole(&refused.encode())).unwrap(), refused);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = u32::try_from(bytes.len() + 8).unwrap().to_le_bytes().to_vec();
            framed.extend_from_slice(&[1 + (bytes.first().copied().unwrap_or(0) % 3), 0, 1, 0]);
            framed.extend_from_slice(&bytes);
            let frame = whole(&framed);
            let _hello = Hello::decode(frame);
            let _answer = Answer::decode(frame);
            let _raw = Frame::parse(&bytes);
        }
    }

    #[test]
    fn the_last_tenant_is_taken_and_the_one_behind_it_refused() {
        let seat = SeatIndex::new(0).unwrap();
        let of = |tenant| {
            let rows = vec![Some(0)];
            let welcome = Welcome {
                tenant,
                seat,
                generation: 1,
                fresh: true,
                off: false,
                rows,
                tenant_name: String::new(),
            };
            Answer::decode(whole(&Answer::Welcome(welcome).encode()))
        };
        let last = u32::try_from(TENANTS_MAX).unwrap() - 1;
        assert!(of(last).is_ok());
        let (field, found, max) = ("tenant", u64::from(last) + 1, u64::from(last));
        assert_eq!(of(last + 1), Err(FrameError::Range { field, found, max }));
    }

    #[test]
    fn bad_frames_name_the_place() {
        let good =
            Hello { driver_version: 1, text_start: 0, text_end: 0, seat: None, devices: vec![[7; 16]] }
                .encode();
        let short = Frame { kind: 1, payload: &good[8..good.len() - 1] };
        assert_eq!(Hello::decode(short), Err(FrameError::Short { field: "device_uuid", offset: 33 }));
        assert_eq!(Frame::parse(&[0xff; 8]), Err(FrameError::Length { found: u32::MAX }));
        assert_eq!(Frame::parse(&[8, 0, 0, 0, 1, 0, 9, 0]), Err(FrameError::Version { found: 9 }));
        assert_eq!(Frame::parse(&good[..5]), Ok(None));
        let long: String = "é".repeat(FRAME_TEXT);
        let refused = Answer::Refused { reason: RefusalReason::Internal, text: long }.encode();
        assert!(
            matches!(Answer::decode(whole(&refused)), Ok(Answer::Refused { text, .. }) if text.len() == 1024)
        );
    }

    const FRAME_TEXT: usize = 4000;
}
