//! Where a process' durations go: the row of its tenant, or the cell of its tenant on the GPU that it uses.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, helpers::generated::bpf_get_current_pid_tgid,
    macros::btf_map,
};
use headgate_ebpf_records::{
    events::{Cell, CellKey},
    limits::SEATED_MAX,
};

/// Process and device -> cell, written by the daemon only.
#[btf_map]
pub(crate) static CELLS: HashMap<CellKey, Cell, { SEATED_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// The current process' cell for a device that the hook has told (zero: for whatever it does), if it has one as that tenant;
/// else the tenant's row.
#[inline(always)]
pub(crate) fn cell_of(row: u32, device: u32) -> u32 {
    // SAFETY: the helper takes nothing.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // SAFETY: the value is copied at once; an update replaces whole entries.
    match unsafe { CELLS.get(CellKey { tgid, device }) }.copied() {
        Some(cell) if cell.row == row => cell.cell,
        _ => row,
    }
}
