//! What a program that shares a device by space has to find in its environment: NVIDIA's MPS takes it from there.
//!
//! `headgate run` sets it, as the daemon says. A tenant could set it otherwise, so the daemon also puts a digest of it into
//! the limits, which the tenant can only read, and the hook compares before CUDA starts.

/// The variables that decide a client's part of a device, in the order of the digest.
pub const VARIABLES: [&str; 4] = [
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_SM_PARTITION",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_ENABLE_PER_CTX_DEVICE_MULTIPROCESSOR_PARTITIONING",
];

/// Digest of these variables' values, an empty one being as none; never zero, which says that nothing is asked. It is no
/// signature: who can write the environment could not write the digest, and that is all it needs.
#[must_use]
pub fn digest(mut value: impl FnMut(&'static str) -> Option<Vec<u8>>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |digest: u64, byte: u8| (digest ^ u64::from(byte)).wrapping_mul(PRIME);
    let digest = VARIABLES.iter().fold(OFFSET, |digest, name| {
        let value = value(name).filter(|value| !value.is_empty());
        // No value of an environment holds a NUL, so none can pass for two.
        step(value.into_iter().flatten().fold(digest, step), 0)
    });
    digest.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: [Option<&str>; 4]) -> u64 {
        digest(|name| {
            let at = VARIABLES.iter().position(|known| *known == name)?;
            values[at].map(|value| value.as_bytes().to_vec())
        })
    }

    #[test]
    fn every_variable_counts_and_none_passes_for_another() {
        let whole = of([Some("/run/mps"), Some("GPU-1/a"), None, None]);
        assert_ne!(whole, of([Some("/run/mps"), Some("GPU-1/b"), None, None]));
        assert_ne!(whole, of([Some("/run/mp"), Some("sGPU-1/a"), None, None]));
        assert_ne!(whole, of([Some("/run/mps"), None, Some("GPU-1/a"), None]));
        assert_ne!(whole, of([Some("/run/mps"), Some("GPU-1/a"), None, Some("1")]));
        assert_eq!(whole, of([Some("/run/mps"), Some("GPU-1/a"), Some(""), None]));
        assert_ne!(of([None; 4]), 0);
    }
}
