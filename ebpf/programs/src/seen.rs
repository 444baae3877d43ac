//! What was found for a cgroup, remembered: the walk over its ancestors is long, and even a cgroup's own row takes a look
//! into a table that most cgroups are not in. A module of the programs that judge, beside `attribution.rs`.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use headgate_ebpf_records::{
    border::{CGROUPS_LATELY, FoundRow, Owner, control},
    limits::CGROUPS_MAX,
};

use crate::attribution::row_named;

#[btf_map]
pub(crate) static CONTROL: Array<u32, { control::WORDS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Rows of cgroups, those that are nobody's included, each with the epoch in which it was found.
#[btf_map]
static SEEN: LruHashMap<u64, Owner, { CGROUPS_MAX as usize }> = LruHashMap::new();

/// The same of those lately asked for on this CPU, each in one word: a look into an array is a tenth of one into a hash.
#[btf_map]
static CGROUPS_SEEN: PerCpuArray<u64, { CGROUPS_LATELY as usize }> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn word(index: u32) -> u32 {
    // SAFETY: a 32-bit number in a value just looked up; the loader stores it whole.
    CONTROL.get_ptr(index).map_or(0, |word| unsafe { word.read_volatile() })
}

/// The row of a cgroup: its own or, by the walk, that of the deepest named one above it.
///
/// The epoch is the caller's, read before the table: a change that comes in between leaves an old epoch behind, and the next look
/// is a real one.
#[inline(always)]
pub(crate) fn row_of_cgroup(epoch: u32, cgroup_id: u64, walk: impl FnOnce() -> u32) -> u32 {
    let lately = CGROUPS_SEEN.get_ptr_mut(FoundRow::place(cgroup_id));
    if let Some(lately) = lately
        // SAFETY: a 64-bit number in a value just looked up; one load.
        && let Some(row) = FoundRow(unsafe { lately.read_volatile() }).row(epoch, cgroup_id)
    {
        return row;
    }
    let row = look_up(epoch, cgroup_id, walk);
    if let Some(lately) = lately {
        // SAFETY: as above; one store.
        unsafe { lately.write_volatile(FoundRow::new(epoch, cgroup_id, row).0) };
    }
    row
}

#[inline(always)]
fn look_up(epoch: u32, cgroup_id: u64, walk: impl FnOnce() -> u32) -> u32 {
    // SAFETY: a word, copied at once.
    if let Some(row) = unsafe { SEEN.get(cgroup_id) }.and_then(|owner| owner.row_in(epoch)) {
        return row;
    }
    let row = row_named(cgroup_id).unwrap_or_else(walk);
    // Without room it is looked for again next time.
    let _full = SEEN.insert(cgroup_id, Owner::new(epoch, row), 0);
    row
}
