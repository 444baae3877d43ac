//! How the hook finds functions: the symbol tables of loaded objects, damaged or whole, and the answers to
//! `cuGetProcAddress` by name, version and thread mode.
//!
//! Tables of arbitrary bytes may hold nothing, but reading them ends and stays inside. A table built here from names is
//! whole: every name in it is found at its address, and no other name is. What the table of symbols answers is a row of
//! the name, not newer than the version asked for, in the mode asked for.
#![no_main]

use headgate_abi::cuda;
use headgate_abi::cuda::symbols::{ThreadMode, select};
use headgate_fuzz::{Image, Numbers, gnu_hash};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    match numbers.u8() % 3 {
        0 => damaged(&mut numbers),
        1 => whole(numbers.0),
        _ => by_version(&mut numbers),
    }
});

fn damaged(numbers: &mut Numbers<'_>) {
    let (base, dynamic) = (numbers.u64() as usize, numbers.u64() as usize);
    let bytes = numbers.0;
    let dynamic = base.wrapping_add(dynamic % (bytes.len() + 16));
    for name in [&b"dlsym"[..], b"", b"dlvsym", &bytes[..bytes.len().min(8)]] {
        let _anything = Image { base, bytes }.find(dynamic, name);
    }
}

/// Builds dynamic section, strings, symbols and hash table from names, and looks them up again.
fn whole(data: &[u8]) {
    const BASE: usize = 0x7f00_0000_0000;
    let mut names: Vec<&[u8]> = data.split(|&byte| byte == 0).filter(|name| !name.is_empty()).take(40).collect();
    names.sort_unstable();
    names.dedup();
    let buckets = u32::try_from(names.len() / 2 + 1).expect("few");
    names.sort_by_key(|name| gnu_hash(name) % buckets);
    let (mut strings, mut symbols) = (vec![0u8], vec![0u8; 24]);
    let mut heads = vec![0u32; buckets as usize];
    let mut chain: Vec<u32> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let bucket = (gnu_hash(name) % buckets) as usize;
        if heads[bucket] == 0 {
            heads[bucket] = index as u32 + 1;
        }
        let is_last = names.get(index + 1).is_none_or(|next| gnu_hash(next) % buckets != bucket as u32);
        chain.push(gnu_hash(name) & !1 | u32::from(is_last));
        symbols.extend((strings.len() as u32).to_le_bytes());
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend((0x1000 + index as u64).to_le_bytes());
        symbols.extend(8u64.to_le_bytes());
        strings.extend(*name);
        strings.push(0);
    }
    let mut hash: Vec<u8> = [buckets, 1, 1, 6].iter().flat_map(|word| word.to_le_bytes()).collect();
    hash.extend(u64::MAX.to_le_bytes());
    hash.extend(heads.iter().chain(&chain).flat_map(|word| word.to_le_bytes()));
    let (strings_at, symbols_at) = (64, 64 + strings.len());
    let hash_at = symbols_at + symbols.len();
    let entries = [(5, strings_at), (6, symbols_at), (0x6fff_fef5, hash_at), (0, 0)];
    let mut bytes: Vec<u8> = Vec::new();
    for (tag, at) in entries {
        bytes.extend((tag as u64).to_le_bytes());
        bytes.extend((if tag == 0 { 0 } else { BASE + at } as u64).to_le_bytes());
    }
    bytes.extend(strings.iter().chain(&symbols).chain(&hash));
    let image = Image { base: BASE, bytes: &bytes };
    for (index, name) in names.iter().enumerate() {
        assert_eq!(image.find(BASE, name), Some(BASE + 0x1000 + index), "{name:?}");
        let longer = [*name, b"x"].concat();
        assert_eq!(image.find(BASE, &longer).is_some(), names.contains(&&longer[..]));
    }
}

fn by_version(numbers: &mut Numbers<'_>) {
    let row = numbers.u64() as usize % cuda::symbols::SYMBOLS.len();
    let version = numbers.u64() as u32 % 20_000;
    let mode = if numbers.u8() & 1 == 0 { ThreadMode::Base } else { ThreadMode::PerThread };
    let known = cuda::symbols::SYMBOLS[row].row().base_name;
    let name = match numbers.u8() % 3 {
        0 => known,
        _ => std::str::from_utf8(numbers.0).unwrap_or(known),
    };
    if let Ok(found) = select(name, version, mode) {
        let row = found.row();
        assert_eq!(row.base_name, name);
        assert!(row.since <= version, "{name} at {version}: {row:?}");
        assert!(mode == ThreadMode::PerThread || row.thread_mode == ThreadMode::Base, "{row:?}");
        assert_eq!(cuda::by_elf_name(row.elf_name), Some(found));
    }
    let _any = cuda::by_elf_name(name);
}
