//! What the fuzz targets share, and the one room of the hook that they use, compiled in as it is: the hook's library
//! itself would stand in front of the fuzzer's own `dlsym`.
//!
//! Each target says at its head what it feeds and what must hold. How to run them: `cargo xtask fuzz`.
#[path = "../../hook/src/elf/tables.rs"]
mod elf_tables;

/// An object's memory made of bytes, at an address of choice.
#[derive(Debug)]
pub struct Image<'a> {
    /// Address of the first byte.
    pub base: usize,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Image<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let from = at.checked_sub(self.base)?;
        self.bytes.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    /// What the hook finds for a name, by the dynamic section at an address.
    #[must_use]
    pub fn find(&self, dynamic: usize, name: &[u8]) -> Option<usize> {
        elf_tables::Tables::of(self, self.base, dynamic)?.find(self, name)
    }
}

impl elf_tables::Memory for Image<'_> {
    fn word(&self, at: usize) -> Option<usize> {
        self.array(at).map(usize::from_le_bytes)
    }

    fn half(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }
}

/// The hash of a name as the object's hash table stores it.
#[must_use]
pub fn gnu_hash(name: &[u8]) -> u32 {
    elf_tables::gnu_hash(name)
}

/// Takes numbers off the front of a target's bytes; zeros when they run out.
#[derive(Debug)]
pub struct Numbers<'a>(pub &'a [u8]);

impl Numbers<'_> {
    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        let mut word = [0; 8];
        let length = self.0.len().min(8);
        word[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        u64::from_le_bytes(word)
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Whether anything is left.
    #[must_use]
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }
}
