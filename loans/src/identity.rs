//! Who a node is: a name in its certificate, of the kind SPIFFE has.
//!
//! ```text
//! spiffe://headgate/district/north/node/node-a
//! ```

use std::fmt;

use headgate_quota::loan::limits::NAME_BYTES_MAX;
use headgate_quota::loan::{District, Node};

const PREFIX: &str = "spiffe://headgate/district/";

/// A node of a district. Names are as configuration has them: lower-case letters, digits and inner dashes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    district: District,
    /// The node as loans name it: `district.node`, so that two districts' nodes of one name are two nodes.
    node: Node,
}

/// Names that make no identity. The operator chose them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadIdentity {
    /// A name with other characters than identities have.
    #[error("`{0}` cannot be part of an identity; use lower-case letters, digits and inner dashes")]
    Name(String),
    /// Both names together are too long.
    #[error("district and node have {0} bytes together, above {max}; shorten one", max = NAME_BYTES_MAX - 1)]
    Long(usize),
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl Identity {
    /// The identity of a node.
    pub fn new(district: &str, node: &str) -> Result<Self, BadIdentity> {
        for name in [district, node] {
            if !is_label(name) {
                return Err(BadIdentity::Name(name.to_owned()));
            }
        }
        let long = || BadIdentity::Long(district.len() + node.len());
        Ok(Self {
            district: District::new(district).ok_or_else(long)?,
            node: Node::new(&format!("{district}.{node}")).ok_or_else(long)?,
        })
    }

    /// The district.
    #[must_use]
    pub const fn district(&self) -> &District {
        &self.district
    }

    /// The node as loans name it.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The identity behind a node's name in loans.
    #[must_use]
    pub fn of_node(node: &Node) -> Option<Self> {
        let (district, name) = node.as_str().split_once('.')?;
        Self::new(district, name).ok()
    }

    /// The node's own name, without its district.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.as_str().split_once('.').map_or("", |(_, name)| name)
    }

    /// As certificates carry it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{PREFIX}{}/node/{}", self.district, self.name())
    }

    /// Reads what a certificate carries.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (district, node) = uri.strip_prefix(PREFIX)?.split_once("/node/")?;
        Self::new(district, node).ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_certificate_and_nothing_else_is_one() {
        let identity = Identity::new("north", "node-a").unwrap();
        assert_eq!(Identity::parse(&identity.uri()), Some(identity.clone()));
        assert_eq!(Identity::of_node(identity.node()), Some(identity));
        for uri in [
            "spiffe://headgate/district/north/node/",
            "spiffe://headgate/district//node/a",
            "spiffe://headgate/district/north/node/a/node/b",
            "spiffe://headgate/district/no.rth/node/a",
            "spiffe://elsewhere/district/north/node/a",
            "spiffe://headgate/district/North/node/a",
            "https://headgate/district/north/node/a",
        ] {
            assert_eq!(Identity::parse(uri), None, "{uri}");
        }
        assert!(matches!(Identity::new(&"d".repeat(32), &"n".repeat(32)), Err(BadIdentity::Long(64))));
    }
}
