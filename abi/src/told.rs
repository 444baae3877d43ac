//! What the hook tells the kernel's probes, which share no memory with it.
//!
//! A probe sees the registers of a call. The driver's synchronous calls have three arguments at most, so the register of a sixth
//! one is free (x86-64's calling convention lets whoever is called find anything there), and the hook puts the device into it that
//! the thread is about to wait for. Nothing rests on it but the label of a figure.

/// Marks a word in that register as the hook's. The lowest byte is the row of the device in the segments.
pub const DEVICE_MARK: u64 = u64::from_be_bytes(*b"headgat\0");

/// The word for a device row; zero, which says nothing, for a row that does not fit.
#[must_use]
pub const fn device_word(row: usize) -> u64 {
    if row < 256 { DEVICE_MARK | row as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::{DEVICE_MARK, device_word};

    #[test]
    fn the_lowest_byte_is_the_row() {
        assert_eq!(device_word(0), DEVICE_MARK);
        assert_eq!(device_word(255), DEVICE_MARK | 0xff);
        assert_eq!((device_word(256), DEVICE_MARK & 0xff), (0, 0));
    }
}
