//! Patterns of paths and texts: the wildcards of COPY, of its `--exclude` and `--parents`, and of `${x#pattern}`.
//!
//! Matching tracks all states of a pattern at the same time, so its time is at most proportional to the length of the text
//! times the length of the pattern.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`; the flag says whether it matches a slash.
    One(bool),
    /// `*`, or `**` that is not a whole component; the flag says whether it matches slashes.
    Many(bool),
    /// `**/`: any number of directories, including none.
    Directories,
    /// `[a-z]` or `[^a-z]`; never matches a slash.
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Parses a pattern of paths. `*` does not match a slash; with `deep`, `**` matches any number of directories.
    ///
    /// # Errors
    ///
    /// Returns a text if the pattern ends in a backslash, or if a `[` is not closed.
    pub fn path(text: &str, deep: bool) -> Result<Glob, String> {
        let bad = |why: &str| format!("not a pattern: {text}: {why}");
        let mut tokens = Vec::new();
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '\\' => Token::Char(letters.next().ok_or_else(|| bad("a backslash at its end"))?),
                '?' => Token::One(false),
                '*' => {
                    let begins = matches!(tokens.last(), None | Some(Token::Char('/') | Token::Directories));
                    let mut two = false;
                    while letters.next_if_eq(&'*').is_some() {
                        two = true;
                    }
                    match letters.peek() {
                        _ if !(two && deep) => Token::Many(false),
                        Some('/') if begins => {
                            letters.next();
                            Token::Directories
                        }
                        _ => Token::Many(true),
                    }
                }
                '[' => {
                    let mut ranges = Vec::new();
                    let not = letters.next_if(|letter| matches!(letter, '^' | '!')).is_some();
                    // Reads a character, and whether it was escaped.
                    let mut one = || match letters.next() {
                        Some('\\') => letters.next().map(|letter| (letter, true)),
                        letter => letter.map(|letter| (letter, false)),
                    };
                    let mut next = one();
                    loop {
                        let (first, itself) = next.ok_or_else(|| bad("`[` is not closed"))?;
                        if first == ']' && !itself && !ranges.is_empty() {
                            break;
                        }
                        next = one();
                        let mut last = first;
                        if next == Some(('-', false)) {
                            last = one().ok_or_else(|| bad("`[` is not closed"))?.0;
                            next = one();
                        }
                        ranges.push((first, last));
                    }
                    Token::Class { not, ranges }
                }
                letter => Token::Char(letter),
            });
        }
        Ok(Glob { tokens })
    }

    /// Parses a pattern of texts for `${x#pattern}`: `*` and `?` match all characters, and there are no classes.
    pub fn text(text: &str) -> Glob {
        let mut tokens = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '\\' => Token::Char(letters.next().unwrap_or('\\')),
                '?' => Token::One(true),
                '*' => Token::Many(true),
                letter => Token::Char(letter),
            });
        }
        Glob { tokens }
    }

    /// Returns the pattern for texts that are read from the end.
    pub fn reversed(mut self) -> Glob {
        self.tokens.reverse();
        self
    }

    /// Returns the literal beginning of the pattern, with which every matching text begins.
    pub fn prefix(&self) -> String {
        let letter = |token: &Token| if let Token::Char(letter) = token { Some(*letter) } else { None };
        self.tokens.iter().map_while(letter).collect()
    }

    /// Returns whether the pattern matches the whole text.
    pub fn is_match(&self, text: &str) -> bool {
        self.lengths(text.chars()).last().copied() == Some(text.chars().count())
    }

    /// Returns the lengths, in characters, of all beginnings of the text that match, in ascending order.
    pub fn lengths(&self, text: impl Iterator<Item = char>) -> Vec<usize> {
        // There are two states per token: before the token, and within a sequence of directories.
        let end = self.tokens.len();
        let mut now = vec![false; 2 * end + 1];
        let mut found = Vec::new();
        self.enter(&mut now, 0);
        if now[2 * end] {
            found.push(0);
        }
        for (read, letter) in text.enumerate() {
            let mut next = vec![false; 2 * end + 1];
            for (at, token) in self.tokens.iter().enumerate() {
                let (before, within) = (now[2 * at], now[2 * at + 1]);
                match token {
                    Token::Char(wanted) if before && *wanted == letter => self.enter(&mut next, at + 1),
                    Token::One(slash) if before && (*slash || letter != '/') => self.enter(&mut next, at + 1),
                    Token::Many(slash) if before && (*slash || letter != '/') => self.enter(&mut next, at),
                    Token::Class { not, ranges } if before && letter != '/' => {
                        let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter));
                        if within != *not {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    Token::Directories if before || within => {
                        next[2 * at + 1] = true;
                        if letter == '/' {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    _ => {}
                }
            }
            if !next.contains(&true) {
                break;
            }
            now = next;
            if now[2 * end] {
                found.push(read + 1);
            }
        }
        found
    }

    fn enter(&self, states: &mut [bool], mut at: usize) {
        states[2 * at] = true;
        while let Some(Token::Many(_) | Token::Directories) = self.tokens.get(at) {
            at += 1;
            states[2 * at] = true;
        }
    }
}

/// Rules like those of `.dockerignore`: later rules override earlier ones, and rules with a `!` include paths again.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<(bool, Glob)>,
}

impl Rules {
    /// Parses the patterns.
    ///
    /// # Errors
    ///
    /// Returns a text if a pattern is not valid.
    pub fn new(patterns: &[String]) -> Result<Rules, String> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let (takes_back, text) = pattern.strip_prefix('!').map_or((false, pattern.as_str()), |rest| (true, rest));
            rules.push((takes_back, Glob::path(&clean(text), true)?));
        }
        Ok(Rules { rules })
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns whether a rule includes paths again that others exclude.
    pub fn take_back(&self) -> bool {
        self.rules.iter().any(|(takes_back, _)| *takes_back)
    }

    /// Returns whether a path is excluded: a rule matches the path or a directory above it.
    pub fn exclude(&self, path: &str) -> bool {
        let mut excluded = false;
        for (takes_back, glob) in &self.rules {
            if excluded == *takes_back && above(path).any(|path| glob.is_match(path)) {
                excluded = !takes_back;
            }
        }
        excluded
    }
}

/// Returns the directories above a path, from the top, and then the path itself.
pub fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

/// Normalizes a path to one relative to the root, without `.`, `..` and empty components.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let fits = |pattern: &str, name: &str| Glob::path(pattern, false).unwrap().is_match(name);
        for (part, name) in [
            ("*.py", "a.py"),
            ("a?", "ab"),
            ("[a-c]*", "bx"),
            ("[^a]", "b"),
            ("{a}*", "{a}b"),
            ("\\*", "*"),
            ("**", "ab"),
            ("*", ".hidden"),
            ("[]a]", "]"),
            ("[a\\]]", "]"),
            ("é?", "éé"),
        ] {
            assert!(fits(part, name), "{part} {name}");
        }
        for (part, name) in
            [("*.py", "a.pyc"), ("a?", "a"), ("[a-c]", "d"), ("{a,b}*", "a"), ("\\*", "a"), ("*", "a/b"), ("[^a]", "/")]
        {
            assert!(!fits(part, name), "{part} {name}");
        }
        for pattern in ["[a", "[", "[a-", "a\\"] {
            assert!(Glob::path(pattern, false).unwrap_err().contains("not a pattern"), "{pattern}");
        }
        assert!(!fits(&"*a".repeat(100), &format!("{}b", "a".repeat(2000))));
    }

    #[test]
    fn paths() {
        let fits = |pattern: &str, name: &str| Glob::path(pattern, true).unwrap().is_match(name);
        for (pattern, name) in [
            ("**/*.c", "a.c"),
            ("**/*.c", "x/y/a.c"),
            ("a/**/b", "a/b"),
            ("a/**/b", "a/x/y/b"),
            ("a/**", "a/x/y"),
            ("**", "x/y"),
            ("**.c", "x/y.c"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.c", "x/a.c"), ("a/**/b", "ab"), ("**/b", "ab"), ("a/**", "b/a/x")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        let rules = Rules::new(&["**/*.log".into(), "/tmp/".into(), "!tmp/keep".into()]).unwrap();
        for (path, excluded) in [
            ("a.log", true),
            ("x/a.log", true),
            ("tmp", true),
            ("tmp/x/y", true),
            ("tmp/keep", false),
            ("tmp/keep/x", false),
            ("a.txt", false),
            ("xtmp", false),
        ] {
            assert_eq!(rules.exclude(path), excluded, "{path}");
        }
    }
}
