//! Bounded caches. The state that a provider keeps between calls only saves requests and may be lost at any time.

/// Maximum number of entries of one cache. A host sends all calls about one sandbox to one instance, so only a few are
/// in use. The bound limits the memory of an instance that lives long.
const MAX_ENTRIES: usize = 64;

/// A map that drops its oldest entry when it is full (64 entries).
pub struct Memo<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Memo { entries: Vec::new() }
    }
}

impl<K: PartialEq, V> Memo<K, V> {
    /// Returns the value of a key, or `None` if there is none.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Removes an entry and returns its value, or `None` if there is none.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Inserts an entry as the newest. Replaces an entry with the same key.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() == MAX_ENTRIES {
            self.entries.remove(0);
        }
        self.entries.push((key, value));
    }

    /// Iterates over all entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten() {
        let mut kept = Memo::default();
        for number in 0..MAX_ENTRIES {
            kept.insert(number, 'a');
        }
        // An entry that is inserted again becomes the newest.
        kept.insert(0, 'b');
        kept.insert(MAX_ENTRIES, 'c');
        assert_eq!((kept.get(&0), kept.get(&1), kept.iter().count()), (Some(&'b'), None, MAX_ENTRIES));
        assert_eq!(kept.iter().last(), Some((&MAX_ENTRIES, &'c')));
        assert_eq!((kept.remove(&2), kept.remove(&2), kept.iter().count()), (Some('a'), None, MAX_ENTRIES - 1));
    }
}
