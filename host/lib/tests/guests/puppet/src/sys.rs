//! What safe code cannot do.

/// Returns a text that is not UTF-8, as a component with a fault could return it.
pub fn text_that_is_not_utf8() -> String {
    // SAFETY: this breaks the rule of `String` deliberately. The text is only copied to the host, which must refuse it; no
    // function of `str` reads it.
    unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe, b'a']) }
}
