//! Whether both sides have the same table of calls.
//!
//! A call travels as its row's number, and its arguments as the row's rules say. A release with a row more or a rule
//! changed would take one call for another, so greetings carry what the table hashes to.

use std::sync::OnceLock;

use headgate_abi::cuda::remote::{Len, Rule};
use headgate_abi::cuda::symbols::SYMBOLS;

/// FNV-1a, 64 bits: two releases are told apart by it, nobody is kept out.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn mix(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

fn numbers(hash: u64, numbers: &[usize]) -> u64 {
    numbers.iter().fold(hash, |hash, number| mix(hash, &(*number as u64).to_le_bytes()))
}

fn length(hash: u64, length: Len) -> u64 {
    match length {
        Len::Bytes(bytes) => numbers(hash, &[1, bytes]),
        Len::Elements(count, bytes) => numbers(hash, &[2, count, bytes]),
        Len::PoolAttribute(attribute) => numbers(hash, &[3, attribute]),
    }
}

fn rule(hash: u64, rule: Rule) -> u64 {
    match rule {
        Rule::Word => numbers(hash, &[1]),
        Rule::Address => numbers(hash, &[2]),
        Rule::Handle(kind) => numbers(hash, &[3, kind as usize]),
        Rule::New(kind) => numbers(hash, &[4, kind as usize]),
        Rule::End(kind) => numbers(hash, &[5, kind as usize]),
        Rule::Out(bytes) => length(numbers(hash, &[6]), bytes),
        Rule::OutMaybe(bytes) => length(numbers(hash, &[7]), bytes),
        Rule::In(bytes) => length(numbers(hash, &[8]), bytes),
        Rule::Text => numbers(hash, &[9]),
    }
}

/// What this side's table hashes to: the rows' names and order, the classes of those that travel, and their rules.
#[must_use]
pub(super) fn fingerprint() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    *FOUND.get_or_init(|| {
        SYMBOLS.iter().fold(OFFSET, |hash, symbol| {
            let hash = mix(mix(hash, symbol.row().elf_name.as_bytes()), &[0]);
            symbol.line().map_or(hash, |line| {
                line.args.iter().fold(numbers(hash, &[line.class as usize + 1]), |hash, &of| rule(hash, of))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use headgate_abi::cuda::remote::Kind;

    use super::*;

    #[test]
    fn rules_that_differ_hash_to_something_else() {
        let rules = [
            Rule::Word,
            Rule::Address,
            Rule::Handle(Kind::Stream),
            Rule::Handle(Kind::Event),
            Rule::New(Kind::Stream),
            Rule::End(Kind::Stream),
            Rule::Out(Len::Bytes(8)),
            Rule::Out(Len::Bytes(4)),
            Rule::OutMaybe(Len::Bytes(8)),
            Rule::In(Len::Bytes(8)),
            Rule::In(Len::Elements(2, 12)),
            Rule::In(Len::Elements(3, 12)),
            Rule::In(Len::PoolAttribute(1)),
            Rule::Text,
        ];
        let mut found: Vec<u64> = rules.iter().map(|of| rule(OFFSET, *of)).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), rules.len());
        assert_eq!(fingerprint(), fingerprint());
    }
}
