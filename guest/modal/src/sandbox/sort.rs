//! Sorts the lists of the service.

/// Sorts a list that the service has already sorted except for ties. The sort is stable and fast if few items have to
/// move. Its code has a few hundred bytes, while the standard sort adds three thousand per type.
pub(crate) fn insertion_sort<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && before(&items[at], &items[at - 1]) {
            items.swap(at, at - 1);
            at -= 1;
        }
    }
}
