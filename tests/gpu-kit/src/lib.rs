//! Headgate and NVIDIA's own software.
//!
//! `tests/nvidia.rs` puts the hook and the probes in front of the genuine driver library, runtimes and bindings on a
//! machine without a device.
