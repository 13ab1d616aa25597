//! Splits the text of an instruction: words, flags, JSON lists and the openings of here-documents.

/// Splits a text at white space outside quotes. The words keep their quotes and escapes, which [`crate::expand`]
/// removes. The second value is `false` if a quote is not closed.
#[must_use]
pub fn words(text: &str, escape: char) -> (Vec<String>, bool) {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    let mut closed = true;
    while !rest.is_empty() {
        let (end, complete) = word_end(rest, escape);
        closed &= complete;
        all.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    (all, closed)
}

/// Returns the end of the word at the start of a text, as an offset in bytes, and whether its quotes are closed.
fn word_end(text: &str, escape: char) -> (usize, bool) {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (None | Some('"'), letter) if letter == escape => drop(letters.next()),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None, letter) if letter.is_whitespace() => return (at, true),
            _ => {}
        }
    }
    (text.len(), quote.is_none())
}

/// Returns the `--flags` at the start of an instruction's arguments, and the arguments after them. `--` alone ends the
/// flags.
#[must_use]
pub fn flags(mut rest: &str, escape: char) -> (Vec<&str>, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (end, _) = word_end(rest, escape);
        let (flag, after) = (&rest[..end], rest[end..].trim_start());
        rest = after;
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// Returns the here-document that a word opens, as in `<<EOF`, `<<-"EOF"` and `3<<EOF`: the line that ends it, and
/// whether leading tabs of its lines are removed.
#[must_use]
pub fn opens_document(word: &str) -> Option<(String, bool)> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (word, tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
    if word.contains('<') {
        return None;
    }
    let end = crate::expand(word, '\\', &|_| crate::Value::Unset)?;
    (!end.is_empty()).then_some((end, tabs))
}

/// Parses a JSON list of strings. Returns `None` for every other text, which Docker then splits into words.
#[must_use]
pub fn json_list(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = json_space(json_space(text).strip_prefix('[')?);
    if let Some(after) = rest.strip_prefix(']') {
        return json_space(after).is_empty().then_some(all);
    }
    loop {
        let (string, after) = json_string(rest)?;
        all.push(string);
        let after = json_space(after);
        if let Some(after) = after.strip_prefix(']') {
            return json_space(after).is_empty().then_some(all);
        }
        rest = json_space(after.strip_prefix(',')?);
    }
}

fn json_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

/// Parses the JSON string at the start of a text, and returns it with the rest.
fn json_string(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut string = String::new();
    loop {
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        match letter {
            '"' => return Some((string, rest)),
            '\\' => {
                let code = rest.chars().next()?;
                rest = &rest[code.len_utf8()..];
                match code {
                    '"' | '\\' | '/' => string.push(code),
                    'b' => string.push('\u{8}'),
                    'f' => string.push('\u{c}'),
                    'n' => string.push('\n'),
                    'r' => string.push('\r'),
                    't' => string.push('\t'),
                    'u' => {
                        let (unit, after) = json_unit(rest)?;
                        rest = after;
                        let low =
                            (0xd800..0xdc00).contains(&unit).then(|| rest.strip_prefix("\\u").and_then(json_unit));
                        let mut units = vec![unit];
                        if let Some((low, after)) = low.flatten().filter(|(low, _)| (0xdc00..0xe000).contains(low)) {
                            units.push(low);
                            rest = after;
                        }
                        string.push_str(&String::from_utf16_lossy(&units));
                    }
                    _ => return None,
                }
            }
            letter if letter < ' ' => return None,
            letter => string.push(letter),
        }
    }
}

fn json_unit(text: &str) -> Option<(u16, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((u16::from_str_radix(digits, 16).ok()?, &text[4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_respect_quotes_and_escapes() {
        let all = |text: &str| words(text, '\\').0;
        assert_eq!(all(r#"a 'b c' "d e"f g\ h"#), ["a", "'b c'", "\"d e\"f", "g\\ h"]);
        assert_eq!(all(r#"'a\' "b\" c" "#), ["'a\\'", "\"b\\\" c\""]);
        assert_eq!(words("a` b", '`').0, ["a` b"]);
        assert!(!words("it's", '\\').1 && words("its", '\\').1);
    }

    #[test]
    fn flags_end_where_the_arguments_begin() {
        assert_eq!(flags("--a=b --c x --d", '\\'), (vec!["--a=b", "--c"], "x --d"));
        assert_eq!(flags("--a='b c' -- --d", '\\'), (vec!["--a='b c'"], "--d"));
        assert_eq!(flags("--a", '\\'), (vec!["--a"], ""));
    }

    #[test]
    fn here_documents_are_told_from_other_words() {
        assert_eq!(opens_document("<<EOF"), Some(("EOF".into(), false)));
        assert_eq!(opens_document("3<<-'a b'"), Some(("a b".into(), true)));
        for word in ["<<", "<<<x", "a<<b", "\"<<EOF\"", "<", "<<''"] {
            assert_eq!(opens_document(word), None, "{word}");
        }
    }

    #[test]
    fn only_json_lists_of_strings_are_accepted() {
        let list = |text: &str| json_list(text).map(|all| all.join("|"));
        assert_eq!(list(r#" [ "a b" , "c\"d\\ \u00e9\ud83d\ude00" ] "#).unwrap(), "a b|c\"d\\ é😀");
        assert_eq!(list("[]").unwrap(), "");
        for text in ["", "[", "['a']", "[\"a\",]", "[\"a\"] b", "[1]", "[\"a\" \"b\"]", "[\"\\x\"]", "[[\"a\"]]"] {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
