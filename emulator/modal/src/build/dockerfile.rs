//! Parses Dockerfiles to instructions with line numbers.
//!
//! Does not expand variables, because their values depend on earlier instructions; [`crate::build::steps`] does.

use std::str::FromStr as _;

use crate::build::expand::{expand, words};
use crate::build::mount_options;

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The instructions in order.
    pub lines: Vec<Line>,
    /// The character that escapes the next one and continues a line.
    pub escape: char,
}

/// An instruction with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first line, from 1.
    pub number: usize,
    /// Its text, with continued lines joined.
    pub text: String,
    /// The parsed instruction.
    pub instruction: Instruction,
}

/// A parsed instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// FROM: begins a stage.
    From {
        /// An image, a stage, or `scratch`.
        image: String,
        /// Name of the stage (`AS`).
        alias: Option<String>,
        /// Value of `--platform`.
        platform: Option<String>,
    },
    /// RUN: runs a command.
    Run(Run),
    /// COPY or ADD: copies files.
    Copy(Copy),
    /// ENV: sets variables.
    Env(Vec<(String, String)>),
    /// ARG: declares build arguments, with optional default values.
    Arg(Vec<(String, Option<String>)>),
    /// WORKDIR: sets the directory for later instructions.
    Workdir(String),
    /// USER: sets the user for later instructions.
    User(String),
    /// ENTRYPOINT: sets the first part of a container's command.
    Entrypoint(Command),
    /// CMD: sets a container's command, or its second part.
    Cmd(Command),
    /// SHELL: sets the program that runs commands in shell form.
    Shell(Vec<String>),
    /// LABEL: sets labels.
    Label(Vec<(String, String)>),
    /// ONBUILD: stores an instruction for images that are built on this one.
    Onbuild(String),
    /// EXPOSE: names ports. Has no effect here.
    Expose(Vec<String>),
    /// STOPSIGNAL: names the signal that ends a container. Has no effect here.
    StopSignal(String),
    /// VOLUME, HEALTHCHECK or MAINTAINER, which have no effect here.
    Ignored,
}

/// The arguments of RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// Values of `--mount`.
    pub mounts: Vec<String>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Shell form: text for a shell.
    Shell(String),
    /// Exec form: a program and its arguments.
    Exec(Vec<String>),
    /// A script in a here-document.
    Script(String),
}

/// The arguments of COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Whether it is ADD, which unpacks archives by default.
    pub add: bool,
    /// `--from`: a stage or image instead of the context.
    pub from: Option<String>,
    /// `--chown`: owner of the copies.
    pub chown: Option<String>,
    /// `--chmod`: mode of the copies.
    pub chmod: Option<String>,
    /// `--parents`: whether the directories above sources are kept.
    pub parents: bool,
    /// `--exclude`: patterns of files that are not copied.
    pub exclude: Vec<String>,
    /// `--unpack`: whether archives are unpacked; `None` if not given.
    pub unpack: Option<bool>,
    /// `--checksum`: checksum of a downloaded file.
    pub checksum: Option<String>,
    /// Paths and patterns to copy.
    pub sources: Vec<String>,
    /// Files whose content is in here-documents.
    pub inline: Vec<Document>,
    /// Target path.
    pub target: String,
}

/// A here-document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Its tag, which COPY uses as the file name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether variables in the text are expanded: true if the tag is not quoted.
    pub expand: bool,
}

/// Parses a Dockerfile.
///
/// # Errors
///
/// Returns a text that begins with `line N:`, where N is the number of the wrong line.
pub fn parse(text: &str) -> Result<Dockerfile, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (escape, mut at) = directives(&lines)?;
    let mut parsed = Vec::new();
    while at < lines.len() {
        let number = at + 1;
        let first = lines[at].trim();
        if first.is_empty() || first.starts_with('#') {
            at += 1;
            continue;
        }
        let text = joined(&lines, &mut at, escape);
        if text.is_empty() {
            continue;
        }
        let documents = documents(&text, &lines, &mut at, escape).map_err(|e| format!("line {number}: {e}"))?;
        let instruction = instruction(&text, documents, escape).map_err(|e| format!("line {number}: {e}"))?;
        parsed.push(Line { number, text, instruction });
    }
    Ok(Dockerfile { lines: parsed, escape })
}

/// Parses the instruction of an ONBUILD line, which may have here-documents.
///
/// # Errors
///
/// Returns a text that says what is wrong.
pub fn parse_trigger(text: &str) -> Result<Instruction, String> {
    let mut lines = parse(text)?.lines;
    match (lines.pop(), lines.pop()) {
        (Some(line), None) => Ok(line.instruction),
        _ => Err("it must be one instruction".to_owned()),
    }
}

/// Parses directives such as `# escape=`, which count only at the beginning of the file. Returns the escape character, and the
/// index of the first line after the directives.
fn directives(lines: &[&str]) -> Result<(char, usize), String> {
    let mut escape = None;
    for (at, line) in lines.iter().enumerate() {
        let number = at + 1;
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        match directive.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())) {
            Some((name, value)) if name == "escape" => {
                let sign = match value {
                    "`" => '`',
                    "\\" => '\\',
                    _ => return Err(format!("line {number}: escape must be ` or \\, got {value}")),
                };
                if escape.replace(sign).is_some() {
                    return Err(format!("line {number}: escape is given twice"));
                }
            }
            Some((name, _)) if name == "syntax" || name == "check" => {}
            _ => return Ok((escape.unwrap_or('\\'), at)),
        }
    }
    Ok((escape.unwrap_or('\\'), lines.len()))
}

/// Joins the lines of an instruction, and drops comments and empty lines between them.
fn joined(lines: &[&str], at: &mut usize, escape: char) -> String {
    let mut text = String::new();
    let mut line = lines[*at].trim_start();
    *at += 1;
    loop {
        let end = line.trim_end();
        // Two escape characters at the end are an escaped character, not a continuation.
        match end.strip_suffix(escape).filter(|begun| !begun.ends_with(escape)) {
            Some(begun) => text.push_str(begun),
            None => {
                text.push_str(end);
                return text.trim_end().to_owned();
            }
        }
        loop {
            let Some(next) = lines.get(*at) else { return text.trim_end().to_owned() };
            *at += 1;
            let trimmed = next.trim_start();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                line = next;
                break;
            }
        }
    }
}

/// Reads the here-documents that an instruction opens from the lines after it.
fn documents(text: &str, lines: &[&str], at: &mut usize, escape: char) -> Result<Vec<Document>, String> {
    let mut keywords = text.split_whitespace().map(str::to_ascii_uppercase);
    let mut keyword = keywords.next().unwrap_or_default();
    if keyword == "ONBUILD" {
        keyword = keywords.next().unwrap_or_default();
    }
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for word in words(text, escape) {
        let Some((mut document, tabs)) = opens_document(&word) else { continue };
        loop {
            let Some(line) = lines.get(*at) else {
                return Err(format!("the here-document {} has no end", document.name));
            };
            *at += 1;
            let line = if tabs { line.trim_start_matches('\t') } else { line };
            if line.trim_end_matches(['\r', '\n']) == document.name {
                break;
            }
            document.text.push_str(line);
        }
        all.push(document);
    }
    Ok(all)
}

/// Parses a word `<<TAG`, `<<-TAG` or `<<"TAG"` with an optional descriptor number before it. Returns the document, and whether
/// leading tabs are removed. Returns `None` for other words.
fn opens_document(word: &str) -> Option<(Document, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let name = expand(rest, '\\', &|_| None).ok()?;
    // `1 <<2` is shell arithmetic.
    let fits = words(rest, '\\').len() == 1 && !rest.contains('<') && !name.bytes().all(|b| b.is_ascii_digit());
    let document = Document { expand: name == rest, text: String::new(), name };
    fits.then_some((document, tabs))
}

fn instruction(text: &str, documents: Vec<Document>, escape: char) -> Result<Instruction, String> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, rest) = (keyword.to_ascii_uppercase(), rest.trim());
    let some = || if rest.is_empty() { Err(format!("{name} needs an argument")) } else { Ok(()) };
    match name.as_str() {
        "FROM" => from(rest),
        "RUN" => run(rest, documents),
        "COPY" | "ADD" => copy(&name, rest, documents, escape).map(Instruction::Copy),
        "ENV" => some().and_then(|()| pairs(&name, rest, escape)).map(Instruction::Env),
        "LABEL" => some().and_then(|()| pairs(&name, rest, escape)).map(Instruction::Label),
        "ARG" => some().map(|()| {
            let split = |word: String| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            Instruction::Arg(words(rest, escape).into_iter().map(split).collect())
        }),
        "WORKDIR" => some().map(|()| Instruction::Workdir(rest.to_owned())),
        "USER" => some().map(|()| Instruction::User(rest.to_owned())),
        "ENTRYPOINT" => command(rest).map(Instruction::Entrypoint),
        "CMD" => command(rest).map(Instruction::Cmd),
        "SHELL" => match list(rest)? {
            Some(shell) if !shell.is_empty() => Ok(Instruction::Shell(shell)),
            _ => Err("SHELL needs a JSON list of strings".to_owned()),
        },
        "ONBUILD" => {
            some()?;
            let inner = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(inner.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(format!("ONBUILD cannot contain {inner}"));
            }
            instruction(rest, documents.clone(), escape)?;
            let bodies: String =
                documents.iter().map(|document| format!("\n{}{}", document.text, document.name)).collect();
            Ok(Instruction::Onbuild(format!("{rest}{bodies}")))
        }
        "EXPOSE" => some().map(|()| Instruction::Expose(words(rest, escape))),
        "STOPSIGNAL" => some().map(|()| Instruction::StopSignal(rest.to_owned())),
        "HEALTHCHECK" => healthcheck(rest).map(|()| Instruction::Ignored),
        "VOLUME" => some().and_then(|()| list(rest)).map(|_| Instruction::Ignored),
        "MAINTAINER" => some().map(|()| Instruction::Ignored),
        _ => Err(format!("unknown instruction: {keyword}")),
    }
}

fn from(rest: &str) -> Result<Instruction, String> {
    let (flags, rest) = flags("FROM", rest, &["platform"])?;
    let platform = flags.into_iter().next().map(|flag| flag.value()).transpose()?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, alias) = match words[..] {
        [image] => (image, None),
        [image, keyword, alias] if keyword.eq_ignore_ascii_case("as") => (image, Some(alias.to_ascii_lowercase())),
        _ => return Err("FROM needs an image, or `image AS name`".to_owned()),
    };
    if let Some(alias) = &alias {
        let fits = alias.starts_with(|c: char| c.is_ascii_lowercase())
            && alias.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits || matches!(alias.as_str(), "scratch" | "context") {
            return Err(format!("{alias} cannot be the name of a stage"));
        }
    }
    Ok(Instruction::From { image: image.to_owned(), alias, platform })
}

fn run(rest: &str, documents: Vec<Document>) -> Result<Instruction, String> {
    let (flags, rest) = flags("RUN", rest, &["mount", "network", "security"])?;
    let mut mounts = Vec::new();
    for flag in flags {
        let value = flag.value()?;
        match (flag.name, value.as_str()) {
            ("mount", _) => {
                mount_options::check(&value)?;
                mounts.push(value);
            }
            ("network", "default" | "none" | "host") | ("security", "sandbox" | "insecure") => {}
            (name, _) => return Err(format!("--{name}={value} is not supported")),
        }
    }
    if rest.is_empty() {
        return Err("RUN needs a command".to_owned());
    }
    // If the line has only the redirection, the document is the script. Otherwise the shell reads the documents itself.
    if let [script] = &documents[..]
        && opens_document(rest).is_some()
    {
        return Ok(Instruction::Run(Run { command: Command::Script(script.text.clone()), mounts }));
    }
    if documents.is_empty() {
        return Ok(Instruction::Run(Run { command: command(rest)?, mounts }));
    }
    let bodies: String = documents.iter().map(|document| format!("\n{}{}", document.text, document.name)).collect();
    Ok(Instruction::Run(Run { command: Command::Shell(format!("{rest}{bodies}\n")), mounts }))
}

fn copy(name: &str, rest: &str, documents: Vec<Document>, escape: char) -> Result<Copy, String> {
    let mut copy = Copy { add: name == "ADD", ..Copy::default() };
    let both = ["chown", "chmod", "link", "exclude"];
    let own: &[&str] = if copy.add { &["checksum", "keep-git-dir", "unpack"] } else { &["from", "parents"] };
    let (flags, rest) = flags(name, rest, &[&both, own].concat())?;
    for flag in flags {
        match flag.name {
            "from" => copy.from = Some(flag.value()?),
            "chown" => copy.chown = Some(flag.value()?),
            "chmod" => copy.chmod = Some(flag.value()?),
            "exclude" => copy.exclude.push(flag.value()?),
            "checksum" => copy.checksum = Some(flag.value()?),
            "parents" => copy.parents = flag.truth()?,
            "unpack" => copy.unpack = Some(flag.truth()?),
            // `--link` and `--keep-git-dir` are accepted without effect.
            _ => drop(flag.truth()?),
        }
    }
    let mut all = match list(rest)? {
        Some(all) => all,
        None => words(rest, escape),
    };
    copy.target = all.pop().unwrap_or_default();
    copy.sources = all;
    if !documents.is_empty() {
        copy.sources.retain(|word| opens_document(word).is_none());
    }
    copy.inline = documents;
    if copy.target.is_empty() || (copy.sources.is_empty() && copy.inline.is_empty()) {
        return Err(format!("{name} needs a source and a target"));
    }
    Ok(copy)
}

/// Checks the arguments of HEALTHCHECK, which has no effect.
fn healthcheck(rest: &str) -> Result<(), String> {
    let (flags, rest) =
        flags("HEALTHCHECK", rest, &["interval", "timeout", "start-period", "start-interval", "retries"])?;
    for flag in flags {
        let value = flag.value()?;
        let fits = if flag.name == "retries" { value.parse::<u32>().is_ok() } else { is_duration(&value) };
        if !fits && !value.contains('$') {
            return Err(format!(
                "--{}={value} is not a {}",
                flag.name,
                if flag.name == "retries" { "number" } else { "duration" }
            ));
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => Ok(()),
        ("NONE", _) => Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", "") => Err("HEALTHCHECK CMD needs a command".to_owned()),
        ("CMD", rest) => command(rest).map(drop),
        _ => Err(format!("HEALTHCHECK needs CMD or NONE, got {kind}")),
    }
}

/// Returns whether a text is a duration such as `1h30m`, `1.5s` or `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() && rest != "0" {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().filter(|unit| rest[number..].starts_with(**unit));
        let Some(unit) = unit.max_by_key(|unit| unit.len()).filter(|_| f64::from_str(&rest[..number]).is_ok()) else {
            return false;
        };
        rest = &rest[number + unit.len()..];
    }
    !text.is_empty()
}

/// A flag of an instruction, with its value if it has one.
struct Flag<'a> {
    name: &'a str,
    value: Option<String>,
}

impl Flag<'_> {
    fn value(&self) -> Result<String, String> {
        let value = self.value.clone().filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("--{} needs a value", self.name))
    }

    fn truth(&self) -> Result<bool, String> {
        match self.value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "1" | "t") => Ok(true),
            Some("false" | "0" | "f") => Ok(false),
            Some(other) => Err(format!("--{} must be true or false, got {other}", self.name)),
        }
    }
}

/// Parses the flags `--name=value` at the beginning. Returns them and the rest of the text. Only `mount` and `exclude` may be
/// repeated.
fn flags<'a>(
    instruction: &str,
    mut rest: &'a str,
    known: &[&'static str],
) -> Result<(Vec<Flag<'static>>, &'a str), String> {
    let mut flags: Vec<Flag<'static>> = Vec::new();
    while let Some(begun) = rest.strip_prefix("--") {
        // Reads one word; quotes and backslashes permit values with spaces.
        let (mut word, mut quote, mut end) = (String::new(), None, begun.len());
        let mut letters = begun.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' if quote != Some('\'') => word.extend(letters.next().map(|(_, letter)| letter)),
                '\'' | '"' if quote.is_none() => quote = Some(letter),
                _ if quote == Some(letter) => quote = None,
                _ if quote.is_none() && letter.is_whitespace() => {
                    end = at;
                    break;
                }
                _ => word.push(letter),
            }
        }
        rest = begun[end..].trim_start();
        if word.is_empty() {
            break;
        }
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let Some(name) = known.iter().find(|known| **known == name) else {
            return Err(format!("unknown flag of {instruction}: --{name}"));
        };
        if flags.iter().any(|flag| flag.name == *name) && !matches!(*name, "mount" | "exclude") {
            return Err(format!("--{name} is given twice"));
        }
        flags.push(Flag { name, value: value.map(str::to_owned) });
    }
    Ok((flags, rest))
}

/// Parses `KEY=value …`, or the older form `KEY value`.
fn pairs(name: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let all = words(rest, escape);
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

fn command(rest: &str) -> Result<Command, String> {
    Ok(list(rest)?.map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec))
}

/// Parses a JSON list of strings. Returns `None` if the text is not a JSON list, and thus in shell form.
fn list(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let string = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Ok(text),
        other => Err(format!("expected a list of strings, got {other} in it")),
    };
    values.into_iter().map(string).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(command: Command) -> Instruction {
        Instruction::Run(Run { command, mounts: Vec::new() })
    }

    fn shell(text: &str) -> Instruction {
        run(Command::Shell(text.to_owned()))
    }

    fn one(text: &str) -> Instruction {
        let lines = parse(text).unwrap().lines;
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].instruction.clone()
    }

    #[test]
    fn lines_and_their_numbers() {
        let lines = parse("# a comment\n\nFROM a AS B\nRUN x \\\n  # not this\n\n  && y\nCMD [\"z\"]\n").unwrap().lines;
        let seen: Vec<_> = lines.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(seen, [(3, "FROM a AS B"), (4, "RUN x   && y"), (8, "CMD [\"z\"]")]);
        assert_eq!(
            lines[0].instruction,
            Instruction::From { image: "a".into(), alias: Some("b".into()), platform: None }
        );
        let other = parse("# escape=`\nRUN a `\n b\\\n").unwrap();
        assert_eq!((other.lines[0].instruction.clone(), other.escape), (shell("a  b\\"), '`'));
        assert_eq!(one("\u{feff}RUN a"), shell("a"));
        assert_eq!(one("RUN a\\\\"), shell("a\\\\"));
        assert_eq!(one("run a \\ \t\r\n b\r\n"), shell("a  b"));
        assert!(parse("# escape=x\nFROM a").unwrap_err().contains("escape must be"));
        assert_eq!(parse("# a=b\n# escape=`\nFROM a").unwrap().escape, '\\');
    }

    #[test]
    fn here_documents() {
        assert_eq!(one("RUN <<EOF\na\n b\nEOF"), run(Command::Script("a\n b\n".into())));
        assert_eq!(one("RUN cat <<E > /f\nx\nE"), shell("cat <<E > /f\nx\nE\n"));
        let Instruction::Copy(copy) = one("COPY <<-'A' <<B /to/\n\tone\nA\ntwo\nB") else { panic!() };
        let document = |name: &str, text: &str, expand| Document { name: name.into(), text: text.into(), expand };
        assert_eq!(copy.inline, [document("A", "one\n", false), document("B", "two\n", true)]);
        let Instruction::Copy(two) = one("COPY <<robots.txt <<\"hu mans\" /to/\nr\nrobots.txt\nh\nhu mans\n") else {
            panic!()
        };
        assert_eq!(two.inline, [document("robots.txt", "r\n", true), document("hu mans", "h\n", false)]);
        assert_eq!(one("ONBUILD RUN <<E\nx\nE"), Instruction::Onbuild("RUN <<E\nx\nE".into()));
        assert_eq!(parse_trigger("RUN <<E\nx\nE"), Ok(run(Command::Script("x\n".into()))));
        assert!(parse_trigger("RUN a\nRUN b").is_err());
        assert_eq!(one("RUN echo \"<<E\""), shell("echo \"<<E\""));
        assert_eq!(one("RUN cat <<<x"), shell("cat <<<x"));
        assert_eq!((copy.target.as_str(), copy.sources.len()), ("/to/", 0));
        assert!(parse("RUN <<EOF\nno end").unwrap_err().contains("EOF has no end"));
        assert_eq!(one("RUN echo $((1<<2))"), shell("echo $((1<<2))"));
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
        let Instruction::Copy(copy) =
            one("copy --exclude='a b' --exclude=*.c --link --parents=false a\\ b 'c d' e\" \"f /to")
        else {
            panic!()
        };
        assert_eq!((copy.exclude, copy.parents), (vec!["a b".to_owned(), "*.c".to_owned()], false));
        assert_eq!(copy.sources, ["a\\ b", "'c d'", "e\" \"f"]);
        assert_eq!(one("HEALTHCHECK --interval=1m30s --retries=3 CMD [\"x\"]"), Instruction::Ignored);
        assert_eq!(one("healthcheck none"), Instruction::Ignored);
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
            ("RUN --mount=type=ssh y", "line 1: the emulator has no SSH agent"),
            ("RUN --mount=type=bind,sauce=x y", "line 1: --mount: unknown key: sauce"),
            ("RUN --quick y", "line 1: unknown flag of RUN: --quick"),
            ("COPY --chown a b", "line 1: --chown needs a value"),
            ("COPY --link=perhaps a b", "line 1: --link must be true or false"),
            ("COPY --chmod=1 --chmod=2 a b", "line 1: --chmod is given twice"),
            ("ADD --from=a b c", "line 1: unknown flag of ADD: --from"),
            ("FROM a AS 1b", "line 1: 1b cannot be the name"),
            ("CMD [1]", "line 1: expected a list of strings"),
            ("HEALTHCHECK SOMETIMES", "line 1: HEALTHCHECK needs CMD or NONE"),
            ("HEALTHCHECK --interval=often CMD x", "line 1: --interval=often is not a duration"),
            ("ENV X", "line 1: ENV X has no value"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    /// Returns texts that consist of parts of Dockerfiles, and of other characters.
    fn texts() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            8 => prop::sample::select(&[
                "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "SHELL", "ONBUILD", "HEALTHCHECK", "CMD", "# escape=`", "#",
                "--from=a", "--mount=type=cache,target=/x", "--mount=", "--exclude=\"", "--chown=", "--", " ", " ", "\t", "\n", "\n", "\r\n", "\\\n", "`\n",
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
                Ok(Dockerfile { lines, .. }) => {
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
            prop_assert_eq!(one(&text), run(Command::Exec(argv)));
        }
    }
}
