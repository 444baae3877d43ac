//! Whose process is this? The tenant of the innermost cgroup that has one.

use aya_ebpf::{
    btf_maps::HashMap,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id},
    macros::btf_map,
};
use headgate_ebpf_records::{
    limits::{CGROUP_LEVELS_MAX, CGROUPS_MAX},
    slots::Slot,
};

/// Cgroup id -> tenant row, written by the daemon only.
#[btf_map]
pub(crate) static CGROUPS: HashMap<u64, u32, { CGROUPS_MAX as usize }> = HashMap::new();

/// The current process' cgroup.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: the helper takes nothing and reads the current task, which exists in every program here.
    unsafe { bpf_get_current_cgroup_id() }
}

/// The tenant row of the current process: that of the deepest of its cgroup and that cgroup's ancestors that the
/// daemon has named, so that a container made inside a tenant's cgroup still counts as the tenant's, and a tenant
/// inside another tenant's cgroup as itself.
#[inline(always)]
#[allow(dead_code, reason = "the programs that judge remember what they found, and ask below")]
pub(crate) fn current_row() -> u32 {
    // Most processes sit in the very cgroup that was named; for them the walk would be fifteen helper calls of nothing.
    match row_named(current_cgroup()) {
        Some(row) => row,
        None => row_above(),
    }
}

/// The row that a cgroup itself was given.
#[inline(always)]
pub(crate) fn row_named(cgroup_id: u64) -> Option<u32> {
    // SAFETY: the value is copied at once; a concurrent update of the map replaces whole 32-bit rows.
    unsafe { CGROUPS.get(cgroup_id) }.copied()
}

/// The row of the deepest named ancestor of the current process' cgroup.
#[inline(always)]
pub(crate) fn row_above() -> u32 {
    let mut level = CGROUP_LEVELS_MAX;
    while level > 0 {
        level -= 1;
        // SAFETY: the helper accepts any level and answers zero below the process' own cgroup.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if id == 0 {
            continue;
        }
        if let Some(row) = row_named(id) {
            return row;
        }
    }
    Slot::UNKNOWN.row()
}
