//! Sends the links, empty directories and directory modes of a build context.
//!
//! A provider accepts a context as a flat list of files with modes, which cannot contain these. They are sent as an
//! archive, and an additional first stage of the build combines the files and the archive to the original tree. All
//! instructions that use the context are changed to use that stage:
//!
//! ```dockerfile
//! FROM scratch AS build-context
//! COPY context/ /context/
//! ADD entries.tar /context/
//! ```
//!
//! The tree is in a directory of the stage, because a builder may have its own directories at the root. With this
//! method the builder itself decides what a pattern matches, which links are followed, and who owns a file.

use std::ops::Deref as _;

use dockerfile_text::{File, Instruction, Transfer, flags, is_remote};

use super::sources::{Sources, stage_number};
use crate::local::context::{ARCHIVE, BuildContext, FILES};
use crate::local::ignore::clean;

/// Flags of ADD that COPY has too.
const SHARED_FLAGS: [&str; 4] = ["--chown", "--chmod", "--link", "--exclude"];

/// A Dockerfile whose context has more than files.
pub(super) struct Archived<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a File,
    pub(super) sources: &'a Sources,
    pub(super) target: Option<&'a str>,
}

impl Archived<'_> {
    /// Returns the text with the additional stage, and the target with its new number.
    pub(super) fn rewritten(&self, context: &BuildContext) -> (String, Option<String>) {
        let stage = self.stage_name();
        let rewriting = Rewriting { stage: &stage, sources: self.sources, context };
        let (mut out, mut at, mut begun) = (String::new(), 0, false);
        for instruction in &self.file.instructions {
            if instruction.word == "FROM" && !begun {
                begun = true;
                out.push_str(&self.text[at..instruction.lines.start]);
                at = instruction.lines.start;
                out.push_str(&format!("FROM scratch AS {stage}\n"));
                if context.has_files() {
                    out.push_str(&format!("COPY {FILES}/ /{FILES}/\n"));
                }
                out.push_str(&format!("ADD {ARCHIVE} /{FILES}/\n"));
                // The build resolves such a link at the root of the stage instead of the root of the context, so the
                // entry is copied there.
                for (staged, real) in context.leaving() {
                    let words = [format!("{FILES}/{real}"), format!("/{staged}")];
                    let words = words.map(|word| escaped(&word, self.file.escape, true));
                    out.push_str(&format!("COPY {}\n", serde_json::json!(words)));
                }
            }
            if let Some(lines) = rewriting.instruction(instruction) {
                out.push_str(&self.text[at..instruction.lines.start]);
                for line in lines {
                    out.push_str(&line);
                    out.push('\n');
                }
                at = instruction.lines.end;
            }
        }
        out.push_str(&self.text[at..]);
        let target = self.target.map(|target| match stage_number(self.file, target) {
            Some(number) if target.parse() == Ok(number) => (number + 1).to_string(),
            _ => target.to_owned(),
        });
        (out, target)
    }

    /// Returns a name that the Dockerfile does not contain.
    fn stage_name(&self) -> String {
        let lower = self.text.to_ascii_lowercase();
        let names = (1..).map(|number| format!("build-context-{number}"));
        let mut all = std::iter::once("build-context".to_owned()).chain(names);
        all.find(|name| !lower.contains(name.deref())).unwrap_or_default()
    }
}

struct Rewriting<'a> {
    stage: &'a str,
    sources: &'a Sources,
    context: &'a BuildContext,
}

impl Rewriting<'_> {
    /// Returns the lines that replace an instruction, or `None` if it is unchanged.
    fn instruction(&self, instruction: &Instruction) -> Option<Vec<String>> {
        match instruction.word.as_str() {
            "ONBUILD" => {
                let lines = self.instruction(&instruction.held_back()?)?;
                Some(lines.into_iter().map(|line| format!("ONBUILD {line}")).collect())
            }
            "COPY" | "ADD" => self.transfer(instruction),
            "RUN" => self.run(instruction),
            _ => None,
        }
    }

    fn transfer(&self, instruction: &Instruction) -> Option<Vec<String>> {
        let transfer = instruction.transfer()?;
        if let Some(from) = transfer.from() {
            let number = later(from)?;
            let flags = transfer.flags.iter().map(|flag| match flag.strip_prefix("--from=") {
                Some(_) => format!("--from={number}"),
                None => flag.clone(),
            });
            let words = transfer.documents.iter().chain(&transfer.sources).cloned().collect();
            return Some(vec![line(&instruction.word, flags.collect(), words, &transfer)]);
        }
        if transfer.sources.is_empty() {
            return None;
        }
        let none = Vec::new();
        let values = self.sources.by_instruction.get(&instruction.lines.start).unwrap_or(&none);
        // Sources in the stage are copied; those that ADD has to download or unpack are added.
        let parents = transfer.flags.iter().any(|flag| flag == "--parents" || flag == "--parents=true");
        let (mut copied, mut added) = (Vec::new(), transfer.documents.clone());
        for (number, word) in transfer.sources.iter().enumerate() {
            let value = values.get(number).and_then(Option::as_deref);
            let inside = match value {
                // `--parents` keeps the directories after `/./`.
                Some(value) if parents && value.contains("/./") => format!("{FILES}/{}", value.trim_start_matches('/')),
                Some(value) if parents => format!("{FILES}/./{}", clean(value)),
                Some(value) => format!("{FILES}/{}", clean(value)),
                None => String::new(),
            };
            let inside = match value {
                Some(_) => escaped(&inside, instruction.escape, transfer.json),
                // Only the builder knows the value.
                None => format!("{FILES}/{word}"),
            };
            match value {
                _ if !transfer.adds => copied.push(inside),
                Some(value) if is_remote(value) => added.push(word.clone()),
                Some(value) if !self.context.has_archive(value) => copied.push(inside),
                // The source is or may be an archive, which ADD is meant to unpack.
                _ => added.push(inside),
            }
        }
        let mut lines = Vec::new();
        if !copied.is_empty() {
            let shared =
                |flag: &&String| SHARED_FLAGS.contains(&flag.split_once('=').map_or(flag.as_str(), |(name, _)| name));
            let mut flags: Vec<_> = transfer.flags.iter().filter(shared).cloned().collect();
            if !transfer.adds {
                flags.clone_from(&transfer.flags);
            }
            flags.insert(0, format!("--from={}", self.stage));
            lines.push(line("COPY", flags, copied, &transfer));
        }
        if !added.is_empty() {
            // This line comes last, because the here-documents follow it.
            lines.push(line(&instruction.word, transfer.flags.clone(), added, &transfer));
        }
        Some(lines)
    }

    fn run(&self, instruction: &Instruction) -> Option<Vec<String>> {
        let (written, rest) = flags(&instruction.rest, instruction.escape);
        let mut flags: Vec<_> = written.into_iter().map(str::to_owned).collect();
        let mut changed = false;
        for mount in instruction.mounts() {
            let Some(value) = flags[mount.flag].strip_prefix("--mount=") else { continue };
            let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
            let value = quote.map_or(value, |quote| value.trim_matches(quote));
            let number = mount.from.as_deref().map(later);
            let mut named = false;
            let mut fields: Vec<_> = value
                .split(',')
                .map(|field| {
                    let (key, value) = field.split_once('=').unwrap_or((field, ""));
                    match (key.to_ascii_lowercase().as_str(), &number) {
                        ("source" | "src", None) => {
                            named = true;
                            format!("source=/{FILES}/{}", value.trim_start_matches(['/', '.']))
                        }
                        ("from", Some(Some(number))) => format!("from={number}"),
                        _ => field.to_owned(),
                    }
                })
                .collect();
            match number {
                None => {
                    if !named {
                        fields.push(format!("source=/{FILES}"));
                    }
                    fields.push(format!("from={}", self.stage));
                }
                Some(None) => continue,
                Some(Some(_)) => {}
            }
            let quote = quote.map_or(String::new(), String::from);
            flags[mount.flag] = format!("--mount={quote}{}{quote}", fields.join(","));
            changed = true;
        }
        changed.then(|| vec![format!("RUN {} {rest}", flags.join(" "))])
    }
}

/// Returns the number of a stage after the additional one was inserted.
fn later(from: &str) -> Option<usize> {
    from.parse::<usize>().ok().map(|number| number + 1)
}

fn line(word: &str, flags: Vec<String>, mut words: Vec<String>, transfer: &Transfer) -> String {
    words.push(transfer.target.clone());
    let words = if transfer.json { serde_json::json!(words).to_string() } else { words.join(" ") };
    flags.into_iter().fold(word.to_owned(), |line, flag| line + " " + &flag) + " " + &words
}

/// Escapes a path as one word in which quotes and dollar signs have no special meaning. In a JSON list, white space
/// needs no escape.
fn escaped(path: &str, escape: char, json: bool) -> String {
    let mut word = String::new();
    for letter in path.chars() {
        if letter.is_whitespace() && !json || matches!(letter, '"' | '\'' | '$') || letter == escape {
            word.push(escape);
        }
        word.push(letter);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, target: Option<&str>) -> (String, Option<String>) {
        let file = dockerfile_text::parse(text);
        let sources = Sources::of(&file, &[], target);
        Archived { text, file: &file, sources: &sources, target }.rewritten(&BuildContext::default())
    }

    #[test]
    fn all_that_reads_the_context_reads_the_further_stage() {
        let text = "# syntax=docker/dockerfile:1\nARG v=1\nFROM a AS one\nCOPY --chown=1 \\\n  . /x\nADD [\"a b\", \"/y\"]\n\
                    ADD --checksum=x https://example.org/x b /z/\nCOPY <<EOF c /w/\nbody\nEOF\n\
                    RUN --mount=type=bind,target=/s <<EOF\nCOPY no /x\nEOF\nFROM b\nCOPY --from=0 /x /x\n\
                    COPY --from=one /x /x\nRUN --mount=from=0,target=/x true\nONBUILD copy d /d\nCOPY <<E /x\nE\nUSER me";
        let expected = "# syntax=docker/dockerfile:1\nARG v=1\nFROM scratch AS build-context\nADD entries.tar /context/\n\
                        FROM a AS one\nCOPY --from=build-context --chown=1 context/ /x\n\
                        COPY --from=build-context [\"context/a b\",\"/y\"]\n\
                        COPY --from=build-context context/b /z/\nADD --checksum=x https://example.org/x /z/\n\
                        COPY --from=build-context context/c /w/\nCOPY <<EOF /w/\nbody\nEOF\n\
                        RUN --mount=type=bind,target=/s,source=/context,from=build-context <<EOF\nCOPY no /x\nEOF\n\
                        FROM b\nCOPY --from=1 /x /x\nCOPY --from=one /x /x\nRUN --mount=from=1,target=/x true\n\
                        ONBUILD COPY --from=build-context context/d /d\nCOPY <<E /x\nE\nUSER me";
        assert_eq!(rewritten(text, None).0, expected);
        assert_eq!(rewritten(text, Some("0")).1.as_deref(), Some("1"));
        assert_eq!(rewritten(text, Some("ONE")).1.as_deref(), Some("ONE"));
        assert!(rewritten("FROM a AS build-context\nCOPY a b", None).0.contains("AS build-context-1\n"));
    }

    #[test]
    fn words_keep_their_meaning() {
        for (line, expected) in [
            ("COPY 'a b' \"$v\"/c ../d /x/", "COPY --from=build-context context/a\\ b context/\"$v\"/c context/d /x/"),
            ("COPY --parents a/b c/./d /x/", "COPY --from=build-context --parents context/./a/b context/c/./d /x/"),
            ("COPY a\\$b /x", "COPY --from=build-context context/a\\$b /x"),
            ("ADD $v /x", "ADD context/$v /x"),
            ("RUN --mount=\"src=./a,dst=/x\" true", "RUN --mount=\"source=/context/a,dst=/x,from=build-context\" true"),
        ] {
            let text = format!("FROM x\n{line}\n");
            assert_eq!(rewritten(&text, None).0.lines().last(), Some(expected), "{line}");
        }
    }
}
