//! The order of what the service lists.

/// Sorts, stably, what the service sorts but for ties: fast where little has to be moved, and a few hundred bytes, where
/// the library's sort is three thousand for each type.
pub(crate) fn insertion_sort<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && before(&items[at], &items[at - 1]) {
            items.swap(at, at - 1);
            at -= 1;
        }
    }
}
