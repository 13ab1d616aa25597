//! Caches that are bounded. What a provider remembers between calls only saves requests and may be lost at any time.

/// Most entries of one cache. A host sends calls about one sandbox to one instance, so few are in use; the bound keeps a
/// long-lived instance from growing.
const MAX_ENTRIES: usize = 64;

/// A map that forgets the oldest entry when it is full.
pub struct Memo<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Memo { entries: Vec::new() }
    }
}

impl<K: PartialEq, V> Memo<K, V> {
    /// Looks up.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Takes out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Puts in, as the newest.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() == MAX_ENTRIES {
            self.entries.remove(0);
        }
        self.entries.push((key, value));
    }

    /// All entries, oldest first.
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
        // Put in again, it is the newest.
        kept.insert(0, 'b');
        kept.insert(MAX_ENTRIES, 'c');
        assert_eq!((kept.get(&0), kept.get(&1), kept.iter().count()), (Some(&'b'), None, MAX_ENTRIES));
        assert_eq!(kept.iter().last(), Some((&MAX_ENTRIES, &'c')));
        assert_eq!((kept.remove(&2), kept.remove(&2), kept.iter().count()), (Some('a'), None, MAX_ENTRIES - 1));
    }
}
