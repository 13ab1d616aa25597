//! Removes quotes and escapes from a word and replaces its variables.

/// The state of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The variable has this value.
    Set(String),
    /// The variable is not set.
    Unset,
    /// The value is unknown, because a base image or the builder decides it.
    Unknown,
}

/// Largest nesting depth of `${A:-${B:-…}}`.
const MAX_DEPTH: usize = 32;

/// Replaces variables and removes quotes and escapes, as Docker does with the words of COPY, ENV and similar
/// instructions. Returns `None` if the result depends on a variable that is [`Value::Unknown`], or uses a substitution
/// that Docker does not document.
#[must_use]
pub fn expand(word: &str, escape: char, lookup: &dyn Fn(&str) -> Value) -> Option<String> {
    Expansion { escape, lookup }.text(word, 0)
}

struct Expansion<'a> {
    escape: char,
    lookup: &'a dyn Fn(&str) -> Value,
}

impl Expansion<'_> {
    fn text(&self, text: &str, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut out = String::new();
        let mut quote = None;
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                '\'' | '"' if quote.is_none() => quote = Some(letter),
                letter if quote == Some(letter) => quote = None,
                letter if letter == self.escape && quote != Some('\'') => match rest.chars().next() {
                    None => out.push(letter),
                    Some(next) => {
                        rest = &rest[next.len_utf8()..];
                        if quote == Some('"') && next != '"' && next != '$' && next != self.escape {
                            out.push(letter);
                        }
                        out.push(next);
                    }
                },
                '$' if quote != Some('\'') => rest = self.variable(rest, &mut out, depth)?,
                letter => out.push(letter),
            }
        }
        Some(out)
    }

    /// Handles a variable whose `$` has been read. Returns the text after it.
    fn variable<'t>(&self, text: &'t str, out: &mut String, depth: usize) -> Option<&'t str> {
        if let Some(inner) = text.strip_prefix('{') {
            let end = closing(inner)?;
            out.push_str(&self.braced(&inner[..end], depth)?);
            return Some(&inner[end + 1..]);
        }
        let end = name_end(text);
        if end == 0 {
            out.push('$');
            return Some(text);
        }
        match (self.lookup)(&text[..end]) {
            Value::Set(value) => out.push_str(&value),
            Value::Unset => {}
            Value::Unknown => return None,
        }
        Some(&text[end..])
    }

    fn braced(&self, text: &str, depth: usize) -> Option<String> {
        let (name, operation) = text.split_at(name_end(text));
        if name.is_empty() {
            return None;
        }
        let value = match (self.lookup)(name) {
            Value::Set(value) => Some(value),
            Value::Unset => None,
            Value::Unknown => return None,
        };
        // With a colon, an empty value counts as unset.
        let (operation, value) = match operation.strip_prefix(':') {
            Some(operation) => (operation, value.filter(|value| !value.is_empty())),
            None => (operation, value),
        };
        let mut letters = operation.chars();
        let (first, word) = (letters.next(), letters.as_str());
        let inner = |word: &str| self.text(word, depth + 1);
        match first {
            None => Some(value.unwrap_or_default()),
            Some('-') => value.map_or_else(|| inner(word), Some),
            Some('+') => value.map_or(Some(String::new()), |_| inner(word)),
            Some('?') => value,
            Some(sign @ ('#' | '%')) => {
                let value = value.unwrap_or_default();
                let (longest, word) = word.strip_prefix(sign).map_or((false, word), |word| (true, word));
                Some(without(&value, &inner(word)?, sign == '#', longest))
            }
            Some('/') => {
                let value = value.unwrap_or_default();
                let (all, word) = word.strip_prefix('/').map_or((false, word), |word| (true, word));
                let (pattern, by) = at_slash(word, self.escape);
                Some(replaced(&value, &inner(pattern)?, &inner(by)?, all))
            }
            Some(_) => None,
        }
    }
}

fn name_end(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 1;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Returns the position of the brace that closes the open one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Splits `${value/pattern/replacement}` into pattern and replacement. An escaped slash belongs to the pattern.
fn at_slash(text: &str, escape: char) -> (&str, &str) {
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '/' => return (&text[..at], &text[at + 1..]),
            letter if letter == escape => drop(letters.next()),
            _ => {}
        }
    }
    (text, "")
}

/// Handles `${value#pattern}` and its variants: removes the shortest or longest match from the start or the end of the
/// value.
fn without(value: &str, pattern: &str, front: bool, longest: bool) -> String {
    let cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    // In the order from the shortest to the longest match, or the reverse.
    let ordered: Box<dyn Iterator<Item = usize>> =
        if front != longest { Box::new(cuts.into_iter()) } else { Box::new(cuts.into_iter().rev()) };
    for cut in ordered {
        let (head, tail) = value.split_at(cut);
        let (tried, kept) = if front { (head, tail) } else { (tail, head) };
        if fits(pattern, tried) {
            return kept.to_owned();
        }
    }
    value.to_owned()
}

/// Handles `${value/pattern/by}`: replaces the first match or all matches. Each match is as long as possible.
fn replaced(value: &str, pattern: &str, by: &str, all: bool) -> String {
    let mut out = String::new();
    let mut rest = value;
    while !rest.is_empty() && !pattern.is_empty() {
        let ends = rest.char_indices().map(|(at, letter)| at + letter.len_utf8()).rev();
        match ends.into_iter().find(|end| fits(pattern, &rest[..*end])) {
            Some(end) => {
                out.push_str(by);
                rest = &rest[end..];
                if !all {
                    break;
                }
            }
            None => {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..first]);
                rest = &rest[first..];
            }
        }
    }
    out + rest
}

/// Returns whether a shell pattern with `*`, `?` and `\` matches the whole text.
fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // The position of the last star, and the number of characters that it matches.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        let (wanted, width) = match pattern.get(at) {
            Some('\\') if at + 1 < pattern.len() => (Some(pattern[at + 1]), 2),
            Some('*') => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some('?') => (Some(text[seen]), 1),
            Some(letter) => (Some(*letter), 1),
            None => (None, 0),
        };
        if wanted == Some(text[seen]) {
            at += width;
            seen += 1;
        } else if let Some((back, taken)) = star {
            star = Some((back, taken + 1));
            (at, seen) = (back + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Value {
        match name {
            "A" => Value::Set("one".into()),
            "PATHS" => Value::Set("a/b/c.tar.gz".into()),
            "EMPTY" => Value::Set(String::new()),
            "BASE" => Value::Unknown,
            _ => Value::Unset,
        }
    }

    #[test]
    fn all_documented_forms_of_variables_are_expanded() {
        for (text, expected) in [
            ("x$A.y", "xone.y"),
            ("${A}b", "oneb"),
            ("'$A'\"$A\"", "$Aone"),
            ("\\$A", "$A"),
            ("${NO:-d${A}}", "done"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+yes}${NO:+no}${NO+no}", "yes"),
            ("${PATHS#*/}", "b/c.tar.gz"),
            ("${PATHS##*/}", "c.tar.gz"),
            ("${PATHS%.*}", "a/b/c.tar"),
            ("${PATHS%%.*}", "a/b/c"),
            ("${PATHS/\\//-}", "a-b/c.tar.gz"),
            ("${PATHS//?.t/X}", "a/b/Xar.gz"),
            ("$", "$"),
            ("a b", "a b"),
            ("a\\ b", "a b"),
            ("di\"r/\"", "dir/"),
            ("\"a\\tb\"", "a\\tb"),
            ("é$A", "éone"),
        ] {
            assert_eq!(expand(text, '\\', &lookup).as_deref(), Some(expected), "{text}");
        }
        for text in ["$BASE", "a${BASE:-b}", "${A", "${}", "${NO:?wanted}", &"${NO:-".repeat(100_000)] {
            assert_eq!(expand(text, '\\', &lookup), None, "{text:.20}");
        }
        assert_eq!(expand("a`$A\\b", '`', &lookup).as_deref(), Some("a$A\\b"));
    }

    #[test]
    fn shell_patterns_match_whole_texts() {
        for (pattern, text, fit) in
            [("*", "", true), ("a*b", "axxb", true), ("a*b", "axx", false), ("?", "é", true), ("\\*", "*", true)]
        {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
    }
}
