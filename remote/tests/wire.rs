//! Whatever the client encodes the worker decodes, and whatever else comes is refused and nothing worse.

use headgate_abi::cuda::remote::{KINDS, Kind, Len, Rule};
use headgate_abi::cuda::symbols::{SYMBOLS, Symbol};
use headgate_remote::image;
use headgate_remote::wire::frame::VERSION;
use headgate_remote::wire::operation::{Argument, Arguments, Names, Notice, Operation, Shape};
use headgate_remote::wire::{Header, Put as _, Reader, Welcome};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// An argument as it is made up, with what it borrows.
#[derive(Clone, Debug)]
enum Made {
    Word(u64),
    Handle(u32),
    Wanted(bool),
    Bytes(Vec<u8>),
    Text(String),
}

/// Calls that travel by rule: the grammar is the table itself.
fn travelling() -> Vec<(Symbol, &'static [Rule])> {
    let lines = SYMBOLS.iter().filter_map(|&symbol| Some((symbol, symbol.line()?.args)));
    lines.filter(|(_, rules)| !rules.is_empty()).collect()
}

fn made(rule: Rule) -> BoxedStrategy<Made> {
    match rule {
        Rule::Word | Rule::Address => prop_oneof![0u64..8, any::<u64>()].prop_map(Made::Word).boxed(),
        Rule::Handle(_) | Rule::New(_) | Rule::End(_) => any::<u32>().prop_map(Made::Handle).boxed(),
        Rule::Out(_) | Rule::OutMaybe(_) => any::<bool>().prop_map(Made::Wanted).boxed(),
        Rule::In(_) => Just(Made::Bytes(Vec::new())).boxed(),
        Rule::Text => "[a-zA-Z0-9_$]{0,40}".prop_map(Made::Text).boxed(),
    }
}

/// A call of some row with arguments of its rules, lengths and bytes in step.
fn call() -> impl Strategy<Value = (Symbol, &'static [Rule], Vec<Made>)> {
    proptest::sample::select(travelling()).prop_flat_map(|(symbol, rules)| {
        let arguments: Vec<_> = rules.iter().map(|rule| made(*rule)).collect();
        (Just(symbol), Just(rules), arguments).prop_map(|(symbol, rules, mut arguments)| {
            // Counts that lengths depend on stay small.
            for rule in rules {
                if let Rule::In(Len::Elements(count, _)) = rule
                    && let Made::Word(word) = &mut arguments[*count]
                {
                    *word %= 16;
                }
            }
            let words: Vec<u64> =
                arguments.iter().map(|made| if let Made::Word(word) = made { *word } else { 0 }).collect();
            for (rule, made) in rules.iter().zip(&mut arguments) {
                if let (Rule::In(length), Made::Bytes(bytes)) = (rule, made) {
                    bytes.resize(length.of(&words).unwrap_or(0), 7);
                }
            }
            (symbol, rules, arguments)
        })
    })
}

fn arguments<'a>(rules: &[Rule], made: &'a [Made]) -> Arguments<'a> {
    let mut arguments = Arguments::new();
    for (rule, made) in rules.iter().zip(made) {
        arguments.push(match (rule, made) {
            (Rule::Handle(kind), Made::Handle(id)) => Argument::Handle(*kind, *id),
            (Rule::New(kind), Made::Handle(id)) => Argument::New(*kind, *id),
            (Rule::End(kind), Made::Handle(id)) => Argument::End(*kind, *id),
            (_, Made::Wanted(wanted)) => Argument::Out(*wanted),
            (_, Made::Bytes(bytes)) => Argument::In(bytes),
            (_, Made::Text(text)) => Argument::Text(text),
            (_, Made::Word(word)) => Argument::Word(*word),
            (_, Made::Handle(id)) => Argument::Handle(KINDS[0], *id),
        });
    }
    arguments
}

fn shape() -> impl Strategy<Value = Shape> {
    (any::<u32>(), any::<[u32; 3]>(), any::<[u32; 3]>(), any::<u32>(), any::<bool>()).prop_map(
        |(function, grid, block, shared_bytes, cooperative)| Shape {
            function,
            grid,
            block,
            shared_bytes,
            cooperative,
        },
    )
}

/// Encodes and decodes; the two must be the same and nothing may be left.
fn there_and_back(operation: &Operation<'_>) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    prop_assert_eq!(&Operation::decode(&mut reader), &Ok(*operation));
    prop_assert!(reader.is_empty());
    for cut in 0..bytes.len() {
        prop_assert!(Operation::decode(&mut Reader::new(&bytes[..cut])).is_err(), "cut at {}", cut);
    }
    Ok(())
}

proptest! {
    #[test]
    fn calls_come_back((symbol, rules, made) in call()) {
        there_and_back(&Operation::Call(symbol, arguments(rules, &made)))?;
    }

    #[test]
    fn launches_come_back(shape in shape(), stream: u32, parameters in proptest::collection::vec(any::<u8>(), 0..200), changed: u64, slot in 0u8..64) {
        let attributes = [5u8; 144];
        there_and_back(&Operation::Launch { shape, stream, attributes: &attributes, parameters: &parameters })?;
        there_and_back(&Operation::Template { slot, shape, parameters: &parameters })?;
        let words = vec![9; 8 * changed.count_ones() as usize];
        there_and_back(&Operation::Again { slot, stream, changed, words: &words })?;
    }

    #[test]
    fn the_others_come_back(id: u32, other: u32, long: u64, token: u64, bytes: Vec<u8>, digest: [u8; 32]) {
        let total = bytes.len() as u64 + 7;
        let names = Names::encode(["one", "two"].into_iter());
        let options = [1u8; 16];
        for operation in [
            Operation::Context(id),
            Operation::Write { stream: id, to: long, bytes: &bytes },
            Operation::Read { stream: id, from: long, bytes: token, token },
            Operation::Fence { stream: id, token },
            Operation::Record { event: id, stream: other, flags: 1, token },
            Operation::Image { digest, total, offset: 7, bytes: &bytes },
            Operation::Load { module: id, digest, options: &options, kernels: Names::of(&names) },
            Operation::LoadLibrary { library: id, digest, options: &options },
            Operation::Describe { function: id },
            Operation::DefaultPool { device: id, pool: other },
            Operation::LinkCreate { link: id, options: &options },
            Operation::LinkAdd { link: id, kind: other, digest, name: "input.ptx", options: &options },
            Operation::LinkComplete { link: id },
            Operation::Linked { digest, offset: long },
            Operation::Observe { device: id },
            Operation::Settle,
            Operation::Ahead { bytes: long },
            Operation::Barrier,
            Operation::GiveBack { address: long },
            Operation::GaveBack { call: id },
            Operation::Hold { stream: id, token },
            Operation::Late { token, to: long, last: other > id, bytes: &bytes },
            Operation::Goodbye,
        ] {
            there_and_back(&operation)?;
        }
        for notice in [
            Notice::Reply { operation: long, status: id, results: &bytes },
            Notice::Fault { operation: long, context: id, status: other },
            Notice::Done { token, status: id },
            Notice::Reached { context: id, stream: other, operation: long },
            Notice::Data { token, offset: long, bytes: &bytes },
            Notice::Idle,
            Notice::CallBack { call: id },
            Notice::Fetch { token },
        ] {
            let mut encoded = Vec::new();
            notice.encode(&mut encoded);
            prop_assert_eq!(Notice::decode(&mut Reader::new(&encoded)), Ok(notice));
        }
    }

    #[test]
    fn noise_is_decoded_or_refused(bytes: Vec<u8>) {
        let mut reader = Reader::new(&bytes);
        while Operation::decode(&mut reader).is_ok() && !reader.is_empty() {}
        let mut reader = Reader::new(&bytes);
        while Notice::decode(&mut reader).is_ok() && !reader.is_empty() {}
        let _welcome = Welcome::decode(&bytes);
        if let Some(head) = bytes.first_chunk() {
            let _header = Header::decode(head);
        }
        let _kernels = image::kernels(&bytes);
    }

    #[test]
    fn images_with_holes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 64..400), which in 0usize..3) {
        let magic = [image::ELF_MAGIC, image::FATBIN_MAGIC, u32::from_le_bytes(*b".ver")][which];
        bytes[..4].copy_from_slice(&magic.to_le_bytes());
        if which == 0 { bytes[4] = 2; }
        let _kernels = image::kernels(&bytes);
    }
}

/// Every operation and notice once, each number and text another, so that a field that moves is seen.
fn one_of_each() -> Vec<u8> {
    let mut bytes = Vec::new();
    let shape = Shape { function: 1, grid: [2, 3, 4], block: [5, 6, 7], shared_bytes: 8, cooperative: true };
    let (digest, options, attributes) = ([9; 32], [10; 16], [11; 72]);
    let names = Names::encode(["one", "two"].into_iter());
    let mut arguments = Arguments::new();
    arguments.push(Argument::Out(true));
    arguments.push(Argument::Word(12));
    for operation in [
        Operation::Call(Symbol::cuMemAlloc_v2, arguments),
        Operation::Context(13),
        Operation::Launch { shape, stream: 14, attributes: &attributes, parameters: &[15] },
        Operation::Template { slot: 16, shape, parameters: &[17] },
        Operation::Again { slot: 18, stream: 19, changed: 2, words: &[20; 8] },
        Operation::Write { stream: 21, to: 22, bytes: &[23] },
        Operation::Read { stream: 24, from: 25, bytes: 26, token: 27 },
        Operation::Fence { stream: 28, token: 29 },
        Operation::Record { event: 30, stream: 31, flags: 32, token: 33 },
        Operation::Image { digest, total: 34, offset: 5, bytes: &[35] },
        Operation::Load { module: 36, digest, options: &options, kernels: Names::of(&names) },
        Operation::LoadLibrary { library: 37, digest, options: &options },
        Operation::Describe { function: 38 },
        Operation::DefaultPool { device: 39, pool: 40 },
        Operation::LinkCreate { link: 41, options: &options },
        Operation::LinkAdd { link: 42, kind: 43, digest, name: "input.ptx", options: &options },
        Operation::LinkComplete { link: 44 },
        Operation::Linked { digest, offset: 45 },
        Operation::Observe { device: 46 },
        Operation::Settle,
        Operation::Ahead { bytes: 61 },
        Operation::Barrier,
        Operation::GiveBack { address: 62 },
        Operation::GaveBack { call: 63 },
        Operation::Hold { stream: 65, token: 66 },
        Operation::Late { token: 67, to: 68, last: true, bytes: &[69] },
        Operation::Goodbye,
    ] {
        operation.encode(&mut bytes);
    }
    for notice in [
        Notice::Reply { operation: 47, status: 48, results: &[49] },
        Notice::Fault { operation: 50, context: 51, status: 52 },
        Notice::Done { token: 53, status: 54 },
        Notice::Reached { context: 55, stream: 56, operation: 57 },
        Notice::Data { token: 58, offset: 59, bytes: &[60] },
        Notice::Idle,
        Notice::CallBack { call: 64 },
        Notice::Fetch { token: 70 },
    ] {
        notice.encode(&mut bytes);
    }
    bytes
}

/// Two releases that say the same version understand each other. What hashes otherwise is another version.
#[test]
fn what_travels_is_what_this_version_says() {
    let mut bytes = one_of_each();
    // The number of a row is the table's, which greetings compare.
    let call = 1 + varint_bytes(Symbol::cuMemAlloc_v2.index() as u64);
    bytes.drain(1..call);
    let digest = Sha256::digest(&bytes);
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (VERSION, digest.as_str()),
        (7, "a6976a9ca52ffa59"),
        "the wire has changed: raise its VERSION, then note both here"
    );
}

fn varint_bytes(value: u64) -> usize {
    let mut bytes = Vec::new();
    bytes.varint(value);
    bytes.len()
}

#[test]
fn a_row_that_does_not_travel_is_refused() {
    for &symbol in SYMBOLS {
        if symbol.line().is_some_and(|line| !line.args.is_empty()) {
            continue;
        }
        let mut bytes = Vec::new();
        Operation::Call(symbol, Arguments::new()).encode(&mut bytes);
        bytes.extend_from_slice(&[0; 64]);
        assert!(Operation::decode(&mut Reader::new(&bytes)).is_err(), "{symbol:?}");
    }
    assert_eq!(Kind::Context as u8, 1, "kinds are on no wire, but their order is the arena's");
}
