//! `libheadgate_remote.so`: the driver API of a borrowed GPU.
//!
//! Installed as `libcuda.so.1` and `libnvidia-ml.so.1` on a node without a GPU, it lets driver-API programs use one
//! elsewhere. It exports the rows that the one table (`headgate-abi`, `cuda::remote`) says travel, and of NVML what a
//! borrowed device has, and nothing else; what they do stands in `headgate-remote`. It is a library of its own, not part of
//! the hook, because it starts threads and keeps a connection, as a driver library does and a guest must not.

mod nvml;

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Once;

use headgate_abi::cuda::types::*;
use headgate_remote::client::api;
use headgate_remote::{export_twin, export_twin_address};

headgate_abi::cuda_symbols!(headgate_remote::client_exports, export_nothing);

/// Says where the exports are, before anybody can look them up through us.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| api::set_exports(address_of));
}
