//! An object's dynamic symbol table, read through bounds: whatever the tables say, nothing outside the object is
//! touched and every walk ends.
//!
//! Nothing here is unsafe and nothing knows where the bytes come from, so that fuzzing can bring its own
//! (`fuzz/fuzz_targets/symbol_resolution.rs`).

const DT_NULL: usize = 0;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const STT_FUNC: u32 = 2;
/// Size of an `Elf64_Sym`: name (4 bytes), kind and binding (1), visibility (1), section (2), value (8), size (8).
const SYMBOL_BYTES: usize = 24;
/// Longest walk along a dynamic section or a hash chain. A damaged table must not hang a program.
const STEPS_MAX: usize = 100_000;

/// An object's memory. `None` for what does not lie in it.
pub(crate) trait Memory {
    /// The machine word at an address.
    fn word(&self, at: usize) -> Option<usize>;
    /// The 32-bit word at an address.
    fn half(&self, at: usize) -> Option<u32>;
    /// The byte at an address.
    fn byte(&self, at: usize) -> Option<u8>;
}

/// Where an object's tables are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    base: usize,
    strings: usize,
    symbols: usize,
    hash: usize,
}

impl Tables {
    /// From the dynamic section at `dynamic`: an array of (tag, value) that ends with `DT_NULL`.
    pub(crate) fn of(memory: &impl Memory, base: usize, dynamic: usize) -> Option<Self> {
        let mut tables = Self { base, strings: 0, symbols: 0, hash: 0 };
        let mut entry = dynamic;
        for _ in 0..STEPS_MAX {
            let value = memory.word(entry.checked_add(size_of::<usize>())?)?;
            // glibc has relocated these addresses in place, musl has not.
            let address = if value < base { base.wrapping_add(value) } else { value };
            match memory.word(entry)? {
                DT_NULL => break,
                DT_STRTAB => tables.strings = address,
                DT_SYMTAB => tables.symbols = address,
                DT_GNU_HASH => tables.hash = address,
                _ => {}
            }
            entry = entry.checked_add(2 * size_of::<usize>())?;
        }
        (tables.strings != 0 && tables.symbols != 0 && tables.hash != 0).then_some(tables)
    }

    /// Address of the function of that name, if the object defines one.
    ///
    /// A GNU hash table: number of buckets, first hashed symbol, words of the bloom filter and its shift; then the
    /// filter, the buckets, and the chains, whose last link has bit 0 set.
    pub(crate) fn find(&self, memory: &impl Memory, name: &[u8]) -> Option<usize> {
        let (buckets, first) = (memory.half(self.hash)?, memory.half(self.hash.checked_add(4)?)?);
        let bloom = memory.half(self.hash.checked_add(8)?)? as usize;
        let bucket_table = self.hash.checked_add(16)?.checked_add(bloom.checked_mul(8)?)?;
        let chains = element(bucket_table, buckets, 4)?;
        let wanted = gnu_hash(name);
        let start = memory.half(element(bucket_table, wanted.checked_rem(buckets)?, 4)?)?;
        for index in (start.max(1)..=u32::MAX).take(STEPS_MAX) {
            let link = memory.half(element(chains, index.checked_sub(first)?, 4)?)?;
            if link | 1 == wanted | 1
                && let Some(function) = self.function(memory, index, name)
            {
                return Some(function);
            }
            if link & 1 == 1 {
                return None;
            }
        }
        None
    }

    /// Address of symbol number `index`, if it is a defined function of that name.
    fn function(&self, memory: &impl Memory, index: u32, name: &[u8]) -> Option<usize> {
        let symbol = element(self.symbols, index, SYMBOL_BYTES)?;
        let text = self.strings.checked_add(memory.half(symbol)? as usize)?;
        for (offset, &expected) in name.iter().chain([&0]).enumerate() {
            if memory.byte(text.checked_add(offset)?)? != expected {
                return None;
            }
        }
        let kind = memory.half(symbol.checked_add(4)?)? & 0xf;
        let value = memory.word(symbol.checked_add(8)?)?;
        (kind == STT_FUNC && value != 0).then(|| self.base.wrapping_add(value))
    }
}

fn element(table: usize, index: u32, bytes: usize) -> Option<usize> {
    table.checked_add((index as usize).checked_mul(bytes)?)
}

pub(crate) fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}
