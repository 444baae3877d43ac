//! `libcuda.so.1` of the simulated GPU: the driver API as a thin client of the device server.
//!
//! Every row of the one symbol table (`headgate-abi`) is exported. A row that has a function in [`api`] does what the
//! CUDA documentation says, by the server's doing; any other returns `CUDA_ERROR_NOT_SUPPORTED` and is noted in the
//! server's journal. Devices, memory and the passing of time are the server's; handles, the stack of current contexts
//! and a copy of what the process has allocated are kept here, so that a wrong argument is answered as quickly as a
//! real driver answers it.
//!
//! What it never does: say that something worked which was not done, panic or exit in its caller, hang in a forked
//! child (every call there answers `CUDA_ERROR_NOT_INITIALIZED`), or link the hook.
//!
//! Read in this order: `exports` (the shells), `driver` (the process's state), `objects`, `current`, then [`api`].

mod exports;
mod driver;
mod objects;
mod table;
mod current;
mod api;
mod private;
mod attributes;
mod image;
mod format;
mod graph;
mod capture;
mod host_functions;
mod mps;
mod raw;
