//! What a worker tells of a device that changes, as NVML on its node tells it.

use super::codec::{Malformed, Put, Reader};

/// Longest version text.
const TEXT_BYTES_MAX: usize = 256;

/// A device at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    /// Bytes of memory the guest may have.
    pub total: u64,
    /// Bytes of it nobody has.
    pub free: u64,
    /// Bytes of it in use.
    pub used: u64,
    /// Percent of time a kernel ran.
    pub busy: u32,
    /// Percent of time memory was read or written.
    pub memory_busy: u32,
    /// The driver's version.
    pub driver: String,
}

impl Gauges {
    /// Adds it to a payload.
    pub fn encode(&self, to: &mut Vec<u8>) {
        for bytes in [self.total, self.free, self.used] {
            to.varint(bytes);
        }
        to.varint(self.busy.into());
        to.varint(self.memory_busy.into());
        to.run(self.driver.as_bytes());
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            total: from.varint()?,
            free: from.varint()?,
            used: from.varint()?,
            busy: from.varint32()?,
            memory_busy: from.varint32()?,
            driver: from.text(TEXT_BYTES_MAX)?.to_owned(),
        })
    }
}

/// A device's identity as NVML writes it.
#[must_use]
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_come_back_and_never_in_part() {
        let gauges =
            Gauges { total: 1 << 40, free: 3, used: 4, busy: 50, memory_busy: 6, driver: "580.1".to_owned() };
        let mut bytes = Vec::new();
        gauges.encode(&mut bytes);
        assert_eq!(Gauges::decode(&mut Reader::new(&bytes)), Ok(gauges));
        for cut in 0..bytes.len() {
            assert!(Gauges::decode(&mut Reader::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn identities_are_written_as_nvml_writes_them() {
        let uuid = std::array::from_fn(|index| u8::try_from(index).unwrap() + 0xa0);
        assert_eq!(uuid_text(&uuid), "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf");
    }
}
