//! `libnvidia-ml.so.1` of the simulated GPU: NVML as a thin client of the device server.
//!
//! Every row of the NVML table (`headgate-abi`) is exported, and `nvmlErrorString`. A row without a function in [`api`]
//! answers `NVML_ERROR_NOT_SUPPORTED` and is noted in the server's journal.
//!
//! What it never does: invent a figure the simulated device has not measured, keep state other than the connection,
//! panic in its caller, or link the hook.
//!
//! Read in this order: `exports`, `session`, [`api`], `processes`, `events`, `limits`.

mod exports;
mod session;
mod api;
mod processes;
mod events;
mod limits;
mod raw;
