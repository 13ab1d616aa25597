//! Splits a Dockerfile into instructions. Handles parser directives, a byte order mark, comments, continued lines and
//! here-documents, so that a `FROM` inside one of them does not start a stage.

use std::ops::Range;

use crate::words::{opens_document, words};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The character that continues lines and escapes other characters.
    pub escape: char,
    /// The instructions, in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The first word in capitals, such as `COPY`.
    pub word: String,
    /// The text after the first word, with continued lines joined and without the bodies of here-documents.
    pub rest: String,
    /// The lines of the instruction, as a range of bytes of the text.
    pub lines: Range<usize>,
    /// The end of its here-documents, as an offset in bytes.
    pub end: usize,
    /// The escape character of the file.
    pub escape: char,
}

/// Finds the instructions of a text. Every text is accepted, because the builder reports errors.
#[must_use]
pub fn parse(text: &str) -> File {
    let mut lines = Lines { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } };
    let escape = lines.directives();
    let mut instructions = Vec::new();
    loop {
        let begin = lines.at;
        let Some(first) = lines.next_line() else { return File { escape, instructions } };
        if is_passed_over(first) {
            continue;
        }
        let joined = lines.joined(first, escape);
        let own = begin..lines.at;
        let (word, rest) = split(&joined);
        let word = word.to_ascii_uppercase();
        for (end, tabs) in documents(&word, rest, escape) {
            lines.skip_past(&end, tabs);
        }
        instructions.push(Instruction { word, rest: rest.to_owned(), lines: own, end: lines.at, escape });
    }
}

/// Returns the parser directive `syntax`, which names the image of the program that reads the Dockerfile: its value, and its
/// line as a range of bytes.
#[must_use]
pub fn syntax(text: &str) -> Option<(&str, Range<usize>)> {
    let mut lines = Lines { text, at: 0 };
    loop {
        let begin = lines.at;
        let (name, value) = lines.directive()?;
        if name.eq_ignore_ascii_case("syntax") {
            return Some((value, begin..lines.at));
        }
    }
}

/// Returns the text up to the end of a stage, given by its name or number: the part that a build of this stage needs.
///
/// # Errors
///
/// Returns the names of the existing stages if there is no such stage.
pub fn up_to_stage<'a>(text: &'a str, target: &str) -> Result<&'a str, Vec<String>> {
    let file = parse(text);
    let stages: Vec<_> =
        file.instructions.iter().filter_map(|instruction| Some((instruction.stage()?, instruction))).collect();
    let named = |name: &str| stages.iter().position(|(stage, _)| stage.name.as_deref() == Some(name));
    match named(&target.to_ascii_lowercase()).or_else(|| target.parse().ok()).filter(|index| *index < stages.len()) {
        Some(index) => Ok(stages.get(index + 1).map_or(text, |(_, next)| &text[..next.lines.start])),
        None => Err(stages.into_iter().filter_map(|(stage, _)| stage.name).collect()),
    }
}

/// Returns whether this text sets an ENTRYPOINT for the image of a stage, or of the last stage.
#[must_use]
pub fn has_entry_point(text: &str, target: Option<&str>) -> bool {
    let text = target.map_or(text, |target| up_to_stage(text, target).unwrap_or(text));
    let mut stages: Vec<(Option<String>, bool)> = Vec::new();
    for instruction in parse(text).instructions {
        if let Some(stage) = instruction.stage() {
            let image = stage.image.to_ascii_lowercase();
            let below = stages.iter().rev().find(|(name, _)| name.as_deref() == Some(&image));
            stages.push((stage.name, below.is_some_and(|(_, has)| *has)));
        } else if let ("ENTRYPOINT", Some((_, has))) = (instruction.word.as_str(), stages.last_mut()) {
            *has = crate::json_list(&instruction.rest).is_none_or(|words| !words.is_empty());
        }
    }
    stages.last().is_some_and(|(_, has)| *has)
}

/// Splits a text into its first word and the rest.
pub(crate) fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// Returns the here-documents that an instruction opens, in order.
fn documents(word: &str, rest: &str, escape: char) -> Vec<(String, bool)> {
    match word {
        "RUN" | "COPY" | "ADD" => {}
        "ONBUILD" => {
            let (word, rest) = split(rest);
            let word = word.to_ascii_uppercase();
            return if word == "ONBUILD" { Vec::new() } else { documents(&word, rest, escape) };
        }
        _ => return Vec::new(),
    }
    match words(rest, escape) {
        (words, true) => words.iter().filter_map(|word| opens_document(word)).collect(),
        // Docker ignores here-documents on a line with an unclosed quote.
        (_, false) => Vec::new(),
    }
}

/// Returns whether a line is empty or a comment. Such lines do not end a continued instruction.
fn is_passed_over(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// Returns the next line without its line end.
    fn next_line(&mut self) -> Option<&'a str> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_inclusive('\n').next()?;
        self.at += line.len();
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// Reads the parser directives at the start and returns the escape character.
    fn directives(&mut self) -> char {
        let mut escape = '\\';
        while let Some((name, value)) = self.directive() {
            if name.eq_ignore_ascii_case("escape") {
                escape = if value == "`" { '`' } else { '\\' };
            }
        }
        escape
    }

    /// Reads a parser directive, such as `# escape=x`. Returns its name and its value, or `None` before any other line.
    fn directive(&mut self) -> Option<(&'a str, &'a str)> {
        let here = self.at;
        let pair = self.next_line().and_then(|line| line.trim().strip_prefix('#')?.split_once('='));
        let found = pair.map(|(name, value)| (name.trim(), value.trim())).filter(|(name, value)| {
            !value.is_empty()
                && name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if found.is_none() {
            self.at = here;
        }
        found
    }

    /// Joins the continued lines of an instruction.
    fn joined(&mut self, first: &str, escape: char) -> String {
        let mut joined = String::new();
        let mut line = first.trim_start();
        loop {
            let Some(piece) = continued(line, escape) else {
                joined.push_str(line);
                return joined;
            };
            joined.push_str(piece);
            line = loop {
                match self.next_line() {
                    None => return joined,
                    Some(next) if is_passed_over(next) => {}
                    Some(next) => break next,
                }
            };
        }
    }

    /// Skips the body of a here-document.
    fn skip_past(&mut self, end: &str, tabs: bool) {
        while let Some(line) = self.next_line() {
            if (if tabs { line.trim_start_matches('\t') } else { line }) == end {
                return;
            }
        }
    }
}

/// Returns a line without the escape character at its end if that continues the line. Two escape characters do not.
fn continued(line: &str, escape: char) -> Option<&str> {
    let piece = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!piece.ends_with(escape)).then_some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let all = parse(text).instructions;
        all.into_iter().map(|instruction| format!("{} {}", instruction.word, instruction.rest)).collect()
    }

    #[test]
    fn text_that_looks_like_an_instruction_is_not_one() {
        let text = "# syntax=docker/dockerfile:1\n# a comment\nARG v=1\nfrom a AS one\nRUN echo \\\n# FROM comment\n\n  \
                    FROM \\\n  x\nRUN <<-'END' cat\nFROM heredoc\n\tEND\nFROM b\n";
        assert_eq!(lines(text), ["ARG v=1", "FROM a AS one", "RUN echo   FROM   x", "RUN <<-'END' cat", "FROM b"]);
        assert_eq!(lines("# escape=`\nRUN a `\n  b\\\nFROM x"), ["RUN a   b\\", "FROM x"]);
        // A directive after a comment is a comment.
        assert_eq!(lines("# hello\n# escape=`\nRUN a \\\nb"), ["RUN a b"]);
        assert_eq!(lines("# escape=\n# escape=`\nRUN a \\\nb"), ["RUN a b"]);
        assert_eq!(lines("FROM a\r\nRUN x \\\r\n y\r\n"), ["FROM a", "RUN x  y"]);
        assert_eq!(lines("\u{feff}# escape=`\nFROM a\n"), ["FROM a"]);
        assert_eq!(lines("RUN a \\  \nb\nRUN c \\\\\nRUN d"), ["RUN a b", "RUN c \\\\", "RUN d"]);
        assert_eq!(
            lines("ONBUILD COPY <<E /x\nFROM no\nE\nRUN \"<<E\"\nFROM b"),
            ["ONBUILD COPY <<E /x", "RUN \"<<E\"", "FROM b"]
        );
        assert_eq!(lines("COPY <<a <<b /x/\n1\na\n2\nb\nUSER x"), ["COPY <<a <<b /x/", "USER x"]);
    }

    #[test]
    fn the_directive_syntax_is_found() {
        let text = "# escape=`\n#Syntax = a/b:1 \r\nFROM a\n";
        assert_eq!(syntax(text), Some(("a/b:1", 11..29)));
        assert_eq!(&text[11..29], "#Syntax = a/b:1 \r\n");
        assert_eq!(syntax("# comment\n# syntax=a\nFROM a\n"), None);
        assert_eq!(syntax(""), None);
    }

    #[test]
    fn stages_are_found_by_name_and_number() {
        let text = "FROM a AS One\nRUN 1\nFROM --platform=linux/amd64 b as two\nRUN 2\nFROM two\nRUN 3";
        assert_eq!(up_to_stage(text, "one").unwrap(), "FROM a AS One\nRUN 1\n");
        assert_eq!(up_to_stage(text, "TWO").unwrap(), &text[..text.find("FROM two").unwrap()]);
        assert_eq!(up_to_stage(text, "2").unwrap(), text);
        assert_eq!(up_to_stage(text, "three").unwrap_err(), ["one", "two"]);
        assert!(up_to_stage("", "0").is_err());
    }

    #[test]
    fn entry_points_are_found_through_stages() {
        let text = "FROM a AS b\nENTRYPOINT [\"x\"]\nFROM c AS d\nFROM b\nCMD y\nFROM B AS e\nENTRYPOINT []\nFROM b";
        for (target, has) in
            [(None, true), (Some("b"), true), (Some("d"), false), (Some("2"), true), (Some("e"), false)]
        {
            assert_eq!(has_entry_point(text, target), has, "{target:?}");
        }
    }

    /// No text makes the parser panic, and the instructions are consecutive parts of the text.
    #[test]
    fn any_text_is_parsed_without_a_panic() {
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
            "--mount=type=bind,",
            "ADD [\"",
            "ONBUILD ",
            "$",
            "${",
            "ENV ",
        ];
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(parts[(state >> 16) as usize % parts.len()]);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let all = parse(&text).instructions;
            assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].lines.start), "{text:?}");
            for instruction in &all {
                assert!(text.is_char_boundary(instruction.lines.start) && text.is_char_boundary(instruction.end));
                let _ =
                    (instruction.transfer(), instruction.mounts(), instruction.pairs(), instruction.reads_context());
            }
            for target in ["b", "0", "1"] {
                if let Ok(piece) = up_to_stage(&text, target) {
                    assert!(text.starts_with(piece));
                }
            }
        }
    }
}
