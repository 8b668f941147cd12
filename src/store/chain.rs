//! The hash chain of a partition.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash before the first event.
pub const GENESIS: Hash = [0; 32];

/// What of a stored event the chain covers: everything.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    pub partition_id: i16,
    pub position: i64,
    pub account_id: &'a str,
    pub version: i64,
    pub previous_position: i64,
    pub event_type: &'a str,
    pub type_version: i16,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    pub payload: &'a str,
}

/// The hash of an event that follows the one hashed `previous`. Lengths go in before texts, so that no two different
/// events hash the same bytes.
pub fn hash(previous: &Hash, link: Link<'_>) -> Hash {
    let mut sha = Sha256::new();
    sha.update(previous);
    sha.update(link.partition_id.to_be_bytes());
    sha.update(link.position.to_be_bytes());
    sha.update(link.version.to_be_bytes());
    sha.update(link.previous_position.to_be_bytes());
    sha.update(link.type_version.to_be_bytes());
    sha.update(link.at_us.to_be_bytes());
    for text in [link.account_id, link.event_type, link.payload] {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text);
    }
    sha.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link<'_> = Link {
        partition_id: 1,
        position: 2,
        account_id: "a",
        version: 3,
        previous_position: 1,
        event_type: "bc",
        type_version: 4,
        at_us: 5,
        payload: "{}",
    };

    #[test]
    fn every_field_counts() {
        let base = hash(&GENESIS, LINK);
        let others = [
            Link { partition_id: 2, ..LINK },
            Link { position: 3, ..LINK },
            Link { account_id: "b", ..LINK },
            Link { version: 4, ..LINK },
            Link { previous_position: 0, ..LINK },
            Link { event_type: "bd", ..LINK },
            Link { type_version: 5, ..LINK },
            Link { at_us: 6, ..LINK },
            Link { payload: "[]", ..LINK },
            // The same bytes, cut elsewhere.
            Link { account_id: "ab", event_type: "c", ..LINK },
        ];
        for other in others {
            assert_ne!(base, hash(&GENESIS, other), "{other:?}");
        }
        assert_ne!(base, hash(&[1; 32], LINK));
    }
}
