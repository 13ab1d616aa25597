//! The meaning of a single instruction: stages, copied files, mounts and variables.

use crate::expand::{Value, expand};
use crate::lines::{Instruction, split};
use crate::words::{flags, json_list, opens_document, words};

/// A FROM instruction. Variables are not replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image or the stage that it starts from, or `scratch`.
    pub image: String,
    /// The name of the new stage, in lower case.
    pub name: Option<String>,
}

/// A COPY or ADD instruction. Words keep their quotes, escapes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whether it is ADD, which accepts URLs and unpacks archives.
    pub adds: bool,
    /// The flags, with their leading `--`.
    pub flags: Vec<String>,
    /// The paths or URLs to copy.
    pub sources: Vec<String>,
    /// The here-documents among the sources, such as `<<EOF`.
    pub documents: Vec<String>,
    /// The destination.
    pub target: String,
    /// Whether the words were written as a JSON list.
    pub json: bool,
}

/// A `--mount` flag of RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The index of the flag among the flags of the instruction.
    pub flag: usize,
    /// The type in lower case, such as `bind` or `cache`.
    pub kind: String,
    /// The directory or file, with quotes and variables; `/` if the flag names none.
    pub source: String,
    /// The stage or image that the files come from, or `None` for the build context.
    pub from: Option<String>,
}

/// A part of an instruction that the classic builder of Docker Engine does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part with the instruction that it belongs to, such as `RUN --mount`.
    pub text: String,
    /// What it needs.
    pub needs: Needs,
}

/// What a [`Part`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// BuildKit of Docker Engine 20.10 or newer.
    BuildKit,
    /// A newer BuildKit than that of Docker Engine 20.10.
    Newer,
    /// A session: a connection on which BuildKit asks its client, for example for a secret.
    Session,
}

impl Instruction {
    /// Returns the stage that a FROM instruction starts, or `None` for other instructions and for a FROM without an
    /// image.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        if self.word != "FROM" {
            return None;
        }
        let (_, rest) = flags(&self.rest, self.escape);
        let words: Vec<_> = rest.split_whitespace().collect();
        let name = match words[..] {
            [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        Some(Stage { image: (*words.first()?).to_owned(), name })
    }

    /// Returns the instruction that ONBUILD defers to the next stage.
    #[must_use]
    pub fn held_back(&self) -> Option<Instruction> {
        if self.word != "ONBUILD" {
            return None;
        }
        let (word, rest) = split(&self.rest);
        Some(Instruction { word: word.to_ascii_uppercase(), rest: rest.to_owned(), ..self.clone() })
    }

    /// Returns the parts of COPY or ADD, or `None` for other instructions and for one without a destination.
    #[must_use]
    pub fn transfer(&self) -> Option<Transfer> {
        if !matches!(self.word.as_str(), "COPY" | "ADD") {
            return None;
        }
        let (flags, rest) = flags(&self.rest, self.escape);
        let list = json_list(rest);
        let json = list.is_some();
        let mut sources = list.unwrap_or_else(|| words(rest, self.escape).0);
        let target = sources.pop()?;
        let (documents, sources) = sources.into_iter().partition(|word| !json && opens_document(word).is_some());
        let flags = flags.into_iter().map(str::to_owned).collect();
        Some(Transfer { adds: self.word == "ADD", flags, sources, documents, target, json })
    }

    /// Returns the bind mounts of RUN.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        let mut mounts = self.all_mounts();
        mounts.retain(|mount| mount.kind == "bind");
        mounts
    }

    /// Returns the mounts of RUN, of all types.
    #[must_use]
    pub fn all_mounts(&self) -> Vec<Mount> {
        if self.word != "RUN" {
            return Vec::new();
        }
        let (flags, _) = flags(&self.rest, self.escape);
        let mut mounts = Vec::new();
        for (flag, text) in flags.into_iter().enumerate() {
            let Some(value) = text.strip_prefix("--mount=") else { continue };
            let (mut kind, mut source, mut from) = ("bind".to_owned(), "/".to_owned(), None);
            for field in fields(value) {
                let (key, value) = field.split_once('=').unwrap_or((&field, ""));
                match key.trim().to_ascii_lowercase().as_str() {
                    "type" => kind = value.to_ascii_lowercase(),
                    "source" | "src" => source = value.to_owned(),
                    "from" if !value.is_empty() => from = Some(value.to_owned()),
                    _ => {}
                }
            }
            mounts.push(Mount { flag, kind, source, from });
        }
        mounts
    }

    /// Returns the parts of the instruction that the classic builder of Docker Engine does not know, such as `RUN --mount` or
    /// `RUN <<EOF`. It refuses them, or takes the lines of a here-document for instructions.
    #[must_use]
    pub fn buildkit_parts(&self) -> Vec<Part> {
        // The flags of the classic builder, and those that BuildKit of Docker Engine 20.10 adds.
        let (classic, added): (&[&str], &[&str]) = match self.word.as_str() {
            "RUN" => (&[], &["mount"]),
            "COPY" => (&["chown", "from"], &["chmod"]),
            "ADD" => (&["chown"], &["chmod"]),
            "ONBUILD" => return self.held_back().map(|later| later.buildkit_parts()).unwrap_or_default(),
            _ => return Vec::new(),
        };
        let part = |text: &str, needs| Part { text: format!("{} {text}", self.word), needs };
        let (flags, rest) = flags(&self.rest, self.escape);
        let mut parts = Vec::new();
        for flag in flags {
            let flag = flag.split('=').next().unwrap_or_default();
            let name = flag.trim_start_matches("--");
            if !name.is_empty() && !classic.contains(&name) {
                parts.push(part(flag, if added.contains(&name) { Needs::BuildKit } else { Needs::Newer }));
            }
        }
        for mount in self.all_mounts().into_iter().filter(|mount| matches!(&*mount.kind, "secret" | "ssh")) {
            parts.push(part(&format!("--mount=type={}", mount.kind), Needs::Session));
        }
        let (words, closed) = words(rest, self.escape);
        let documents = words.iter().filter(|word| closed && opens_document(word).is_some());
        parts.extend(documents.map(|word| part(word, Needs::Newer)));
        parts
    }

    /// Returns the variables of ENV or ARG: names and values with their quotes. The value may be missing in ARG.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, Option<String>)> {
        let (words, _) = words(&self.rest, self.escape);
        let split = |word: &String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        match (self.word.as_str(), words.first()) {
            // The old form of ENV: one name, followed by its value up to the end of the line.
            ("ENV", Some(first)) if !first.contains('=') => {
                let (name, value) = crate::lines::split(&self.rest);
                vec![(name.to_owned(), Some(value.to_owned()))]
            }
            ("ENV" | "ARG", _) => words.iter().map(split).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns whether the instruction reads files of the build context, as far as its text shows.
    #[must_use]
    pub fn reads_context(&self) -> bool {
        if self.mounts().iter().any(|mount| mount.from.is_none()) {
            return true;
        }
        self.transfer().is_some_and(|transfer| {
            let local = |word: &String| !transfer.adds || !is_remote(&unquoted(word, self.escape));
            transfer.from().is_none() && transfer.sources.iter().any(local)
        })
    }
}

impl Transfer {
    /// Returns the stage or image of `--from`.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        let value = self.flags.iter().find_map(|flag| flag.strip_prefix("--from="))?;
        Some(value.trim_matches(['"', '\''])).filter(|value| !value.is_empty())
    }
}

/// Returns whether ADD fetches a source from the network: a URL, or a Git repository such as `git@host:path`.
#[must_use]
pub fn is_remote(source: &str) -> bool {
    let login = source.split_once(':').is_some_and(|(login, _)| {
        login.split_once('@').is_some_and(|(user, host)| {
            let plain = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            };
            plain(user) && plain(host)
        })
    });
    login || source.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Returns a word without quotes and escapes. Variables stay.
fn unquoted(word: &str, escape: char) -> String {
    let keep = |name: &str| Value::Set(format!("${name}"));
    expand(word, escape, &keep).unwrap_or_else(|| word.to_owned())
}

/// Returns the comma-separated fields of a `--mount` flag without quotes. A comma in quotes does not separate fields.
fn fields(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quote = None;
    for letter in text.chars() {
        match letter {
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            letter if quote == Some(letter) => quote = None,
            // A quote around the whole value does not protect its commas.
            ',' if quote.is_none() || text.starts_with(['"', '\'']) => all.push(String::new()),
            letter => {
                if let Some(last) = all.last_mut() {
                    last.push(letter);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Instruction {
        crate::parse(text).instructions.remove(0)
    }

    #[test]
    fn instructions_that_read_the_context_are_recognised() {
        for (line, reads) in [
            ("COPY a b", true),
            ("copy --chown=1:1 a /b", true),
            ("COPY --from=one /a /b", false),
            ("COPY --chmod=644 --from=one /a /b", false),
            ("COPY <<EOF /b\nx\nEOF", false),
            ("COPY <<EOF a /b/\nx\nEOF", true),
            ("ADD https://example.org/x /x", false),
            ("ADD \"https://example.org/$V\" /x", false),
            ("ADD git@example.org:a/b.git#v1 /x", false),
            ("ADD x https://example.org/x /x", true),
            ("COPY [\"a b\", \"/c\"]", true),
            ("RUN COPY a b", false),
            ("RUN --mount=type=bind,source=a,target=/a true", true),
            ("RUN --mount=target=/a true", true),
            ("RUN --mount=type=bind,from=b,target=/a true", false),
            ("RUN --mount=type=cache,target=/a true", false),
            ("ONBUILD COPY a b", false),
        ] {
            assert_eq!(one(line).reads_context(), reads, "{line}");
        }
    }

    #[test]
    fn what_only_buildkit_knows_is_named() {
        for (line, parts) in [
            ("RUN --mount=type=cache,target=/a true", &[("RUN --mount", Needs::BuildKit)][..]),
            (
                "RUN --mount=type=secret,id=a --network=none true",
                &[
                    ("RUN --mount", Needs::BuildKit),
                    ("RUN --network", Needs::Newer),
                    ("RUN --mount=type=secret", Needs::Session),
                ],
            ),
            (
                "RUN --mount=type=SSH true",
                &[("RUN --mount", Needs::BuildKit), ("RUN --mount=type=ssh", Needs::Session)],
            ),
            ("RUN <<EOF\ntrue\nEOF", &[("RUN <<EOF", Needs::Newer)]),
            ("RUN cat <<-\"E F\" <<X\ntrue\nE F\nX", &[("RUN <<-\"E F\"", Needs::Newer), ("RUN <<X", Needs::Newer)]),
            ("RUN echo '<<EOF' $((1<<2))", &[]),
            ("RUN -- true --mount", &[]),
            ("copy --chown=1:1 --from=a b c", &[]),
            ("COPY --chown=1:1 --chmod=600 b c", &[("COPY --chmod", Needs::BuildKit)]),
            ("COPY <<EOF /file\ntext\nEOF", &[("COPY <<EOF", Needs::Newer)]),
            ("ADD --checksum=sha256:1 a b", &[("ADD --checksum", Needs::Newer)]),
            ("ONBUILD COPY --link a b", &[("COPY --link", Needs::Newer)]),
            ("FROM --platform=linux/amd64 x", &[]),
            ("LABEL a=<<EOF", &[]),
        ] {
            let found = one(line).buildkit_parts();
            let found: Vec<_> = found.iter().map(|part| (part.text.as_str(), part.needs)).collect();
            assert_eq!(found, parts, "{line}");
        }
    }

    #[test]
    fn the_words_of_a_copy_are_split() {
        let transfer = one("ADD --chown=a:b --link 'a b' <<E c /d/\nx\nE\n").transfer().unwrap();
        assert!(transfer.adds && !transfer.json);
        assert_eq!(transfer.flags, ["--chown=a:b", "--link"]);
        assert_eq!((transfer.sources, transfer.documents), (vec!["'a b'".into(), "c".into()], vec!["<<E".into()]));
        assert_eq!(transfer.target, "/d/");
        assert!(one("COPY [\"a\", \"b\"]").transfer().unwrap().json);
        assert_eq!(one("COPY [a b] c").transfer().unwrap().sources, ["[a", "b]"]);
        assert_eq!(one("COPY").transfer(), None);
    }

    #[test]
    fn the_bind_mounts_of_a_run_are_found() {
        let mounts =
            one("RUN --network=none --mount=\"type=bind,src=a b\" --mount=from=x,Source=/y,target=/z true").mounts();
        assert_eq!(
            mounts,
            [
                Mount { flag: 1, kind: "bind".into(), source: "a b".into(), from: None },
                Mount { flag: 2, kind: "bind".into(), source: "/y".into(), from: Some("x".into()) }
            ]
        );
    }

    #[test]
    fn the_variables_of_env_and_arg_are_found() {
        let pairs = |text: &str| {
            let all = one(text).pairs().into_iter();
            all.map(|(name, value)| format!("{name}:{}", value.unwrap_or("-".into()))).collect::<Vec<_>>()
        };
        assert_eq!(pairs("ENV a=1 b='2 3'"), ["a:1", "b:'2 3'"]);
        assert_eq!(pairs("ENV a 1  2"), ["a:1  2"]);
        assert_eq!(pairs("ARG a b=1"), ["a:-", "b:1"]);
        assert_eq!(pairs("RUN a=1"), [""; 0]);
    }

    #[test]
    fn sources_from_the_network_are_recognised() {
        for (source, remote) in [
            ("https://a/b", true),
            ("git@github.com:a/b", true),
            ("ssh://git@a/b", true),
            ("a@b", false),
            ("dir/a@b:c", false),
            ("github.com/a/b", false),
            ("./a", false),
        ] {
            assert_eq!(is_remote(source), remote, "{source}");
        }
    }
}
