//! What the sample programs share: their kernels, their arguments, and how they print what they found.
//!
//! They are ordinary CUDA programs on cudarc's safe API. They know nothing of Headgate and must not: that they
//! run unchanged is what they are for.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cudarc::driver::{CudaContext, CudaModule};
use cudarc::nvrtc::Ptx;

/// PTX of the sample kernels, as nvcc made it (`kernels/regenerate`).
pub mod ptx {
    /// `saxpy`, `saxpy_strided`.
    pub const SAXPY: &str = include_str!("../kernels/ptx/saxpy.ptx");
    /// `matmul`.
    pub const MATMUL: &str = include_str!("../kernels/ptx/matmul.ptx");
    /// `reduce_sum` and its kin.
    pub const REDUCTION: &str = include_str!("../kernels/ptx/reduction.ptx");
    /// `spin`, `spin_for`.
    pub const SPIN: &str = include_str!("../kernels/ptx/spin.ptx");
}

/// Loads PTX into a context.
///
/// # Errors
/// When the driver refuses it.
pub fn load(context: &Arc<CudaContext>, ptx: &str) -> Result<Arc<CudaModule>> {
    context.load_module(Ptx::from_src(ptx)).context("loading the kernels")
}

/// Arguments of the form `--name value`.
#[derive(Debug)]
pub struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Reads the program's arguments.
    ///
    /// # Errors
    /// When one is not of the form, or is not among `known`.
    pub fn read(known: &[&str]) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let Some(key) = name.strip_prefix("--").filter(|key| known.contains(key)) else {
                bail!("unknown argument {name}; known are --{}", known.join(", --"));
            };
            let value = words.next().with_context(|| format!("{name} needs a value"))?;
            pairs.push((key.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// The text of an argument, or `otherwise`.
    #[must_use]
    pub fn text(&self, key: &str, otherwise: &str) -> String {
        let found = self.0.iter().rev().find(|(known, _)| known == key);
        found.map_or_else(|| otherwise.to_owned(), |(_, value)| value.clone())
    }

    /// The number of an argument, with an optional `Ki`, `Mi` or `Gi` behind it.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn number(&self, key: &str, otherwise: u64) -> Result<u64> {
        let text = self.text(key, &otherwise.to_string());
        let shifts = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
        let (digits, shift) = shifts
            .into_iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
            .unwrap_or((&text, 0));
        let number: u64 = digits.parse().with_context(|| format!("--{key} {text} is not a number"))?;
        number.checked_shl(shift).with_context(|| format!("--{key} {text} is too large"))
    }
}

/// Prints one JSON object, the program's whole output.
#[expect(clippy::print_stdout, reason = "the result is the program's output")]
pub fn print(value: &serde_json::Value) {
    println!("{value}");
}

/// A fixed sequence of numbers in `0.0..1.0`, the same on every run.
pub fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap_or(0)) / 65_536.0
    })
    .take(count)
    .collect()
}
