//! The images that the build of a Dockerfile needs: those of FROM lines, `COPY --from` and `RUN --mount=from=…`. Stages that
//! are not built need none.

use dockerfile_text::{Instruction, Value, expand, flags, parse};

/// An image that a build needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub reference: String,
    /// The platform that the FROM line names.
    pub platform: Option<String>,
}

struct Stage {
    name: Option<String>,
    /// The numbers of the stages that this one needs.
    stages: Vec<usize>,
    images: Vec<Needed>,
}

impl Stage {
    /// Adds an image, or an earlier stage, which is given by its name or number.
    fn add(&mut self, earlier: &[Stage], reference: &str, platform: Option<String>) {
        let named = earlier.iter().rposition(|stage| stage.name.as_deref() == Some(&reference.to_ascii_lowercase()));
        match named.or_else(|| reference.parse().ok().filter(|number| *number < earlier.len())) {
            Some(number) => self.stages.push(number),
            None if reference == "scratch" || reference.is_empty() => {}
            None => self.images.push(Needed { reference: reference.to_string(), platform }),
        }
    }
}

/// Returns the images that the last stage of `text` needs, in the order of the stages. `own` is the platform of the engine, and
/// `wanted` the one of the built image.
#[must_use]
pub fn bases(text: &str, build_args: &[(String, String)], own: &str, wanted: &str) -> Vec<Needed> {
    let mut variables = Vec::new();
    for (prefix, platform) in [("BUILD", own), ("TARGET", wanted)] {
        let mut parts = platform.splitn(3, '/');
        variables.push((format!("{prefix}PLATFORM"), platform.to_string()));
        for name in ["OS", "ARCH", "VARIANT"] {
            variables.push((format!("{prefix}{name}"), parts.next().unwrap_or_default().to_string()));
        }
    }
    let mut stages: Vec<Stage> = Vec::new();
    let file = parse(text);
    let escape = file.escape;
    for instruction in file.instructions {
        if let Some(line) = instruction.stage() {
            let mut stage = Stage { name: line.name, stages: Vec::new(), images: Vec::new() };
            let (flags, _) = flags(&instruction.rest, escape);
            let platform = flags.iter().find_map(|flag| value(flag.strip_prefix("--platform=")?, escape, &variables));
            // BuildKit itself reports a name whose variables have no documented form.
            stage.add(&stages, &value(&line.image, escape, &variables).unwrap_or_default(), platform);
            stages.push(stage);
        } else if let Some(mut stage) = stages.pop() {
            for from in sources(&instruction) {
                stage.add(&stages, &from, None);
            }
            stages.push(stage);
        } else if instruction.word == "ARG" {
            for (name, default) in instruction.pairs() {
                let default = default.and_then(|default| value(&default, escape, &variables));
                if let Some(value) = find(build_args, &name).or(default) {
                    variables.push((name, value));
                }
            }
        }
    }
    needed(&stages)
}

/// Replaces the variables of a word.
fn value(word: &str, escape: char, variables: &[(String, String)]) -> Option<String> {
    expand(word, escape, &|name| find(variables, name).map_or(Value::Unset, Value::Set))
}

/// Returns the value of the last variable with this name.
fn find(variables: &[(String, String)], name: &str) -> Option<String> {
    variables.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone())
}

/// Returns the stages and images from which an instruction takes files.
fn sources(instruction: &Instruction) -> Vec<String> {
    let copied = instruction.transfer().and_then(|transfer| transfer.from().map(str::to_string));
    instruction.all_mounts().into_iter().filter_map(|mount| mount.from).chain(copied).collect()
}

/// Returns the images of the last stage and of those that it needs.
fn needed(stages: &[Stage]) -> Vec<Needed> {
    let mut built = vec![false; stages.len()];
    let mut images = Vec::new();
    if let Some(last) = built.last_mut() {
        *last = true;
    }
    // A stage needs only earlier ones.
    for (number, stage) in stages.iter().enumerate().rev() {
        if built[number] {
            stage.stages.iter().for_each(|needed| built[*needed] = true);
        }
    }
    for (stage, _) in stages.iter().zip(&built).filter(|(_, built)| **built) {
        for image in &stage.images {
            if !images.contains(image) {
                images.push(image.clone());
            }
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let build_args = [("GIVEN".to_string(), "given".to_string())];
        let images = bases(text, &build_args, "linux/amd64", "linux/arm64/v8").into_iter();
        images.map(|image| image.reference + &image.platform.map_or(String::new(), |name| format!(" {name}"))).collect()
    }

    #[test]
    fn the_images_of_a_build_are_found() {
        for (text, images) in [
            ("FROM a:1", &["a:1"][..]),
            ("ARG V=1\nARG GIVEN=no\nARG NONE\nFROM a:$V-${GIVEN}${NONE:-x}$OTHER", &["a:1-givenx"]),
            ("FROM scratch\nCOPY --from=b:1 /x /y\nCOPY --from=b:1 /z /y", &["b:1"]),
            ("FROM a AS One\nRUN x\nFROM one\nRUN --mount=type=cache,from=c,target=/c true", &["a", "c"]),
            ("FROM a AS one\nFROM b\nFROM c\nCOPY --from=0 /x /y\nRUN --mount=from=d,target=/d true", &["a", "c", "d"]),
            (
                "FROM --platform=$BUILDPLATFORM a\nFROM b:$TARGETARCH-$TARGETVARIANT\nCOPY --from=0 a b",
                &["a linux/amd64", "b:arm64-v8"],
            ),
            ("FROM ${A?x}\nRUN true", &[]),
            ("RUN true", &[]),
        ] {
            assert_eq!(of(text), images, "{text}");
        }
    }
}
