//! Who a process is, by the kernel's word: credentials of the socket, `/proc`, cgroups.
//!
//! Nothing a process says about itself counts. Read in this order: [`process`], [`cgroup`], [`peer`].

pub mod cgroup;
pub mod peer;
pub mod process;
