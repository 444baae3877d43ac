//! What a worker and the hook in its own process say to each other of memory that was taken ahead of its use.
//!
//! The worker alone knows that it holds such memory, the hook alone has the tenant's ledger, and neither links the other.
//! The worker asks for these functions as for the driver's own, by `cuGetProcAddress`; the hook answers where the driver
//! knows no such name. Without a hook there is no quota to be refused by, and the names are not found.

use core::ffi::{CStr, c_int, c_uint};

/// The name of a [`Holds`].
pub const HOLDS: &CStr = c"headgateHoldsAhead";
/// The name of a [`Called`].
pub const CALLED: &CStr = c"headgateCalledBack";
/// The name of a [`Answered`].
pub const ANSWERED: &CStr = c"headgateGaveBack";

/// Says whether (1 or 0) this process holds memory on a device that it may be asked to give back. The number of the last call
/// that concerns it.
pub type Holds = extern "C" fn(device: c_int, holds: c_uint) -> c_uint;
/// Waits until there is another call than the one of this number, or for a while. The number of the last one.
pub type Called = extern "C" fn(seen: c_uint) -> c_uint;
/// Says that what could be given back at the call of this number has been.
pub type Answered = extern "C" fn(number: c_uint);
