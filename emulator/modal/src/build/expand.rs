//! Splits lines of Dockerfiles into words, and expands quotes and variables.

use crate::build::glob::Glob;

/// A function that returns the value of a variable; `None` if it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits a text at white space outside quotes. Quotes and escapes are kept for [`expand`], which removes them.
pub fn words(text: &str, escape: char) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == escape && quote != Some('\'') => {
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

/// Deepest nesting of `${A:-${B:-…}}`. The limit protects the stack; real files have about two levels.
const DEPTH: usize = 32;

/// Longest value in bytes for `${x/a/b}`, because the rest of the value may be compared again at each position.
const LONGEST_REPLACED: usize = 16 * 1024;

/// Expands variables in all forms of the Dockerfile reference, and removes quotes and escapes.
///
/// # Errors
///
/// Returns a text that says what is wrong with a quote or a substitution.
pub fn expand(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    Scanner { rest: text, escape, document: false, lookup, depth: 0 }.until(None, false)
}

/// Expands variables in a here-document. Quotes are ordinary characters there, and a backslash escapes only `$`, `` ` ``,
/// itself and the end of a line.
///
/// # Errors
///
/// Returns a text that says what is wrong with a substitution.
pub fn expand_document(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    Scanner { rest: text, escape: '\\', document: true, lookup, depth: 0 }.until(None, false)
}

struct Scanner<'a> {
    rest: &'a str,
    escape: char,
    document: bool,
    lookup: Lookup<'a>,
    depth: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[letter.len_utf8()..];
        Some(letter)
    }

    /// Reads up to the character `stop`, which is consumed, or to the end. With `raw`, escapes are kept, because the text is a
    /// pattern.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<String, String> {
        let mut out = String::new();
        while let Some(letter) = self.next() {
            match letter {
                _ if Some(letter) == stop => return Ok(out),
                '\'' if !self.document => loop {
                    match self.next() {
                        Some('\'') => break,
                        Some(letter) => out.push(letter),
                        None => return Err("the quote ' is not closed".to_owned()),
                    }
                },
                '"' if !self.document => self.quoted(&mut out, raw)?,
                '$' => self.variable(&mut out)?,
                _ if letter == self.escape => self.escaped(&mut out, raw),
                _ => out.push(letter),
            }
        }
        match stop {
            None => Ok(out),
            Some(stop) => Err(format!("'{stop}' is missing in a substitution")),
        }
    }

    fn escaped(&mut self, out: &mut String, raw: bool) {
        let Some(next) = self.next() else {
            if self.document {
                out.push(self.escape);
            }
            return;
        };
        if self.document && next == '\n' {
            return;
        }
        if raw || self.document && !matches!(next, '$' | '`' | '\\') {
            out.push(self.escape);
        }
        out.push(next);
    }

    fn quoted(&mut self, out: &mut String, raw: bool) -> Result<(), String> {
        loop {
            match self.next() {
                None => return Err("the quote \" is not closed".to_owned()),
                Some('"') => return Ok(()),
                Some('$') => self.variable(out)?,
                Some(letter) if letter == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        if raw {
                            out.push(letter);
                        }
                        out.extend(self.next());
                    }
                    _ => out.push(letter),
                },
                Some(letter) => out.push(letter),
            }
        }
    }

    /// Reads a variable's name: letters, digits and `_`, or a number, or one of the shell's special characters.
    fn name(&mut self) -> String {
        let taken = match self.peek() {
            Some(first) if first.is_ascii_digit() => self.rest.find(|letter: char| !letter.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => self.rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_'),
        };
        let (name, rest) = self.rest.split_at(taken.unwrap_or(self.rest.len()));
        self.rest = rest;
        name.to_owned()
    }

    /// Expands the variable after a `$`, which has been read already.
    fn variable(&mut self, out: &mut String) -> Result<(), String> {
        if self.peek() != Some('{') {
            let name = self.name();
            match name.as_str() {
                "" => out.push('$'),
                name => out.push_str(&(self.lookup)(name).unwrap_or_default()),
            }
            return Ok(());
        }
        self.next();
        let shown = self.rest.split_once('}').map_or(self.rest, |(inside, _)| inside);
        let bad = format!("bad substitution: ${{{}}}", &shown[..shown.floor_char_boundary(80)]);
        if matches!(self.peek(), None | Some('{' | '}' | ':')) {
            return Err(bad);
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("variables are nested more than {DEPTH} deep"));
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        let value = match self.next() {
            None => return Err("'}' is missing in a substitution".to_owned()),
            Some('}') => value.unwrap_or_default(),
            Some('/') => self.replaced(value.unwrap_or_default())?,
            Some(sign @ ('#' | '%')) => self.trimmed(sign, &value.unwrap_or_default())?,
            Some(':') => {
                let sign = self.next().filter(|sign| matches!(sign, '-' | '+' | '?')).ok_or(bad)?;
                self.chosen(sign, &name, value.filter(|value| !value.is_empty()), "empty")?
            }
            Some(sign @ ('-' | '+' | '?')) => self.chosen(sign, &name, value, "unset")?,
            Some(_) => return Err(bad),
        };
        self.depth -= 1;
        out.push_str(&value);
        Ok(())
    }

    fn chosen(&mut self, sign: char, name: &str, value: Option<String>, what: &str) -> Result<String, String> {
        let word = self.until(Some('}'), false)?;
        match (sign, value) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name}: is not allowed to be {what}")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// Expands `${x#pattern}`, `${x##pattern}`, `${x%pattern}` and `${x%%pattern}`, which remove the shortest or longest match
    /// at the beginning or the end.
    fn trimmed(&mut self, sign: char, value: &str) -> Result<String, String> {
        let longest = self.peek() == Some(sign);
        if longest {
            self.next();
        }
        let glob = Glob::text(&self.until(Some('}'), true)?);
        let lengths = match sign {
            '#' => glob.lengths(value.chars()),
            _ => glob.reversed().lengths(value.chars().rev()),
        };
        let taken = if longest { lengths.last() } else { lengths.first() }.copied().unwrap_or(0);
        let left = value.chars().count() - taken;
        Ok(match sign {
            '#' => value.chars().skip(taken).collect(),
            _ => value.chars().take(left).collect(),
        })
    }

    /// Expands `${x/pattern/text}`, and `${x//pattern/text}`, which replaces all matches.
    fn replaced(&mut self, value: String) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let glob = Glob::text(&self.until(Some('/'), true)?);
        let text = self.until(Some('}'), true)?;
        if value.len() > LONGEST_REPLACED {
            return Err(format!("a value in which text is replaced has more than {LONGEST_REPLACED} bytes"));
        }
        let mut out = String::new();
        let mut rest = value.as_str();
        while let Some(letter) = rest.chars().next() {
            let length = glob.lengths(rest.chars()).last().copied().filter(|length| *length > 0);
            let Some(length) = length else {
                out.push(letter);
                rest = &rest[letter.len_utf8()..];
                continue;
            };
            out.push_str(&text);
            rest = rest.char_indices().nth(length).map_or("", |(at, _)| &rest[at..]);
            if !all {
                break;
            }
        }
        out.push_str(rest);
        Ok(out)
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
            "FILE" => Some("/usr/lib/foo.tar.gz".to_owned()),
            "W" => Some("a*b".to_owned()),
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
            ("${NO:-\"a}b\"}", "a}b"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+yes}${NO:+no}", "yes"),
            ("${EMPTY+set}${NO+not}", "set"),
            ("${A:?needed}${EMPTY?needed}", "one"),
            ("${FILE#*/}", "usr/lib/foo.tar.gz"),
            ("${FILE##*/}", "foo.tar.gz"),
            ("${FILE%.*}", "/usr/lib/foo.tar"),
            ("${FILE%%.*}", "/usr/lib/foo"),
            ("${FILE%.zip}", "/usr/lib/foo.tar.gz"),
            ("${FILE#/usr/???/}", "foo.tar.gz"),
            ("${W%\\*b}", "a"),
            ("${W#a${NO:-\\*}}", "*b"),
            ("${A/n/N}", "oNe"),
            ("${FILE/o/0}", "/usr/lib/f0o.tar.gz"),
            ("${FILE//o/0}", "/usr/lib/f00.tar.gz"),
            ("${FILE//\\//_}", "_usr_lib_foo.tar.gz"),
            ("${FILE/lib*/x}", "/usr/x"),
            ("${NO/a/b}${NO#x}", ""),
            ("$", "$"),
            ("a$.", "a$."),
            ("\"a\\tb\"", "a\\tb"),
            ("a\\tb", "atb"),
            ("a\\", "a"),
            ("a' 'b\" \"c\\ d", "a b c d"),
            ("é$A", "éone"),
        ] {
            assert_eq!(expand(text, '\\', &lookup).unwrap(), expected, "{text}");
        }
        assert_eq!(expand("C:\\a`$A", '`', &lookup).unwrap(), "C:\\a$A");
        for (text, says) in [
            ("${NO:?is needed}", "NO: is needed"),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
            ("${NO?}", "NO: is not allowed to be unset"),
            ("${A", "missing"),
            ("${A:-x", "missing"),
            ("${}", "bad substitution"),
            ("${A:#x}", "bad substitution"),
            ("${A^}", "bad substitution"),
            ("it's", "not closed"),
            ("\"a", "not closed"),
        ] {
            let error = expand(text, '\\', &lookup).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let deep = format!("{}{}", "${NO:-".repeat(100_000), "}".repeat(100_000));
        assert!(expand(&deep, '\\', &lookup).unwrap_err().contains("nested"));
    }

    #[test]
    fn here_documents_are_expanded_as_a_shell_does() {
        let text = "a \"$A\" '${A}' \\$A \\\\ \\n `x` $(y) a\\\nb\n";
        assert_eq!(expand_document(text, &lookup).unwrap(), "a \"one\" 'one' $A \\ \\n `x` $(y) ab\n");
    }

    proptest! {
        #![proptest_config(crate::build::cases())]

        #[test]
        fn any_text_is_expanded_or_refused(text in r#"([ab'"\\ /#%*]|\$|\$\{|\}|A|NO|:?[-+?]|é){0,60}"#) {
            let _ = words(&text, '\\');
            let _ = expand(&text, '\\', &lookup);
            let _ = expand_document(&text, &lookup);
        }

        #[test]
        fn what_has_no_signs_stays(text in "[a-z0-9 /.:=é-]{0,60}") {
            prop_assert_eq!(expand(&text, '\\', &lookup).unwrap(), text.clone());
            prop_assert_eq!(words(&text, '\\').join(" "), text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }

    #[test]
    fn words_respect_quotes() {
        assert_eq!(words(r#"a 'b c' "d e"f g\ h"#, '\\'), ["a", "'b c'", "\"d e\"f", "g\\ h"]);
        assert_eq!(words("a\\ b` c", '`'), ["a\\", "b` c"]);
    }
}
