//! Docker's patterns: the lines of a `.dockerignore`, and the sources of COPY. `*` and `?` stay within one part of a path, `**`
//! crosses any number of them, `[…]` is a class, `\` takes the next character as it is. A pattern that fits a directory
//! fits all below it.

use regex::Regex;

use crate::error::{Error, Result};

/// The rules of a `.dockerignore`: patterns from the root of the context, of which the last that fits decides; `!` takes
/// back in.
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
                    format!("the line {line:?} takes nothing back in"),
                )
                .with_hint("write a pattern after the exclamation mark"));
            }
            match inside(glob) {
                Some(glob) if !glob.is_empty() => rules.push((exclude, pattern(&glob)?)),
                // The context itself, and what is not in it. The syntax counts all the same.
                _ => drop(pattern(glob)?),
            }
        }
        Ok(Ignore { rules })
    }

    /// Whether a path is left out.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.rules.iter().rev().find(|(_, glob)| glob.is_match(path)).is_some_and(|(exclude, _)| *exclude)
    }

    /// Whether something may be taken back in: then what lies below an excluded directory has to be looked at.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(exclude, _)| !exclude)
    }
}

/// A pattern without empty parts, `.` and `..`; `None` if it leads out of the context, as `../a` does. A leading slash is the
/// root of the context, which nothing leads out of.
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

/// A path without empty parts, `.` and `..`, relative to the root of the context, beyond which nothing leads.
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

/// A pattern as a regular expression, for paths without a leading slash.
pub(crate) fn pattern(glob: &str) -> Result<Regex> {
    let bad =
        |why: &str| Error::invalid("read the patterns of the build context", format!("{glob:?} is no pattern: {why}"));
    let mut text = String::from("^(?s:");
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // Any number of directories, none included; at the end all that is below.
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
        /// Whatever is written into the file: no panic, and what is a pattern without special characters fits itself.
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
