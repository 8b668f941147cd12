//! Seeded orders of delivery: the same seed always gives the same order.

/// A small generator (SplitMix64), so that a failing seed can be replayed for ever.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A random order of `0..len`, each delivered at least once and about one in five again.
pub fn delivery_order(len: usize, seed: u64) -> Vec<usize> {
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..len).collect();
    for event in 0..len {
        if random.below(5) == 0 {
            order.push(event);
        }
    }
    random.shuffle(&mut order);
    order
}

/// Calls `visit` with every permutation of `0..len` (Heap's algorithm).
pub fn each_permutation(len: usize, mut visit: impl FnMut(&[usize])) {
    let mut order: Vec<usize> = (0..len).collect();
    let mut counters = vec![0usize; len];
    visit(&order);
    let mut i = 0;
    while i < len {
        if counters[i] < i {
            if i % 2 == 0 {
                order.swap(0, i)
            } else {
                order.swap(counters[i], i)
            }
            visit(&order);
            counters[i] += 1;
            i = 0;
        } else {
            counters[i] = 0;
            i += 1;
        }
    }
}
