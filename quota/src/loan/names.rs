//! Who is who across nodes.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use super::limits::NAME_BYTES_MAX;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name: letters, digits, `-`, `_` and `.`, 63 bytes at most. `None` for anything else, so that
            /// no name can break a line, a label or a path.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A compliance domain. Every node and every tenant belongs to exactly one.
    District
}
name! {
    /// One daemon's machine.
    Node
}
name! {
    /// A tenant, unique within its district.
    Tenant
}
name! {
    /// A GPU by its UUID.
    Device
}

name! {
    /// What people call an incident.
    IncidentName
}

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(good)
}

/// A number as it is written: digits only, no sign, no leading zero, so that one thing has one text.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// A tenant seen from another district.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Guest {
    /// Its district.
    pub district: District,
    /// Its name there.
    pub tenant: Tenant,
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.district, self.tenant)
    }
}

/// A device and where it is. Also the name of its ledger: one device, one ledger, one lender.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The district that owns it.
    pub district: District,
    /// The node it is built into.
    pub node: Node,
    /// The device.
    pub device: Device,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.district, self.node, self.device)
    }
}

/// One loan, for ever. The borrower makes it, so that asking twice is asking once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LoanId {
    /// The node that borrows.
    pub node: Node,
    /// Which start of its daemon asked first.
    pub incarnation: u64,
    /// Counts within that start.
    pub number: u64,
}

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.node, self.incarnation, self.number)
    }
}

/// A text that names nothing of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAName {
    /// What it should have named.
    pub expected: &'static str,
}

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl core::error::Error for NotAName {}

impl FromStr for LoanId {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let parse = || {
            let mut parts = text.split('/');
            let id = Self {
                node: Node::new(parts.next()?)?,
                incarnation: number(parts.next()?)?,
                number: number(parts.next()?)?,
            };
            parts.next().is_none().then_some(id)
        };
        parse().ok_or(NotAName { expected: "a loan: NODE/INCARNATION/NUMBER" })
    }
}

impl FromStr for Place {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let parse = || {
            let mut parts = text.split('/');
            let place = Self {
                district: District::new(parts.next()?)?,
                node: Node::new(parts.next()?)?,
                device: Device::new(parts.next()?)?,
            };
            parts.next().is_none().then_some(place)
        };
        parse().ok_or(NotAName { expected: "a place: DISTRICT/NODE/DEVICE" })
    }
}

impl FromStr for Guest {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        text.split_once('/')
            .and_then(|(district, tenant)| {
                Some(Self { district: District::new(district)?, tenant: Tenant::new(tenant)? })
            })
            .ok_or(NotAName { expected: "a guest: DISTRICT/TENANT" })
    }
}
