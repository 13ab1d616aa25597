//! What one instruction says: stages, files to copy, mounts, variables.

use crate::expand::{Value, expand};
use crate::lines::{Instruction, split};
use crate::words::{flags, json_list, opens_document, words};

/// What a FROM line says. Variables are as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// An image, a stage, or `scratch`.
    pub image: String,
    /// Its name, in lower case.
    pub name: Option<String>,
}

/// What COPY or ADD says. Words are as written: with quotes, escapes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// ADD, which takes URLs and unpacks archives.
    pub adds: bool,
    /// The `--flags`.
    pub flags: Vec<String>,
    /// What to copy.
    pub sources: Vec<String>,
    /// Here-documents among the sources, such as `<<EOF`.
    pub documents: Vec<String>,
    /// Where to.
    pub target: String,
    /// The words were a JSON list.
    pub json: bool,
}

/// A `--mount` of RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which of the instruction's flags it is.
    pub flag: usize,
    /// The directory or file, as written; `/` if it is not named.
    pub source: String,
    /// A stage or an image, if its files do not come from the build context.
    pub from: Option<String>,
}

impl Instruction {
    /// The stage that a FROM line begins; `None` for other instructions and for a FROM without an image.
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

    /// The instruction that ONBUILD holds back for the next stage.
    #[must_use]
    pub fn held_back(&self) -> Option<Instruction> {
        if self.word != "ONBUILD" {
            return None;
        }
        let (word, rest) = split(&self.rest);
        Some(Instruction { word: word.to_ascii_uppercase(), rest: rest.to_owned(), ..self.clone() })
    }

    /// What COPY or ADD says; `None` for other instructions, and for one without a target.
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

    /// The bind mounts of RUN.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
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
            if kind == "bind" {
                mounts.push(Mount { flag, source, from });
            }
        }
        mounts
    }

    /// The variables of ENV or ARG: names and values as written. ARG may leave the value out.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, Option<String>)> {
        let (words, _) = words(&self.rest, self.escape);
        let split = |word: &String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        match (self.word.as_str(), words.first()) {
            // The old form: one name, and the rest of the line is its value.
            ("ENV", Some(first)) if !first.contains('=') => {
                let (name, value) = crate::lines::split(&self.rest);
                vec![(name.to_owned(), Some(value.to_owned()))]
            }
            ("ENV" | "ARG", _) => words.iter().map(split).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it reads files of the build context, as far as its text alone tells.
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
    /// The stage or image of `--from`.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        let value = self.flags.iter().find_map(|flag| flag.strip_prefix("--from="))?;
        Some(value.trim_matches(['"', '\''])).filter(|value| !value.is_empty())
    }
}

/// Whether a source of ADD is fetched from the network: a URL, or a Git repository such as `git@host:path`.
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

/// A word without quotes and escapes; variables stay.
fn unquoted(word: &str, escape: char) -> String {
    let keep = |name: &str| Value::Set(format!("${name}"));
    expand(word, escape, &keep).unwrap_or_else(|| word.to_owned())
}

/// The comma-separated fields of a `--mount`. Quotes hold a comma, and are removed.
fn fields(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quote = None;
    for letter in text.chars() {
        match letter {
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            letter if quote == Some(letter) => quote = None,
            // A quote around the whole value does not hold its commas.
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
    fn what_reads_the_context() {
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
    fn words_of_a_copy() {
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
    fn mounts_of_a_run() {
        let mounts =
            one("RUN --network=none --mount=\"type=bind,src=a b\" --mount=from=x,Source=/y,target=/z true").mounts();
        assert_eq!(
            mounts,
            [
                Mount { flag: 1, source: "a b".into(), from: None },
                Mount { flag: 2, source: "/y".into(), from: Some("x".into()) }
            ]
        );
    }

    #[test]
    fn variables() {
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
    fn sources_from_the_network() {
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
