//! Ids that look like Stripe's, and are the same whenever the same seed and the same requests come.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A small generator (SplitMix64), written out so that no library's next version changes the ids.
#[derive(Debug, Clone)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether something of the given probability (0 to 1) happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        let share = (self.number() >> 11) as f64 / (1u64 << 53) as f64;
        share < probability
    }

    pub fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(LETTERS[(self.number() % 62) as usize])).collect()
    }

    /// An id with Stripe's prefix for its kind: `cus_` and 14 letters, `sub_1` and 23 others.
    pub fn id(&mut self, prefix: &str) -> String {
        match prefix {
            "cus" | "prod" | "si" => format!("{prefix}_{}", self.text(14)),
            "cs" => format!("cs_test_a1{}", self.text(56)),
            "mtr" => format!("mtr_test_{}", self.text(32)),
            _ => format!("{prefix}_1{}", self.text(23)),
        }
    }
}

/// A digest of a request that stays the same within one process.
pub fn fingerprint(parts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
