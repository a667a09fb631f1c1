//! A set of small numbers.

/// A set of destination numbers, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn contains(&self, n: u32) -> bool {
        self.words.get(n as usize / 64).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    pub(super) fn insert(&mut self, n: u32) {
        let at = n as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (n % 64);
    }

    /// Takes all members of another set too.
    pub(super) fn insert_all(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    pub(super) fn remove(&mut self, n: u32) {
        if let Some(word) = self.words.get_mut(n as usize / 64) {
            *word &= !(1 << (n % 64));
        }
    }

    /// The least member that is not below `from`.
    pub(super) fn next_from(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let mut mask = !0 << (from % 64);
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let word = word & mask;
            if word != 0 {
                return Some(at as u32 * 64 + word.trailing_zeros());
            }
            mask = !0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_order() {
        let mut bits = Bits::default();
        for n in [3, 64, 200, 63] {
            bits.insert(n);
        }
        bits.remove(200);
        bits.remove(10_000);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(n) = bits.next_from(from) {
            found.push(n);
            from = n + 1;
        }
        assert_eq!(found, [3, 63, 64]);
        assert!(bits.contains(63) && !bits.contains(200) && !bits.contains(100_000));
    }
}
