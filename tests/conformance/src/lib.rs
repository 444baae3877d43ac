//! The conformance suite: what a program sees of device memory, whoever stands behind the driver API.
//!
//! One program (`conform`) runs the cases on whatever `libcuda.so.1` it finds: the simulated device or a real one,
//! natively or under the hook. It is written against NVIDIA's headers as cudarc binds them and links nothing of
//! Headgate, so that it cannot share Headgate's mistakes. `tests/` starts it three ways and compares:
//!
//! * natively, which proves the device right;
//! * under the hook without limits, which must change nothing that a program can see;
//! * under the hook with limits, which must refuse exactly what does not fit, with the driver's own code.
//!
//! Read in this order: [`gpu`] (the calls), [`family`] (every way to take memory), [`transcript`] (what is
//! compared), [`work`] (the same for graphs and launches), [`copies`] (and for copies and code), [`aside`] (and for
//! checkpoints), [`contexts`] (and for contexts that have ended), [`limits`] (what is refused), [`churn`] (random
//! operations), [`chaos`] (the same on a driver that fails), [`route`] (the ways to the driver), [`report`] (all of it
//! for machines).

pub mod gpu;
pub mod family;
pub mod nvml;
pub mod transcript;
pub mod work;
pub mod copies;
pub mod aside;
pub mod contexts;
pub mod chaos;
pub mod limits;
pub mod churn;
pub mod route;
pub mod report;
pub mod catalogue;
