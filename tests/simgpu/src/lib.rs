//! The simulated GPU: a device model, a server that runs it, and what its driver stand-ins talk to it through.
//!
//! One `headgate-simgpu` process is one node's GPUs. Programs load `libcuda.so.1` and `libnvidia-ml.so.1` stand-ins
//! (`tests/simgpu/libcuda`, `tests/simgpu/libnvml`) that talk to it over a Unix socket; allocations, contexts, streams,
//! module code and the measurement of time are all on the server's side, so several processes share one device, and a
//! process that dies leaves nothing behind.
//!
//! What this crate never does: share code with the hook (it links `headgate-abi` for the C types and the symbol table
//! only, so that it cannot share the hook's mistakes), claim to be a real device (everything it prints says
//! `simulated`), call a success what it has not done (an instruction or call it does not know is an error), or let the
//! speed of the machine it runs on change a moment of device time.
//!
//! # For a harness
//! * `headgate-simgpu --socket PATH [--config FILE.json]` prints `ready` when it listens, and ends on SIGTERM.
//! * Programs find it by [`protocol::SOCKET_ENV`] (`HEADGATE_SIMGPU_SOCKET`); with [`protocol::LOG_ENV`]
//!   (`HEADGATE_SIMGPU_LOG`) set, the stand-ins say on stderr why they found no device; with
//!   [`protocol::DEVICE_NODE_ENV`] set, the driver opens that device node first, as a real one opens its own.
//! * [`client::Control`] sets kernel times, injects faults, reads the journal, and reads statistics:
//!
//! ```json
//! {"simulated": true, "now_ns": 0, "elapsed_ns": 0,
//!  "devices": [{"index": 0, "name": "", "uuid": "GPU-..", "sms": 132, "busy_ns": 0, "idle_ns": 0, "switch_ns": 0,
//!               "switches": 0, "copy_ns": 0, "memory_total_bytes": 0, "memory_used_bytes": 0, "memory_peak_bytes": 0}],
//!  "processes": [{"pid": 0, "name": "", "alive": true, "device": 0, "busy_ns": 0, "sm_ns": 0, "kernels": 0, "overlapped": 0,
//!                 "memory_bytes": 0, "memory_peak_bytes": 0, "allocations_refused": 0, "contexts": 1, "mps_sms": null,
//!                 "mps_chunks": null, "green": [{"first": 0, "sms": 0}], "calls": {}}]}
//! ```
//!
//! `nvidia-cuda-mps-control` is a stand-in for NVIDIA's program of that name: it takes the commands of its documentation
//! that Headgate uses, and tells the server. Programs become its clients by `CUDA_MPS_PIPE_DIRECTORY`; without that
//! variable they do not look for one, so that a real one on this machine is left alone.
//!
//! Spans and peaks count from the last [`client::Control::mark`]; `busy_ns + idle_ns + switch_ns = elapsed_ns` on every
//! device, and a process's share of a device is its `busy_ns` over the sum of all.
//!
//! Read in this order: [`model`] (what runs when), [`memory`], [`protocol`], [`server`], [`client`].

pub mod limits;
pub mod model;
pub mod memory;
pub mod pool;
pub mod mappings;
pub mod config;
pub mod protocol;
pub mod server;
pub mod client;
pub mod page;
pub mod shared_event;
pub mod clock;
mod code;
mod wire;
mod sys;
