//! The wire of borrowed GPUs: what a worker reads of a client, a client of a worker, and daemons of both.
//!
//! The first byte says how the rest is read: as frames behind each other, or at once as a payload of some kind, which
//! spares the fuzzer the headers. No bytes may make a reader panic or take more memory than limits allow; what is
//! accepted must come back from its own encoding the same, in no more bytes; and a meter counts each byte once.
#![no_main]

use headgate_remote::image;
use headgate_remote::meter::{Direction, Mark, Meter};
use headgate_remote::wire::bundle::{Card, ChunkHead};
use headgate_remote::wire::frame::{HEADER_BYTES, Header, Hello, Kind, Welcome};
use headgate_remote::wire::operation::{Notice, Operation};
use headgate_remote::wire::{Claim, Described, Gauges, Reader, Said, Wish};
use libfuzzer_sys::fuzz_target;

/// Operations as the dispatcher takes them: one behind the other until one is none.
fn operations(payload: &[u8]) {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        let before = reader.left();
        let Ok(operation) = Operation::decode(&mut reader) else { return };
        if let Operation::Load { kernels, .. } = &operation {
            kernels.iter().take_while(Result::is_ok).count();
        }
        let mut again = Vec::new();
        operation.encode(&mut again);
        assert!(again.len() <= before - reader.left(), "longer than it came");
        let mut reader = Reader::new(&again);
        assert_eq!(Operation::decode(&mut reader), Ok(operation));
        assert!(reader.is_empty());
    }
}

/// Notices as the client takes them.
fn notices(payload: &[u8]) {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        let before = reader.left();
        let Ok(notice) = Notice::decode(&mut reader) else { return };
        let mut again = Vec::new();
        notice.encode(&mut again);
        assert!(again.len() <= before - reader.left(), "longer than it came");
        assert_eq!(Notice::decode(&mut Reader::new(&again)), Ok(notice));
        if let Notice::Reply { results, .. } = notice {
            self::results(results);
        }
    }
}

/// What replies bring besides plain results.
fn results(payload: &[u8]) {
    let mut reader = Reader::new(payload);
    if let Ok(said) = Said::decode(&mut reader) {
        let mut again = Vec::new();
        said.encode(&mut again);
        assert_eq!(Said::decode(&mut Reader::new(&again)), Ok(said));
    }
    if let Ok(described) = Described::decode(&mut Reader::new(payload)) {
        let mut again = Vec::new();
        described.encode(&mut again);
        assert_eq!(Described::decode(&mut Reader::new(&again)), Ok(described));
    }
    let _any_or_none = Gauges::decode(&mut Reader::new(payload));
}

/// Payloads of frames without a number.
fn greetings(payload: &[u8]) {
    if let Ok(hello) = Hello::decode(payload) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Ok(welcome) = Welcome::decode(payload) {
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
    }
    if let Ok(wish) = Wish::decode(payload) {
        assert_eq!(Wish::decode(&wish.encode()), Ok(wish));
    }
    if let Ok(claim) = Claim::decode(payload) {
        assert_eq!(Claim::decode(&claim.encode()), Ok(claim));
    }
    if let Some(Ok(card)) = payload.first_chunk().map(Card::decode) {
        assert_eq!(Card::decode(&card.encode()), Ok(card));
    }
    if let Some(Ok(head)) = payload.first_chunk().map(ChunkHead::decode) {
        assert_eq!(Some(&head.encode()), payload.first_chunk());
    }
    if let Ok(mark) = Mark::decode(payload) {
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }
}

/// A connection: frames behind each other, counted as daemons count them in either direction.
fn frames(mut rest: &[u8]) {
    let mut meters = [Meter::new(Direction::Up), Meter::new(Direction::Down)];
    while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
        let header = match Header::decode(head) {
            Ok(header) => header,
            Err(malformed) => {
                assert!(!malformed.to_string().is_empty());
                return;
            }
        };
        let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + header.bytes) else { return };
        rest = &rest[HEADER_BYTES + header.bytes..];
        match header.kind {
            Kind::Operations => {
                operations(payload);
                notices(payload);
            }
            _ => greetings(payload),
        }
        for meter in &mut meters {
            let counted = |meter: &Meter| meter.mark().counts.total() + meter.mark().link + meter.again();
            let before = counted(meter);
            if meter.pass(&header, payload).is_ok() {
                assert_eq!(counted(meter) - before, (HEADER_BYTES + payload.len()) as u64);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    match how % 6 {
        0 => frames(rest),
        1 => operations(rest),
        2 => notices(rest),
        3 => greetings(rest),
        4 => results(rest),
        _ => drop(image::kernels(rest)),
    }
});
