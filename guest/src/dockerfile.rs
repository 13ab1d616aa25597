//! As much of the Dockerfile format as a provider without a `target` field needs: where its instructions begin, and so where
//! its stages do. Continuation lines, comments, parser directives and here-documents are understood, so that a `FROM`
//! inside one of those is not taken for a stage.

use crate::error::{Error, Result, shown};

/// One instruction.
#[derive(Debug, PartialEq)]
pub struct Instruction<'a> {
    /// Its first word in capitals, such as `COPY`.
    pub word: String,
    /// What follows on its lines, continuations joined; without the bodies of here-documents.
    pub rest: String,
    /// The text of the file before its first line.
    pub before: &'a str,
}

/// The instructions of a Dockerfile, in order.
#[must_use]
pub fn instructions(text: &str) -> Vec<Instruction<'_>> {
    let mut all = Vec::new();
    let mut lines = Lines { text, at: 0 };
    let escape = lines.directives();
    loop {
        let before = &text[..lines.at];
        let Some(line) = lines.next_line() else { return all };
        let mut logical = String::new();
        let mut next = Some(line);
        while let Some(line) = next {
            let line = line.trim_end();
            // Comments and empty lines inside an instruction do not end it.
            let passed_over = line.trim_start().starts_with('#') || !logical.is_empty() && line.trim().is_empty();
            let (piece, continues) = match line.strip_suffix(escape) {
                Some(piece) if !passed_over => (piece, true),
                _ => (line, passed_over && !logical.is_empty()),
            };
            if !passed_over {
                logical.push_str(piece);
            }
            next = continues.then(|| lines.next_line()).flatten();
        }
        let (word, rest) = logical.trim().split_once(char::is_whitespace).unwrap_or((logical.trim(), ""));
        if word.is_empty() {
            continue;
        }
        let word = word.to_ascii_uppercase();
        if matches!(word.as_str(), "RUN" | "COPY" | "ADD") {
            for end in heredocs(rest) {
                lines.skip_past(end);
            }
        }
        all.push(Instruction { word, rest: rest.trim().to_string(), before });
    }
}

impl Instruction<'_> {
    /// It copies files from the build context: not from a stage, not from a here-document, not from the network.
    #[must_use]
    pub fn reads_context(&self) -> bool {
        if !matches!(self.word.as_str(), "COPY" | "ADD") {
            return false;
        }
        let (flags, words): (Vec<_>, Vec<_>) = self.rest.split_whitespace().partition(|word| word.starts_with("--"));
        let remote = |word: &str| {
            self.word == "ADD" && (word.contains("://") || word.starts_with("git@")) || heredoc(word).is_some()
        };
        let sources = words.split_last().map_or(&[][..], |(_, sources)| sources);
        !flags.iter().any(|flag| flag.starts_with("--from=")) && !sources.iter().all(|word| remote(word))
    }
}

/// The text up to the end of a stage, by its name or its number: what a build of that stage needs, and nothing after it.
///
/// # Errors
///
/// `invalid-argument` naming the stages that there are.
pub fn up_to_stage<'a>(text: &'a str, target: &str) -> Result<&'a str> {
    let instructions = instructions(text);
    let stages: Vec<_> = instructions.iter().filter(|instruction| instruction.word == "FROM").collect();
    let name = |stage: &Instruction<'_>| {
        let words: Vec<_> = stage.rest.split_whitespace().collect();
        match words[..] {
            [.., keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
            _ => None,
        }
    };
    let by_name = stages.iter().position(|stage| name(stage).is_some_and(|name| name == target.to_ascii_lowercase()));
    match by_name.or_else(|| target.parse().ok()).filter(|index| *index < stages.len()) {
        Some(index) => Ok(stages.get(index + 1).map_or(text, |next| next.before)),
        None => {
            let names: Vec<_> = stages.iter().filter_map(|stage| name(stage)).collect();
            Err(Error::invalid(format!(
                "The Dockerfile has no stage `{}`; its named stages are: {}.",
                shown(target),
                if names.is_empty() { "none".to_string() } else { names.join(", ") }
            ))
            .about("target"))
        }
    }
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_inclusive('\n').next()?;
        self.at += line.len();
        Some(line)
    }

    /// Reads the parser directives at the top; the escape character.
    fn directives(&mut self) -> char {
        let mut escape = '\\';
        loop {
            let here = self.at;
            let directive = self.next_line().and_then(|line| line.trim().strip_prefix('#')?.split_once('='));
            match directive {
                Some((name, value)) if name.trim().eq_ignore_ascii_case("escape") => {
                    escape = if value.trim() == "`" { '`' } else { '\\' };
                }
                Some((name, _)) if name.trim().bytes().all(|byte| byte.is_ascii_alphanumeric()) => {}
                _ => {
                    self.at = here;
                    return escape;
                }
            }
        }
    }

    /// Leaves out the body of a here-document.
    fn skip_past(&mut self, (end, tabs): (&str, bool)) {
        while let Some(line) = self.next_line() {
            let line = line.trim_end_matches(['\n', '\r']);
            if (if tabs { line.trim_start_matches('\t') } else { line }) == end {
                return;
            }
        }
    }
}

/// The words that end the here-documents of an instruction, and whether tabs before them do not count.
fn heredocs(rest: &str) -> impl Iterator<Item = (&str, bool)> {
    rest.split_whitespace().filter_map(heredoc)
}

fn heredoc(word: &str) -> Option<(&str, bool)> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (word, tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
    let end = word.trim_matches(['"', '\'']);
    (!end.is_empty() && !end.contains('<')).then_some((end, tabs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        instructions(text).into_iter().map(|instruction| format!("{} {}", instruction.word, instruction.rest)).collect()
    }

    #[test]
    fn instructions_are_told_from_what_looks_like_them() {
        let text = "# syntax=docker/dockerfile:1\n# a comment\nARG v=1\nfrom a AS one\nRUN echo \\\n# FROM comment\n\n  FROM \\\n  x\nRUN <<-'END' cat\nFROM heredoc\n\tEND\nFROM b\n";
        assert_eq!(words(text), ["ARG v=1", "FROM a AS one", "RUN echo   FROM   x", "RUN <<-'END' cat", "FROM b"]);
        assert_eq!(words("# escape=`\nRUN a `\n  b\\\nFROM x"), ["RUN a   b\\", "FROM x"]);
        // A directive after a comment is one no more.
        assert_eq!(words("# hello\n# escape=`\nRUN a \\\nb"), ["RUN a b"]);
        assert_eq!(words("FROM a\r\nRUN x \\\r\n y\r\n"), ["FROM a", "RUN x  y"]);
    }

    #[test]
    fn stages_by_name_and_number() {
        let text = "FROM a AS One\nRUN 1\nFROM b as two\nRUN 2\nFROM two\nRUN 3";
        assert_eq!(up_to_stage(text, "one").unwrap(), "FROM a AS One\nRUN 1\n");
        assert_eq!(up_to_stage(text, "1").unwrap(), "FROM a AS One\nRUN 1\nFROM b as two\nRUN 2\n");
        assert_eq!(up_to_stage(text, "2").unwrap(), text);
        let error = up_to_stage(text, "three").unwrap_err();
        assert!(error.message.contains("one, two"), "{}", error.message);
        assert!(up_to_stage("", "0").is_err());
    }

    #[test]
    fn what_reads_the_context() {
        for (line, reads) in [
            ("COPY a b", true),
            ("copy --chown=1:1 a /b", true),
            ("COPY --from=one /a /b", false),
            ("COPY <<EOF /b\nx\nEOF", false),
            ("ADD https://example.org/x /x", false),
            ("ADD x https://example.org/x /x", true),
            ("COPY [\"a b\", \"/c\"]", true),
            ("RUN COPY a b", false),
        ] {
            assert_eq!(instructions(line)[0].reads_context(), reads, "{line}");
        }
    }

    /// Whatever the text, nothing panics, and the pieces are parts of the text in order.
    #[test]
    fn any_text() {
        let parts = [
            "FROM a AS b\n",
            "RUN <<E",
            "\n",
            "\\\n",
            "# escape=`\n",
            "`\n",
            "E\n",
            "é\u{0}",
            "COPY ",
            "--from=",
            "\t",
            "<<-",
            "\"",
            "\r\n",
        ];
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(parts[(state >> 16) as usize % parts.len()]);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let all = instructions(&text);
            assert!(all.windows(2).all(|pair| pair[0].before.len() < pair[1].before.len()), "{text:?}");
            for target in ["b", "0", "1"] {
                if let Ok(piece) = up_to_stage(&text, target) {
                    assert!(text.starts_with(piece));
                }
            }
        }
    }
}
