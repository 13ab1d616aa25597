//! Dockerfile text taken apart: one instruction after the other, with the line it begins on.
//!
//! Variables are left as they are; which values they have depends on the instructions before ([`super::steps`]).

use super::expand::words;

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first line, from 1.
    pub number: usize,
    /// Its text, continued lines joined.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// A new stage.
    From {
        /// An image, a stage, or `scratch`.
        image: String,
        /// Its name.
        alias: Option<String>,
    },
    /// A command to run.
    Run(Command),
    /// Files to copy.
    Copy(Copy),
    /// Variables.
    Env(Vec<(String, String)>),
    /// Build arguments, with defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Directory for what follows.
    Workdir(String),
    /// User for what follows.
    User(String),
    /// Start of the command of a container.
    Entrypoint(Command),
    /// Command of a container, or the rest of it.
    Cmd(Command),
    /// What the shell form is run by.
    Shell(Vec<String>),
    /// Labels.
    Label(Vec<(String, String)>),
    /// A line for images built on this one.
    Onbuild(String),
    /// Something that makes no difference here: EXPOSE, VOLUME, STOPSIGNAL, HEALTHCHECK, MAINTAINER.
    Ignored,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for a shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A script given in the text.
    Script(String),
}

/// COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// ADD: archives are unpacked.
    pub add: bool,
    /// A stage or image instead of the context.
    pub from: Option<String>,
    /// Owner.
    pub chown: Option<String>,
    /// Mode.
    pub chmod: Option<String>,
    /// What to copy.
    pub sources: Vec<String>,
    /// Files given in the text: name and content.
    pub inline: Vec<(String, String)>,
    /// Where to.
    pub target: String,
}

/// Takes a whole text apart. The message of a failure names the line.
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let (escape, mut at) = directives(&lines);
    let mut parsed = Vec::new();
    while at < lines.len() {
        let number = at + 1;
        let first = lines[at].trim_start();
        if first.is_empty() || first.starts_with('#') {
            at += 1;
            continue;
        }
        let text = joined(&lines, &mut at, escape);
        let documents = documents(&text, &lines, &mut at).map_err(|e| format!("line {number}: {e}"))?;
        let instruction = instruction(&text, documents).map_err(|e| format!("line {number}: {e}"))?;
        parsed.push(Line { number, text, instruction });
    }
    Ok(parsed)
}

/// One line outside a file: what ONBUILD holds back.
pub fn parse_line(text: &str) -> Result<Instruction, String> {
    instruction(text, Vec::new())
}

/// `# escape=` and its like, which only count before everything else.
fn directives(lines: &[&str]) -> (char, usize) {
    let mut escape = '\\';
    for (at, line) in lines.iter().enumerate() {
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        match directive.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())) {
            Some((name, value)) if name == "escape" => escape = if value == "`" { '`' } else { '\\' },
            Some((name, _)) if name == "syntax" || name == "check" => {}
            _ => return (escape, at),
        }
    }
    (escape, lines.len())
}

/// An instruction's lines as one; comments and empty lines between them are left out.
fn joined(lines: &[&str], at: &mut usize, escape: char) -> String {
    let mut text = String::new();
    let mut line = lines[*at].trim_start();
    *at += 1;
    loop {
        match line.trim_end().strip_suffix(escape) {
            Some(begun) => text.push_str(begun),
            None => {
                text.push_str(line.trim_end());
                return text;
            }
        }
        loop {
            let Some(next) = lines.get(*at) else { return text };
            *at += 1;
            let trimmed = next.trim_start();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                line = next;
                break;
            }
        }
    }
}

/// Here-documents that an instruction opens, read from the lines after it: tag and text.
fn documents(text: &str, lines: &[&str], at: &mut usize) -> Result<Vec<(String, String)>, String> {
    let keyword = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let Some((tag, tabs)) = opens_document(word) else { continue };
        let mut body = String::new();
        loop {
            let Some(line) = lines.get(*at) else { return Err(format!("the here-document {tag} does not end")) };
            *at += 1;
            let line = if tabs { line.trim_start_matches('\t') } else { line };
            if line == tag {
                break;
            }
            body.push_str(line);
            body.push('\n');
        }
        all.push((tag, body));
    }
    Ok(all)
}

/// Whether a word is `<<TAG`, `<<-TAG`, `<<"TAG"`, perhaps after a descriptor number; and whether leading tabs go.
fn opens_document(word: &str) -> Option<(String, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let tag = rest.trim_matches(['"', '\'']);
    let fits = tag.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    fits.then(|| (tag.to_owned(), tabs))
}

fn instruction(text: &str, documents: Vec<(String, String)>) -> Result<Instruction, String> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, rest) = (keyword.to_ascii_uppercase(), rest.trim());
    let some = || if rest.is_empty() { Err(format!("{name} needs an argument")) } else { Ok(()) };
    match name.as_str() {
        "FROM" => from(rest),
        "RUN" => some().and_then(|()| run(rest, documents)),
        "COPY" | "ADD" => copy(&name, rest, documents).map(Instruction::Copy),
        "ENV" => some().and_then(|()| pairs(&name, rest)).map(Instruction::Env),
        "LABEL" => some().and_then(|()| pairs(&name, rest)).map(Instruction::Label),
        "ARG" => some().map(|()| {
            let split = |word: String| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            Instruction::Arg(words(rest).into_iter().map(split).collect())
        }),
        "WORKDIR" => some().map(|()| Instruction::Workdir(rest.to_owned())),
        "USER" => some().map(|()| Instruction::User(rest.to_owned())),
        "ENTRYPOINT" => Ok(Instruction::Entrypoint(command(rest))),
        "CMD" => Ok(Instruction::Cmd(command(rest))),
        "SHELL" => match list(rest) {
            Some(shell) if !shell.is_empty() => Ok(Instruction::Shell(shell)),
            _ => Err("SHELL needs a JSON list of strings".to_owned()),
        },
        "ONBUILD" => {
            some()?;
            let inner = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(inner.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(format!("ONBUILD cannot hold {inner}"));
            }
            parse_line(rest).map(|_| Instruction::Onbuild(rest.to_owned()))
        }
        "EXPOSE" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "MAINTAINER" => some().map(|()| Instruction::Ignored),
        _ => Err(format!("unknown instruction: {keyword}")),
    }
}

fn from(rest: &str) -> Result<Instruction, String> {
    let (flags, rest) = flags(rest);
    if let Some(flag) = flags.iter().find(|flag| !flag.starts_with("--platform=")) {
        return Err(format!("unknown flag of FROM: {flag}"));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    match words[..] {
        [image] => Ok(Instruction::From { image: image.to_owned(), alias: None }),
        [image, keyword, alias] if keyword.eq_ignore_ascii_case("as") => {
            Ok(Instruction::From { image: image.to_owned(), alias: Some(alias.to_ascii_lowercase()) })
        }
        _ => Err("FROM needs an image, or `image AS name`".to_owned()),
    }
}

fn run(rest: &str, documents: Vec<(String, String)>) -> Result<Instruction, String> {
    let (flags, rest) = flags(rest);
    for flag in &flags {
        let harmless = flag.starts_with("--network=")
            || flag.starts_with("--security=")
            || (flag.starts_with("--mount=") && (flag.contains("type=cache") || flag.contains("type=tmpfs")));
        if !harmless {
            return Err(format!("the emulator cannot carry out this flag of RUN: {flag}"));
        }
    }
    if documents.is_empty() {
        return Ok(Instruction::Run(command(rest)));
    }
    // Nothing but the redirection: the document is the script. Otherwise the shell reads the document itself.
    if let [(_, script)] = &documents[..]
        && opens_document(rest).is_some()
    {
        return Ok(Instruction::Run(Command::Script(script.clone())));
    }
    let bodies: String = documents.iter().map(|(tag, body)| format!("\n{body}{tag}")).collect();
    Ok(Instruction::Run(Command::Shell(format!("{rest}{bodies}\n"))))
}

fn copy(name: &str, rest: &str, documents: Vec<(String, String)>) -> Result<Copy, String> {
    let (flags, rest) = flags(rest);
    let mut copy = Copy { add: name == "ADD", ..Copy::default() };
    for flag in flags {
        match flag.split_once('=') {
            Some(("--from", from)) if !copy.add => copy.from = Some(from.to_owned()),
            Some(("--chown", owner)) => copy.chown = Some(owner.to_owned()),
            Some(("--chmod", mode)) => copy.chmod = Some(mode.to_owned()),
            Some(("--link", _)) => {}
            None if flag == "--link" => {}
            _ => return Err(format!("unknown flag of {name}: {flag}")),
        }
    }
    let mut all = list(rest).unwrap_or_else(|| words(rest));
    copy.target = all.pop().unwrap_or_default();
    copy.sources = all.into_iter().filter(|word| opens_document(word).is_none()).collect();
    copy.inline = documents;
    if copy.target.is_empty() || (copy.sources.is_empty() && copy.inline.is_empty()) {
        return Err(format!("{name} needs a source and a target"));
    }
    Ok(copy)
}

/// `--flag`s at the beginning, and the rest.
fn flags(mut rest: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        flags.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    (flags, rest)
}

/// `KEY=value …`, or the old `KEY value`.
fn pairs(name: &str, rest: &str) -> Result<Vec<(String, String)>, String> {
    let all = words(rest);
    if let Some(first) = all.first()
        && !first.contains('=')
    {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| format!("{name} {rest} has no value"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let split = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{name} needs KEY=value, got {word}")),
    };
    all.into_iter().map(split).collect()
}

fn command(rest: &str) -> Command {
    list(rest).map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec)
}

/// A JSON list of strings.
fn list(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Instruction {
        let lines = parse(text).unwrap();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].instruction.clone()
    }

    #[test]
    fn lines_and_their_numbers() {
        let lines = parse("# a comment\n\nFROM a AS B\nRUN x \\\n  # not this\n\n  && y\nCMD [\"z\"]\n").unwrap();
        let seen: Vec<_> = lines.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(seen, [(3, "FROM a AS B"), (4, "RUN x   && y"), (8, "CMD [\"z\"]")]);
        assert_eq!(lines[0].instruction, Instruction::From { image: "a".into(), alias: Some("b".into()) });
        let other = parse("# escape=`\nRUN a `\n b\\\n").unwrap();
        assert_eq!(other[0].instruction, Instruction::Run(Command::Shell("a  b\\".into())));
    }

    #[test]
    fn here_documents() {
        assert_eq!(one("RUN <<EOF\na\n b\nEOF"), Instruction::Run(Command::Script("a\n b\n".into())));
        assert_eq!(one("RUN cat <<E > /f\nx\nE"), Instruction::Run(Command::Shell("cat <<E > /f\nx\nE\n".into())));
        let Instruction::Copy(copy) = one("COPY <<-'A' <<B /to/\n\tone\nA\ntwo\nB") else { panic!() };
        assert_eq!(copy.inline, [("A".into(), "one\n".into()), ("B".into(), "two\n".into())]);
        assert_eq!((copy.target.as_str(), copy.sources.len()), ("/to/", 0));
        assert!(parse("RUN <<EOF\nno end").unwrap_err().contains("EOF does not end"));
        assert_eq!(one("RUN echo $((1<<2))"), Instruction::Run(Command::Shell("echo $((1<<2))".into())));
    }

    #[test]
    fn flags_pairs_and_lists() {
        let Instruction::Copy(copy) = one(r#"COPY --from=b --chmod=755 ["a b", "/c d"]"#) else { panic!() };
        assert_eq!((copy.from.as_deref(), copy.chmod.as_deref()), (Some("b"), Some("755")));
        assert_eq!((copy.sources, copy.target.as_str()), (vec!["a b".to_owned()], "/c d"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(one("ENV A='1 2' B=3"), Instruction::Env(vec![pair("A", "'1 2'"), pair("B", "3")]));
        assert_eq!(one("ENV A 1 2"), Instruction::Env(vec![pair("A", "1 2")]));
        assert_eq!(one("ARG A B=c"), Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("c".into()))]));
        assert_eq!(one("cmd echo [x"), Instruction::Cmd(Command::Shell("echo [x".into())));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, says) in [
            ("FROM a\nFRON b", "line 2: unknown instruction: FRON"),
            ("FROM", "line 1: FROM needs"),
            ("FROM a b", "line 1: FROM needs"),
            ("COPY a", "line 1: COPY needs"),
            ("SHELL sh", "line 1: SHELL needs"),
            ("RUN --mount=type=secret,id=x y", "line 1: the emulator cannot"),
            ("ENV X", "line 1: ENV X has no value"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    /// Texts out of what Dockerfiles are made of, and out of what they are not.
    fn texts() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            8 => prop::sample::select(&[
                "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "SHELL", "ONBUILD", "HEALTHCHECK", "CMD", "# escape=`", "#",
                "--from=a", "--mount=type=cache", "--chown=", "--", " ", " ", "\t", "\n", "\n", "\r\n", "\\\n", "`\n",
                "<<E", "<<-'E'", "E\n", "1<<2", "[\"a\", \"b\"]", "[", "]", "\"", "'", "=", "A=b", "as", "é",
            ][..]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(crate::build::cases())]

        #[test]
        fn any_text_is_taken_apart_or_refused_by_line(text in texts()) {
            let count = text.lines().count();
            match parse(&text) {
                Ok(lines) => {
                    let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
                    prop_assert!(numbers.is_sorted() && numbers.iter().all(|number| (1..=count).contains(number)));
                    prop_assert!(lines.iter().all(|line| !line.text.is_empty()));
                }
                Err(error) => {
                    let number = error.strip_prefix("line ").and_then(|rest| rest.split(':').next());
                    let number = number.and_then(|number| number.parse().ok());
                    prop_assert!(number.is_some_and(|number| (1..=count).contains(&number)), "{}", error);
                }
            }
        }

        #[test]
        fn a_command_in_list_form_keeps_its_words(argv in prop::collection::vec(any::<String>(), 1..5)) {
            let text = format!("RUN {}", serde_json::to_string(&argv).unwrap());
            prop_assert_eq!(one(&text), Instruction::Run(Command::Exec(argv)));
        }
    }
}
