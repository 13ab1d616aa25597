//! Finds the paths that a Dockerfile needs from its build context: the sources of COPY, ADD and the bind mounts of RUN.
//! Variables are replaced by their values as far as the text defines them.

use std::collections::{BTreeMap, HashMap};

use dockerfile_text::{File, Instruction, Value, expand, is_remote};

/// The paths that a build needs from its context.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// The paths and patterns, with variables replaced.
    pub(super) wanted: Vec<Wanted>,
    /// A source has a variable that an image defines, so any path may be needed.
    pub(super) everything: bool,
    /// The sources of each instruction, by its start in the text. A source is `None` if its value is unknown.
    pub(super) by_instruction: HashMap<usize, Vec<Option<String>>>,
}

/// A path or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: String,
    /// Whether the build fails without it: it is not a pattern, and its stage is built.
    pub(super) required: bool,
}

impl Sources {
    /// Returns whether the build needs anything from the context.
    pub(super) fn any(&self) -> bool {
        self.everything || !self.wanted.is_empty()
    }

    /// Returns the paths that the build of a stage needs, or of the last stage. Includes all stages before it, because
    /// some builders build stages that are not needed.
    pub(super) fn of(file: &File, build_args: &[(String, String)], target: Option<&str>) -> Sources {
        let mut reading = Reading { file, build_args, global: BTreeMap::new(), stages: Vec::new() };
        reading.all(target);
        reading.finish()
    }
}

/// The values of variables. `None` if an image or the builder defines the value.
type Variables = BTreeMap<String, Option<String>>;

struct Reading<'a> {
    file: &'a File,
    build_args: &'a [(String, String)],
    /// ARG lines before the first FROM.
    global: Variables,
    stages: Vec<Stage>,
}

#[derive(Default)]
struct Stage {
    name: Option<String>,
    /// Numbers of the stages that this one needs.
    needs: Vec<usize>,
    env: Variables,
    args: Variables,
    /// The stage starts from `scratch`, so only this text defines variables.
    from_scratch: bool,
    held_back: Vec<Instruction>,
    wanted: Vec<Wanted>,
    everything: bool,
    by_instruction: HashMap<usize, Vec<Option<String>>>,
}

impl Stage {
    fn lookup(&self, name: &str) -> Value {
        match self.env.get(name).or_else(|| self.args.get(name)) {
            Some(Some(value)) => Value::Set(value.clone()),
            Some(None) => Value::Unknown,
            None if self.from_scratch => Value::Unset,
            None => Value::Unknown,
        }
    }
}

impl Reading<'_> {
    fn all(&mut self, target: Option<&str>) {
        let number = target.and_then(|target| stage_number(self.file, target));
        for instruction in &self.file.instructions {
            if instruction.stage().is_some() {
                if number.is_some_and(|number| self.stages.len() > number) {
                    return;
                }
                self.from(instruction);
            } else {
                self.instruction(instruction);
            }
        }
    }

    fn finish(self) -> Sources {
        let mut needed = vec![false; self.stages.len()];
        let mut left: Vec<_> = self.stages.len().checked_sub(1).into_iter().collect();
        while let Some(number) = left.pop() {
            if !std::mem::replace(&mut needed[number], true) {
                left.extend(&self.stages[number].needs);
            }
        }
        let mut sources = Sources::default();
        for (stage, needed) in self.stages.into_iter().zip(needed) {
            sources.everything |= stage.everything;
            sources.by_instruction.extend(stage.by_instruction);
            for wanted in stage.wanted {
                sources.wanted.push(Wanted { required: wanted.required && needed, ..wanted });
            }
        }
        sources
    }

    /// Finds an earlier stage by name or number.
    fn known(&self, name: &str) -> Option<usize> {
        let named = self.stages.iter().position(|stage| stage.name.as_deref() == Some(&name.to_ascii_lowercase()));
        named.or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }

    fn from(&mut self, instruction: &Instruction) {
        let Some(line) = instruction.stage() else { return };
        let global = |name: &str| match self.global.get(name) {
            Some(Some(value)) => Value::Set(value.clone()),
            Some(None) => Value::Unknown,
            // For example BUILDPLATFORM.
            None => Value::Unknown,
        };
        let image = expand(&line.image, instruction.escape, &global);
        let base = image.as_deref().and_then(|image| {
            self.stages.iter().position(|stage| stage.name.as_deref() == Some(&image.to_ascii_lowercase()))
        });
        let mut stage = Stage { name: line.name, ..Stage::default() };
        let mut held_back = Vec::new();
        match base {
            Some(base) => {
                let below = &self.stages[base];
                stage.env = below.env.clone();
                stage.args = below.args.clone();
                stage.from_scratch = below.from_scratch;
                stage.needs = vec![base];
                held_back.clone_from(&below.held_back);
            }
            None => stage.from_scratch = image.as_deref() == Some("scratch"),
        }
        self.stages.push(stage);
        for instruction in held_back {
            self.instruction(&instruction);
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        match instruction.word.as_str() {
            "ARG" | "ENV" => self.variables(instruction),
            "ONBUILD" => {
                if let (Some(stage), Some(held_back)) = (self.stages.last_mut(), instruction.held_back()) {
                    stage.held_back.push(held_back);
                }
            }
            "COPY" | "ADD" => self.transfer(instruction),
            "RUN" => self.mounts(instruction),
            _ => {}
        }
    }

    fn variables(&mut self, instruction: &Instruction) {
        let escape = instruction.escape;
        if instruction.word == "ENV" {
            let Some(stage) = self.stages.last_mut() else { return };
            let value = |text: &str| expand(text, escape, &|name| stage.lookup(name));
            // All values in a line use the variables as they were before the line.
            let pairs: Vec<_> = instruction
                .pairs()
                .into_iter()
                .filter_map(|(name, text)| Some((value(&name)?, value(&text.unwrap_or_default()))))
                .collect();
            stage.env.extend(pairs);
            return;
        }
        for (name, default) in instruction.pairs() {
            let given = self.build_args.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.clone());
            let global = &self.global;
            match self.stages.last_mut() {
                Some(stage) => {
                    let value = match (given, default) {
                        (Some(given), _) => Some(given),
                        (None, Some(text)) => expand(&text, escape, &|name| stage.lookup(name)),
                        // A variable without any declared value may be one of the builder, such as TARGETARCH.
                        (None, None) => global.get(&name).cloned().flatten(),
                    };
                    stage.args.insert(name, value);
                }
                None => {
                    let lookup = |name: &str| match global.get(name) {
                        Some(Some(value)) => Value::Set(value.clone()),
                        _ => Value::Unknown,
                    };
                    let value = given.or_else(|| expand(&default?, escape, &lookup));
                    self.global.insert(name, value);
                }
            }
        }
    }

    fn transfer(&mut self, instruction: &Instruction) {
        let Some(transfer) = instruction.transfer() else { return };
        if let Some(from) = transfer.from() {
            let needed = self.known(from);
            if let Some(stage) = self.stages.last_mut() {
                stage.needs.extend(needed);
            }
            return;
        }
        let Some(stage) = self.stages.last_mut() else { return };
        let mut expanded = Vec::new();
        for source in &transfer.sources {
            // A URL is recognised by its beginning, even if it contains variables.
            if transfer.adds && is_remote(source.trim_start_matches(['"', '\''])) {
                expanded.push(Some(source.clone()));
                continue;
            }
            let path = expand(source, instruction.escape, &|name| stage.lookup(name));
            match &path {
                Some(path) if transfer.adds && is_remote(path) => {}
                Some(path) => {
                    let required = !path.contains(['*', '?', '[', '\\']);
                    stage.wanted.push(Wanted { path: path.clone(), required });
                }
                None => stage.everything = true,
            }
            expanded.push(path);
        }
        stage.by_instruction.insert(instruction.lines.start, expanded);
    }

    fn mounts(&mut self, instruction: &Instruction) {
        for mount in instruction.mounts() {
            let needed = mount.from.as_deref().and_then(|from| self.known(from));
            let Some(stage) = self.stages.last_mut() else { return };
            stage.needs.extend(needed);
            if mount.from.is_some() {
                continue;
            }
            match expand(&mount.source, instruction.escape, &|name| stage.lookup(name)) {
                Some(path) => stage.wanted.push(Wanted { path, required: true }),
                None => stage.everything = true,
            }
        }
    }
}

/// Returns the number of a stage, given its name or number.
pub(super) fn stage_number(file: &File, target: &str) -> Option<usize> {
    let stages: Vec<_> = file.instructions.iter().filter_map(Instruction::stage).collect();
    let named = stages.iter().position(|stage| stage.name.as_deref() == Some(&target.to_ascii_lowercase()));
    named.or_else(|| target.parse().ok().filter(|number| *number < stages.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<String>> {
        let sources = Sources::of(&dockerfile_text::parse(text), &[("GIVEN".into(), "g".into())], None);
        (!sources.everything).then(|| sources.wanted.into_iter().map(|wanted| wanted.path).collect())
    }

    #[test]
    fn sources_of_the_context() {
        let list = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        for (text, wanted) in [
            ("COPY a b* /x/", list(&["a", "b*"])),
            ("copy --chown=1:1 . /x", list(&["."])),
            ("COPY [\"a b\", \"/x\"]", list(&["a b"])),
            ("COPY \"dir/\" \"/app/\"", list(&["dir/"])),
            ("ADD 'a b' c\\ d e\"f g\"h /x/", list(&["a b", "c d", "ef gh"])),
            ("ADD https://example.org/x local /x/", list(&["local"])),
            ("ADD \"https://example.org/$NO\" /x/", list(&[])),
            ("RUN echo COPY x\nCOPY --from=b /x /y", list(&[])),
            ("COPY <<EOF /x\nCOPY no /y\nEOF", list(&[])),
            ("COPY a \\\n  # comment\n  c /x", list(&["a", "c"])),
            ("RUN --mount=type=bind,source=req.txt,target=/r true", list(&["req.txt"])),
            ("RUN --mount=target=/src --mount=type=cache,target=/c true", list(&["/"])),
            ("ONBUILD COPY later /x", list(&[])),
            ("ONBUILD COPY later /x\nFROM b\nFROM b", list(&["later", "later"])),
            ("ARG v=d\nENV w=${v}2\nCOPY $v ${w#d} ${no:-1}/x /x", None),
            ("ARG v=d\nENV w=${v}2\nCOPY $v ${w#d} /x/", list(&["d", "2"])),
            ("ARG GIVEN=no\nCOPY $GIVEN /x/", list(&["g"])),
            ("ENV e=1\nFROM b\nCOPY $e /x/", list(&["1"])),
            ("ARG TARGETARCH\nCOPY $TARGETARCH /x", None),
            ("COPY $UNKNOWN /x", None),
            ("COPY x $UNKNOWN", list(&["x"])),
        ] {
            assert_eq!(of(&format!("FROM a AS b\n{text}\n")), wanted, "{text}");
        }
        assert_eq!(of("FROM scratch\nCOPY a$NO /x"), list(&["a"]));
        assert_eq!(of("ARG v=1\nFROM a\nARG v\nCOPY $v /x"), list(&["1"]));
        assert_eq!(of("\u{feff}FROM a\nCOPY b /x"), list(&["b"]));
        assert_eq!(of("# escape=`\nFROM a\nCOPY a` b c\\d `\n e /x"), list(&["a b", "c\\d", "e"]));
        assert_eq!(of("not a Dockerfile"), list(&[]));
    }

    #[test]
    fn only_what_is_built_is_required() {
        let text = "FROM a AS one\nCOPY 1 /x\nFROM a AS two\nCOPY 2 3* /x\nFROM a\nCOPY --from=one /x /x\nCOPY 4 /x\n";
        let required = |target| {
            let all = Sources::of(&dockerfile_text::parse(text), &[], target).wanted.into_iter();
            all.map(|wanted| (wanted.path, wanted.required)).collect::<Vec<_>>()
        };
        let list =
            |all: &[(&str, bool)]| all.iter().map(|(path, needed)| ((*path).to_owned(), *needed)).collect::<Vec<_>>();
        assert_eq!(required(None), list(&[("1", true), ("2", false), ("3*", false), ("4", true)]));
        assert_eq!(required(Some("TWO")), list(&[("1", false), ("2", true), ("3*", false)]));
        assert_eq!(required(Some("0")), list(&[("1", true)]));
    }
}
