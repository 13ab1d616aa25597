//! Words, quotes and variables of Dockerfile lines.

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits at white space outside quotes. Quotes and backslashes stay: [`expand`] takes them away.
pub fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quote != Some('\'') => {
                word.push(letter);
                word.extend(letters.next());
                continue;
            }
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            _ if quote == Some(letter) => quote = None,
            _ if quote.is_none() && letter.is_whitespace() => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(letter);
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// Deepest nesting of `${A:-${B:-…}}`: nobody writes more, and the stack has an end.
const DEPTH: usize = 32;

/// Puts values in for `$NAME`, `${NAME}` and its `:-`, `-`, `:+`, `+`, `:?`, `?` forms, and takes quotes away.
pub fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    nested(text, lookup, 0)
}

fn nested(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    if depth > DEPTH {
        return Err(format!("variables are nested more than {DEPTH} deep"));
    }
    let mut out = String::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            _ if quote == Some(letter) => quote = None,
            '\\' if quote != Some('\'') => match rest.chars().next() {
                None => out.push('\\'),
                Some(next) => {
                    rest = &rest[next.len_utf8()..];
                    if quote == Some('"') && !matches!(next, '"' | '\\' | '$' | '`') {
                        out.push('\\');
                    }
                    out.push(next);
                }
            },
            '$' if quote != Some('\'') => rest = variable(rest, &mut out, lookup, depth)?,
            _ => out.push(letter),
        }
    }
    Ok(out)
}

/// One variable, whose `$` has been read. What follows it.
fn variable<'a>(text: &'a str, out: &mut String, lookup: Lookup<'_>, depth: usize) -> Result<&'a str, String> {
    if let Some(inner) = text.strip_prefix('{') {
        let end = closing(inner).ok_or_else(|| format!("missing '}}' after ${text}"))?;
        out.push_str(&braced(&inner[..end], lookup, depth)?);
        return Ok(&inner[end + 1..]);
    }
    let end = name_end(text);
    if end == 0 {
        out.push('$');
    } else {
        out.push_str(&lookup(&text[..end]).unwrap_or_default());
    }
    Ok(&text[end..])
}

fn name_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the brace that is open closes.
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

fn braced(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    let end = name_end(text);
    let (name, operation) = text.split_at(end);
    if name.is_empty() {
        return Err(format!("bad substitution: ${{{text}}}"));
    }
    let value = lookup(name);
    // With a colon an empty value counts as none.
    let (operation, value) = match operation.strip_prefix(':') {
        Some(operation) => (operation, value.filter(|value| !value.is_empty())),
        None => (operation, value),
    };
    let mut letters = operation.chars();
    match (letters.next(), letters.as_str()) {
        (None, _) => Ok(value.unwrap_or_default()),
        (Some('-'), word) => value.map_or_else(|| nested(word, lookup, depth + 1), Ok),
        (Some('+'), word) => value.map_or(Ok(String::new()), |_| nested(word, lookup, depth + 1)),
        (Some('?'), word) => value.ok_or_else(|| format!("{name}: {word}")),
        _ => Err(format!("unsupported substitution: ${{{text}}}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_in_all_forms() {
        for (text, expected) in [
            ("x$A.y", "xone.y"),
            ("${A}b", "oneb"),
            ("'$A' \"$A\"", "$A one"),
            ("\\$A", "$A"),
            ("${NO:-d${A}}", "done"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+yes}${NO:+no}", "yes"),
            ("$", "$"),
            ("a$$", "a$$"),
            ("\"a\\tb\"", "a\\tb"),
            ("é$A", "éone"),
        ] {
            assert_eq!(expand(text, &lookup).unwrap(), expected, "{text}");
        }
        assert!(expand("${NO:?is needed}", &lookup).unwrap_err().contains("is needed"));
        assert!(expand("${A", &lookup).is_err());
        assert!(expand("${}", &lookup).is_err());
        let deep = format!("{}{}", "${NO:-".repeat(100_000), "}".repeat(100_000));
        assert!(expand(&deep, &lookup).unwrap_err().contains("nested"));
    }

    proptest! {
        #![proptest_config(crate::build::cases())]

        #[test]
        fn any_text_is_expanded_or_refused(text in r#"([ab'"\\ ]|\$|\$\{|\}|A|NO|:?[-+?]|é){0,60}"#) {
            let _ = words(&text);
            let _ = expand(&text, &lookup);
        }

        #[test]
        fn what_has_no_signs_stays(text in "[a-z0-9 /.:=é-]{0,60}") {
            prop_assert_eq!(expand(&text, &lookup).unwrap(), text.clone());
            prop_assert_eq!(words(&text).join(" "), text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }

    #[test]
    fn words_respect_quotes() {
        assert_eq!(words(r#"a 'b c' "d e"f g\ h"#), ["a", "'b c'", "\"d e\"f", "g\\ h"]);
    }
}
