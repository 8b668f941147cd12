//! Each partition against itself: gapless, chained, and ending where its head says.

use super::report::{Anchor, Difference, Findings};
use crate::store::chain::{self, GENESIS, Hash, Link};
use crate::store::load::Head;
use crate::store::partition::partition_of;
use crate::store::scan::Scanned;

/// A partition as far as it has been read.
#[derive(Debug)]
pub struct Chain {
    partition_id: i16,
    partitions: i16,
    end: Head,
    anchor: Option<Anchor>,
}

impl Chain {
    pub fn new(partition_id: i16, partitions: i16, anchors: &[Anchor]) -> Self {
        let anchor = anchors.iter().find(|anchor| anchor.partition_id == partition_id && anchor.position > 0);
        let anchor = anchor.cloned();
        Self { partition_id, partitions, end: Head { position: 0, hash: GENESIS }, anchor }
    }

    pub fn partition_id(&self) -> i16 {
        self.partition_id
    }

    /// Checks the next event. The chain goes on from the stored hash, so that each break is told once.
    pub fn take(&mut self, scanned: &Scanned<'_>, findings: &mut Findings) {
        let found = |what, expected: &dyn ToString, found: &dyn ToString| {
            Difference::new("events", what, expected.to_string(), found.to_string())
                .at(scanned.partition_id, scanned.position)
                .of_account(scanned.account_id)
        };
        let expected = self.end.position + 1;
        if scanned.position != expected {
            let missing = format!("{expected} (positions {expected} to {} are missing)", scanned.position - 1);
            findings.push(found("position", &missing, &scanned.position));
        } else {
            let hash = chain::hash(&self.end.hash, link(scanned));
            if hash != scanned.hash {
                findings.push(found("hash", &hex::encode(hash), &hex::encode(scanned.hash)));
            }
        }
        let partition_id = partition_of(scanned.account_id, self.partitions);
        if partition_id != scanned.partition_id {
            findings.push(found("partition_id", &partition_id, &scanned.partition_id));
        }
        self.end = Head { position: scanned.position, hash: stored_hash(scanned) };
        if let Some(anchor) = self.anchor.take_if(|anchor| anchor.position <= scanned.position)
            && (anchor.position, &anchor.hash) != (self.end.position, &hex::encode(self.end.hash))
        {
            let hash = hex::encode(self.end.hash);
            let difference = Difference::new("events", "hash at the anchor", anchor.hash, hash);
            findings.push(difference.at(self.partition_id, self.end.position));
        }
    }

    /// Compares the end with the head. Answers the end.
    pub fn finish(self, head: Option<&Head>, findings: &mut Findings) -> Anchor {
        let end = self.end;
        let found = |what, expected: &dyn ToString, found: &dyn ToString| {
            Difference::new("heads", what, expected.to_string(), found.to_string()).at(self.partition_id, end.position)
        };
        match head {
            None => findings.push(found("row", &end.position, &"absent")),
            Some(head) if head.position != end.position => {
                findings.push(found("position", &end.position, &head.position));
            }
            Some(head) if head.hash != end.hash => {
                findings.push(found("hash", &hex::encode(end.hash), &hex::encode(head.hash)));
            }
            Some(_) => {}
        }
        if let Some(anchor) = &self.anchor {
            let expected = format!("{} or later (the anchor)", anchor.position);
            findings.push(
                Difference::new("events", "last position", expected, end.position).at(self.partition_id, end.position),
            );
        }
        Anchor { partition_id: self.partition_id, position: end.position, hash: hex::encode(end.hash) }
    }
}

fn link<'a>(scanned: &Scanned<'a>) -> Link<'a> {
    Link {
        partition_id: scanned.partition_id,
        position: scanned.position,
        account_id: scanned.account_id,
        version: scanned.version,
        previous_position: scanned.previous_position,
        event_type: scanned.event_type,
        type_version: scanned.type_version,
        at_us: scanned.at_us,
        payload: scanned.payload,
    }
}

fn stored_hash(scanned: &Scanned<'_>) -> Hash {
    // The table's own constraint says 32 bytes; anything else breaks the next link, and is told there.
    scanned.hash.try_into().unwrap_or(GENESIS)
}
