//! Docker's patterns, in the lines of a `.dockerignore` and the sources of COPY. `*` and `?` match within one part of a
//! path, `**` matches any number of parts, `[…]` is a character class, and `\` escapes the next character. A pattern
//! that matches a directory matches everything below it.

use regex::Regex;

use crate::error::{Error, Result};

/// The rules of a `.dockerignore`. The patterns are relative to the root of the context. The last match decides; `!`
/// marks an exception, which includes a path again.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<(bool, Regex)>,
}

impl Ignore {
    pub(crate) fn parse(text: &str) -> Result<Ignore> {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (exclude, glob) = match line.strip_prefix('!') {
                Some(glob) => (false, glob.trim()),
                None => (true, line),
            };
            if glob.is_empty() && !exclude {
                return Err(Error::invalid(
                    "read the patterns of the build context",
                    format!("the line {line:?} has no pattern"),
                )
                .with_hint("write a pattern after the exclamation mark"));
            }
            match inside(glob) {
                Some(glob) if !glob.is_empty() => rules.push((exclude, pattern(&glob)?)),
                // The pattern matches the context itself or something outside of it. Only its syntax is checked.
                _ => drop(pattern(glob)?),
            }
        }
        Ok(Ignore { rules })
    }

    /// Returns whether a path is excluded.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.rules.iter().rev().find(|(_, glob)| glob.is_match(path)).is_some_and(|(exclude, _)| *exclude)
    }

    /// Returns whether there are exceptions. If so, excluded directories have to be searched too.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(exclude, _)| !exclude)
    }
}

/// Removes empty parts, `.` and `..` from a pattern. Returns `None` if it leads out of the context, such as `../a`. A
/// leading slash means the root of the context, above which `..` has no effect.
fn inside(glob: &str) -> Option<String> {
    let mut depth = 0_usize;
    for part in glob.split('/').filter(|_| !glob.starts_with('/')) {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1)?,
            _ => depth += 1,
        }
    }
    Some(clean(glob))
}

/// Removes empty parts, `.` and `..` from a path. The result is relative to the root of the context, above which `..`
/// has no effect.
pub(crate) fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Converts a pattern to a regular expression for paths without a leading slash.
pub(crate) fn pattern(glob: &str) -> Result<Regex> {
    let bad = |why: &str| {
        Error::invalid("read the patterns of the build context", format!("{glob:?} is not a valid pattern: {why}"))
    };
    let mut text = String::from("^(?s:");
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // Any number of directories, or none. At the end of the pattern, everything below.
                let slash = rest.next_if_eq(&'/').is_some();
                text.push_str(if slash || rest.peek().is_some() { "(?:.*/)?" } else { ".*" });
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                text.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
                let mut empty = true;
                loop {
                    let c = rest.next().ok_or_else(|| bad("a class is not closed"))?;
                    if c == ']' && !empty {
                        break;
                    }
                    let c = if c == '\\' { rest.next().ok_or_else(|| bad("it ends in `\\`"))? } else { c };
                    empty = false;
                    text.push_str(&regex::escape(&c.to_string()));
                    if rest.next_if_eq(&'-').is_some() {
                        let end = rest.next().filter(|c| *c != ']').ok_or_else(|| bad("a range has no end"))?;
                        let end = if end == '\\' { rest.next().ok_or_else(|| bad("it ends in `\\`"))? } else { end };
                        text.push('-');
                        text.push_str(&regex::escape(&end.to_string()));
                    }
                }
                text.push(']');
            }
            '\\' => {
                let c = rest.next().ok_or_else(|| bad("it ends in `\\`"))?;
                text.push_str(&regex::escape(&c.to_string()));
            }
            c => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    text.push_str(")(?:/.*)?$");
    Regex::new(&text).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_those_of_docker() {
        let ignore =
            Ignore::parse("# note\n/target\n*.log\n**/*.tmp\nnode_modules/\n!keep.log\n./a/../b\nd{1,2}\n[xy]z\n")
                .unwrap();
        for path in
            ["target", "target/a/b", "a.log", "x/y.tmp", "y.tmp", "node_modules/x", "b/c", "d{1,2}", "xz", "yz/a"]
        {
            assert!(ignore.excludes(path), "{path}");
        }
        for path in ["keep.log", "sub/a.log", "src/target", "sub/node_modules/x", "main.rs", "a", "d1", "zz", "targets"]
        {
            assert!(!ignore.excludes(path), "{path}");
        }
    }

    #[test]
    fn the_last_rule_decides() {
        let ignore = Ignore::parse("*\n!src\nsrc/secret\n!src/secret/public\n").unwrap();
        for (path, out) in
            [("README", true), ("src", false), ("src/a", false), ("src/secret/a", true), ("src/secret/public/a", false)]
        {
            assert_eq!(ignore.excludes(path), out, "{path}");
        }
        assert!(ignore.has_exceptions());
    }

    #[test]
    fn rules_that_lead_out_of_the_context_fit_nothing() {
        let ignore = Ignore::parse("\u{feff}../a\nb/../../a\n.\n/\n\n  \n!../c\n /../d \r\n #e\n").unwrap();
        for path in ["a", "b/a", "c", "e"] {
            assert!(!ignore.excludes(path), "{path}");
        }
        assert!(ignore.excludes("d") && ignore.excludes("#e"));
        for text in ["!", "a\n ! \n", "../[", "!["] {
            assert!(Ignore::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns() {
        for (glob, path, fits) in [
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**", "a/x", true),
            ("**/x", "x", true),
            ("**", "anything/at all", true),
            ("**.tmp", "a/b/.tmp", true),
            ("a**b", "axb", false),
            ("a**b", "ax/b", true),
            ("a/**", "a", false),
            ("[!a]x", "!x", true),
            ("[!a]x", "bx", false),
            ("a?c", "a/c", false),
            ("a*c", "a/c", false),
            ("[^a]x", "bx", true),
            ("[^a]x", "ax", false),
            ("[a-c]x", "bx", true),
            ("[]]x", "]x", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("a.b", "axb", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(pattern(glob).unwrap().is_match(path), fits, "{glob} {path}");
        }
        for glob in ["[", "[a", "a\\", "[a-]", "[z-a]"] {
            assert!(pattern(glob).is_err(), "{glob}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for (path, cleaned) in [("../../etc/passwd", "etc/passwd"), ("/a//b/./c/", "a/b/c"), ("a/../..", ""), (".", "")]
        {
            assert_eq!(clean(path), cleaned);
        }
    }

    proptest::proptest! {
        /// No text causes a panic, and a pattern without special characters matches itself.
        #[test]
        fn any_text(text in "[a-c*?/!#\\[\\]\\\\. \n-]{0,24}", plain in "[a-z]{1,6}(/[a-z]{1,6}){0,3}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.excludes(&plain);
            }
            let (below, beside) = (format!("{plain}/x"), format!("{plain}x"));
            let ignore = Ignore::parse(&plain).unwrap();
            proptest::prop_assert!(ignore.excludes(&plain) && ignore.excludes(&below) && !ignore.excludes(&beside));
        }
    }
}
