//! Which partition an account belongs to.

/// The partition of an account among `partitions`: FNV-1a, spelt out because the answer must never change.
pub fn partition_of(account_id: &str, partitions: i16) -> i16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in account_id.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The low bits of FNV alone are weak for short keys.
    let mixed = hash ^ (hash >> 32);
    (mixed % partitions.max(1) as u64) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_never_changes() {
        assert_eq!(partition_of("user_1", 1), 0);
        let known = ["user_1", "user_2", "cus_abc", "$system"].map(|account| partition_of(account, 64));
        assert_eq!(known, [24, 21, 6, 24]);
    }

    #[test]
    fn accounts_spread_evenly() {
        let mut counts = [0u32; 64];
        for n in 0..64_000 {
            counts[partition_of(&format!("user_{n}"), 64) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
