//! Address ranges as configuration spells them.

use std::{fmt, net::IpAddr, str::FromStr};

use headgate_ebpf_records::border::{AddressV4, AddressV6, GENERATION_BITS};

use aya::maps::lpm_trie::Key;

/// A range of addresses: `10.4.0.0/16`, `fd00:4::/32`, or one address without a slash. The bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address range: {reason}")]
pub struct CidrError {
    text: String,
    reason: String,
}

impl Cidr {
    /// A range by its first address and the number of leading bits that its addresses share.
    ///
    /// # Errors
    /// If there are not as many bits, or if others than the leading ones are set: such a range is usually a typing error.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let refused = |reason: String| CidrError { text: format!("{address}/{prefix}"), reason };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(refused(format!("its addresses have {bits} bits")));
        }
        // An IPv4 address written as IPv6 is looked up as IPv4; a range of them here would never match.
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(refused("write it as an IPv4 range".to_owned()));
        }
        let rest = match address {
            IpAddr::V4(v4) => u32::from(v4).checked_shl(u32::from(prefix)).unwrap_or(0) != 0,
            IpAddr::V6(v6) => u128::from(v6).checked_shl(u32::from(prefix)).unwrap_or(0) != 0,
        };
        if rest {
            return Err(refused(format!("bits behind the first {prefix} are set")));
        }
        Ok(Self { address, prefix })
    }

    /// The two addresses ranges of every machine itself.
    pub(crate) fn loopback() -> [Self; 2] {
        use std::net::{Ipv4Addr, Ipv6Addr};
        [
            Self { address: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 },
            Self { address: Ipv6Addr::LOCALHOST.into(), prefix: 128 },
        ]
    }

    /// Its key in one of the two tables that share a trie.
    pub(crate) fn key(self, generation: u32) -> RangeKey {
        let prefix = GENERATION_BITS + u32::from(self.prefix);
        match self.address {
            IpAddr::V4(v4) => RangeKey::V4(Key::new(prefix, AddressV4 { generation, address: v4.octets() })),
            IpAddr::V6(v6) => RangeKey::V6(Key::new(prefix, AddressV6 { generation, address: v6.octets() })),
        }
    }
}

/// A range as the tries know it.
pub(crate) enum RangeKey {
    V4(Key<AddressV4>),
    V6(Key<AddressV6>),
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refused = |reason: &str| CidrError { text: text.to_owned(), reason: reason.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (
                address,
                Some(
                    prefix
                        .parse::<u8>()
                        .map_err(|_| refused("what follows the slash is no number of bits"))?,
                ),
            ),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused("it does not begin with an IP address"))?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Self::new(address, prefix.unwrap_or(whole))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn ranges_are_read_and_shown() {
        for (text, shown) in [
            ("10.4.0.0/16", "10.4.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.4.1.2", "10.4.1.2/32"),
            ("fd00:4::/32", "fd00:4::/32"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            let range: Cidr = text.parse().expect(text);
            assert_eq!(range.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for (text, reason) in [
            ("10.4.0.1/16", "bits behind the first 16"),
            ("10.4.0.0/33", "32 bits"),
            ("10.4/16", "IP address"),
            ("10.4.0.0/x", "number of bits"),
            ("::ffff:10.4.0.0/112", "IPv4 range"),
            ("fd00::1/64", "bits behind"),
            ("", "IP address"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
