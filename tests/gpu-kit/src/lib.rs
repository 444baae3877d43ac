//! The proof on a real GPU: one folder, one command, results that are committed.
//!
//! `cargo xtask gpu-kit` gathers a folder of built things that runs on a machine with a GPU and nothing of ours. Its `run-all`
//! starts `headgate-kit run`, which gives each part its share of the time, ends what does not end by itself, and writes what was
//! found. A part uses Headgate as an operator would: a daemon with a configuration, `headgate run`, the metrics page. What it
//! measures with (`kit-gpu`, PyTorch) knows nothing of Headgate.
//!
//! It never touches clocks, MIG, persistence mode or any process it did not start.
//!
//! `tests/nvidia.rs` is what can be proved without a GPU: the hook and the probes on NVIDIA's own libraries.
//!
//! Read in this order: [`kit`] (where things lie), [`record`] (what a part writes), [`run`] (the runner), [`parts`],
//! [`summary`] and [`report`] (what becomes of it).

pub mod kit;
pub mod clock;
pub mod record;
pub mod run;
pub mod parts;
pub mod features;
pub mod summary;
pub mod report;
