//! Writes the bindings of the interface: what wit-bindgen's macro would, but for one thing. Every function of the interface can
//! fail with the same record, and the generated code takes that record apart anew in each of them: a kilobyte and a half,
//! some fifty times over. Here those pieces become calls of one function.

use std::{collections::HashMap, fs, path::Path};

use wit_bindgen_core::{Files, WorldGenerator as _, wit_parser::Resolve};
use wit_bindgen_rust::Opts;

/// Only the export: imports come through the `wasip2` crate, and only those in use end up in the component.
const WORLD: &str = "package local:provider; world provider { export harness:sandbox/sandbox-provider@0.1.1; }";

fn main() {
    println!("cargo:rerun-if-changed=../wit");
    let mut resolve = Resolve::default();
    resolve.push_dir(Path::new("../wit")).expect("the interface");
    let package = resolve.push_str("provider.wit", WORLD).expect("the world's text");
    let world = resolve.select_world(&[package], Some("provider")).expect("the world");
    let options = Opts {
        pub_export_macro: true,
        generate_all: true,
        runtime_path: Some("wit_bindgen::rt".to_string()),
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("bindings");
    let (_, source) = files.iter().next().expect("one file");
    let source = std::str::from_utf8(source).expect("text");

    // `check` can do nothing but fail, so its pieces are the ones that all others are held against.
    let error = "super::super::super::super::harness::sandbox::types::Error";
    let lower = Outline {
        like: "fn _export_check_cabi",
        opening: "Err(e) => {",
        argument: "ptr",
        signature: &format!("unsafe fn lower_error(ARGUMENT: *mut u8, e: {error})"),
        call: "lower_error(ARGUMENT, e)",
    };
    let free = Outline {
        like: "fn __post_return_check",
        opening: "_ => {",
        argument: "arg",
        signature: "unsafe fn free_error(ARGUMENT: *mut u8)",
        call: "free_error(ARGUMENT)",
    };
    let source = free.apply(&lower.apply(source));

    // The same for what several functions take or give: by far the largest are a specification and what is known of a
    // sandbox.
    let types = "super::super::super::super::harness::sandbox::types";
    let source = ["create", "check_spec"].iter().fold(source, |source, name| argument_apart(&source, name));
    let lift = Outline {
        like: "fn _export_create_cabi",
        opening: "let argument = {",
        argument: "arg",
        signature: &format!("unsafe fn lift_spec(ARGUMENT: *mut u8) -> {types}::SandboxSpec"),
        call: "lift_spec(ARGUMENT)",
    };
    let mut source = lift.apply(&source);
    for (first, kind) in [("create", "SandboxInfo"), ("start_build", "BuildProgress"), ("read_file", "FileChunk")] {
        let lower = Outline {
            like: &format!("fn _export_{first}_cabi"),
            opening: "Ok(e) => {",
            argument: "ptr",
            signature: &format!("unsafe fn lower_{first}(ARGUMENT: *mut u8, e: {types}::{kind})"),
            call: &format!("lower_{first}(ARGUMENT, e)"),
        };
        source = lower.apply(&source);
    }
    let out = std::env::var_os("OUT_DIR").expect("set by cargo");
    fs::write(Path::new(&out).join("bindings.rs"), source).expect("they are written");
}

/// In the function of this name, puts into a block of its own what makes up the one argument.
fn argument_apart(source: &str, name: &str) -> String {
    let (head, call) = (format!("fn _export_{name}_cabi"), format!("T_::{name}("));
    let found = source.find(&head).and_then(|home| {
        let start = home + source[home..].find("run_ctors_once();let result")?;
        let start = start + source[start..].find('{')? + 1;
        let call_at = start + source[start..].find(&call)?;
        let (open, close) = enclosed(source, call_at, ('(', ')'))?;
        Some((start, call_at, open, close))
    });
    let Some((start, call_at, open, close)) = found else { return source.to_string() };
    let (before, argument) = (&source[start..call_at], &source[open + 1..close - 1]);
    format!("{}\nlet argument = {{{before}{argument}\n}};\n{call}argument){}", &source[..start], &source[close..])
}

/// Where the first opening bracket is from here on, and what is behind the closing one that belongs to it.
fn enclosed(source: &str, from: usize, (opening, closing): (char, char)) -> Option<(usize, usize)> {
    let mut depth = 0;
    let start = from + source[from..].find(opening)?;
    for (at, c) in source[start..].char_indices() {
        if c == opening {
            depth += 1;
        } else if c == closing {
            depth -= 1;
        }
        if depth == 0 {
            return Some((start, start + at + 1));
        }
    }
    None
}

/// Blocks that differ in the numbers of their variables alone, to be replaced by calls of a function that has them as its
/// body. `ARGUMENT` is the one numbered variable that they do not define themselves.
struct Outline<'a> {
    /// The function in which the first such block is.
    like: &'a str,
    /// How they begin.
    opening: &'a str,
    /// The name of that variable without its number.
    argument: &'a str,
    signature: &'a str,
    call: &'a str,
}

impl Outline<'_> {
    /// What does not fit, because another version of the generator writes it in another way, is left as it is.
    fn apply(&self, source: &str) -> String {
        let Some(home) = source.find(self.like) else { return source.to_string() };
        let Some((start, end)) = self.block(source, home) else { return source.to_string() };
        let (body, argument) = self.renumbered(&source[start..end]);
        let signature = self.signature.replace("ARGUMENT", &argument);
        // Before the function that the block is from, and what is said of it.
        let place = source[..home].rfind("#[doc(hidden)]").unwrap_or(0);
        let mut text = source[..place].to_string();
        text.push_str(&format!("#[inline(never)]\n{signature} {{ unsafe {body} }}\n"));
        let mut rest = place;
        while let Some((start, end)) = self.block(source, rest) {
            let (other, _) = self.renumbered(&source[start..end]);
            if other == body {
                let variable = self.variable(&source[start..end]).unwrap_or_default();
                text.push_str(&source[rest..start]);
                text.push_str(&format!("{{ {} }}", self.call.replace("ARGUMENT", variable)));
                rest = end;
            } else {
                text.push_str(&source[rest..=start]);
                rest = start + 1;
            }
        }
        text.push_str(&source[rest..]);
        text
    }

    /// The next block from here on, with its braces.
    fn block(&self, source: &str, from: usize) -> Option<(usize, usize)> {
        let start = from + source[from..].find(self.opening)? + self.opening.len() - 1;
        enclosed(source, start, ('{', '}'))
    }

    fn variable<'t>(&self, text: &'t str) -> Option<&'t str> {
        words(text).find(|word| numbered(word) == Some(self.argument))
    }

    /// A text with its numbered variables counted anew and its lines moved to the left, and what the argument is called in
    /// it.
    fn renumbered(&self, text: &str) -> (String, String) {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut new = String::new();
        let mut argument = String::new();
        for word in words(text) {
            let Some(name) = numbered(word) else {
                new.push_str(word);
                continue;
            };
            let next = numbers.len();
            let renamed = format!("{name}_{}", numbers.entry(word).or_insert(next));
            if argument.is_empty() && name == self.argument {
                argument.clone_from(&renamed);
            }
            new.push_str(&renamed);
        }
        (new.split_whitespace().collect::<Vec<_>>().join(" "), argument)
    }
}

/// The words of a text, and what stands between them character by character.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// A numbered variable's name; none for other words, among them primitive types, conversions to them, and a field.
fn numbered(word: &str) -> Option<&str> {
    // Fields of a tuple have two numbers: `t12_0`.
    let end = word.find(|c: char| c.is_ascii_digit())?;
    let name = &word[..end];
    (!matches!(name, "" | "u" | "i" | "f" | "as_i" | "sha")).then_some(name)
}
