//! Slots: the row of every per-tenant array that a tenant owns.
//!
//! Slot 0 is nobody's: work of processes that are in no tenant's cgroup, and of sockets whose cgroup was attached but
//! not yet named. That the unknown slot is zero is load-bearing: cgroup-local storage is born zeroed, and the window
//! between attaching a program and naming its tenant must count as unknown, never as some tenant.

use crate::limits::TENANTS_MAX;

/// A row of the per-tenant arrays. `Slot::UNKNOWN`, or one more than the tenant's index on this node.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The row of processes and sockets that belong to no tenant. Shown as tenant `_unknown`.
    pub const UNKNOWN: Self = Self(0);

    /// The row of the tenant with this index on the node, or `None` past [`TENANTS_MAX`].
    #[must_use]
    pub const fn of_tenant(index: u32) -> Option<Self> {
        if index < TENANTS_MAX { Some(Self(index + 1)) } else { None }
    }

    /// The tenant's index on the node; `None` for [`Slot::UNKNOWN`].
    #[must_use]
    pub const fn tenant(self) -> Option<u32> {
        self.0.checked_sub(1)
    }

    /// The row number, as the arrays are indexed.
    #[must_use]
    pub const fn row(self) -> u32 {
        self.0
    }

    /// The slot in a row number that came out of the kernel; `None` if no such row can exist.
    #[must_use]
    pub const fn from_row(row: u32) -> Option<Self> {
        if row < ROWS_MAX { Some(Self(row)) } else { None }
    }
}

/// Rows of a per-tenant array at its largest: every tenant and the unknown one.
pub const ROWS_MAX: u32 = TENANTS_MAX + 1;

const _: () = assert!(Slot::UNKNOWN.row() == 0);
const _: () = assert!(matches!(Slot::of_tenant(TENANTS_MAX - 1), Some(slot) if slot.row() == ROWS_MAX - 1));
const _: () = assert!(Slot::of_tenant(TENANTS_MAX).is_none() && Slot::from_row(ROWS_MAX).is_none());
