//! Checks a component for its author: everything that loading it would require, each point separately.

use crate::error::Error;
use crate::interface::INTERFACE;
use crate::plugin::compile;
use crate::plugin::load::{Loaded, MAX_SIZE, check_header, spoken, surface};
use crate::plugin::manifest::Manifest;
use crate::runtime::link::{Linked, strangers};

/// One point of [`check_component`].
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was checked: `format`, `size`, `parts`, `imports`, `exports`, `manifest` or `code`.
    pub check: &'static str,
    /// What was found, if it is as it should be.
    pub result: Result<String, Problem>,
}

/// What is wrong with a component.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The cause.
    pub why: String,
    /// What to do about it.
    pub hint: String,
}

/// Checks whether this host can load a component, and its manifest. Compiles the component and runs no code of it. After a
/// wrong format, nothing else is checked. Blocks for the time of the compilation.
///
/// ```
/// let findings = sandbox_host::check_component(b"text");
/// assert_eq!(findings.len(), 1);
/// assert!(findings[0].check == "format" && findings[0].result.is_err());
/// ```
pub fn check_component(bytes: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |check, result| findings.push(Finding { check, result });
    let format = check_header(bytes).map_err(|(_, why, hint)| Problem { why, hint: hint.to_owned() });
    let is_component = format.is_ok();
    note("format", format.map(|()| "a WebAssembly component".to_owned()));
    if !is_component {
        return findings;
    }
    note("size", size(bytes));
    let parts = compile::check(bytes).map_err(|why| Problem {
        why,
        hint: "a plugin of this size costs its hosts too much: leave out what it does not use".to_owned(),
    });
    note("parts", parts.map(|()| "within the limits for components, functions, types and code".to_owned()));
    let (imports, exports) = surface(bytes);
    note("imports", check_imports(&imports));
    let version = spoken(&exports);
    let manifest = manifest(bytes, version.as_ref().ok().copied());
    let exported = version.map(|version| format!("{INTERFACE} in version {version}"));
    note("exports", exported.map_err(|(_, why, hint)| Problem { why, hint: hint.to_owned() }));
    // The compilation is the costly part, so nothing is compiled that is refused anyway.
    let compilable = findings.iter().all(|finding| finding.result.is_ok()) && Manifest::find(bytes).is_ok();
    findings.push(Finding { check: "manifest", result: manifest });
    if compilable {
        let linked = Loaded::from_bytes(bytes, "(checked)".to_owned()).and_then(Linked::new);
        let result = linked.map(|_| "compiles, and has all functions of the interface".to_owned()).map_err(problem);
        findings.push(Finding { check: "code", result });
    }
    findings
}

fn size(bytes: &[u8]) -> Result<String, Problem> {
    if bytes.len() as u64 <= MAX_SIZE {
        return Ok(format!("{} bytes", bytes.len()));
    }
    Err(Problem {
        why: format!("it has {} bytes, more than {MAX_SIZE}", bytes.len()),
        hint: "build it optimised for size and without debug information".to_owned(),
    })
}

fn check_imports(imports: &[String]) -> Result<String, Problem> {
    let strangers = strangers(imports);
    if strangers.is_empty() {
        return Ok(format!("{}, all of which plugins are given", imports.len()));
    }
    Err(Problem {
        why: format!("it imports {}, which plugins are not given", strangers.join(", ")),
        hint: "use no files and no sockets: a provider reaches the outside by wasi:http alone".to_owned(),
    })
}

fn manifest(bytes: &[u8], version: Option<&str>) -> Result<String, Problem> {
    let manifest = Manifest::find(bytes).map_err(problem)?.ok_or_else(|| Problem {
        why: "it has no manifest, so it gets no settings and no network".to_owned(),
        hint: "write one, and add it with `sandbox-host plugin pack`".to_owned(),
    })?;
    let named = manifest.interface.rsplit_once('@').map_or("", |(_, version)| version);
    if let Some(version) = version
        && named != version
    {
        return Err(Problem {
            why: format!(
                "it names the interface {:?}, and the component exports version {version}",
                manifest.interface
            ),
            hint: format!("write interface = \"harness:sandbox@{version}\" into the manifest"),
        });
    }
    Ok(format!("of {:?}, for {}", manifest.name, manifest.interface))
}

fn problem(error: Error) -> Problem {
    let (_, why, hint) = error.parts();
    let hint = hint.unwrap_or("see docs/provider-guide.md for what a manifest and a component contain");
    Problem { why: why.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, Result<(), String>)> {
        let findings = check_component(&wat::parse_str(text).unwrap());
        findings.into_iter().map(|one| (one.check, one.result.map(drop).map_err(|problem| problem.why))).collect()
    }

    #[test]
    fn each_point_is_reported() {
        let all = found(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#);
        let of = |name: &str| all.iter().find(|(check, _)| *check == name).map(|(_, result)| result.clone()).unwrap();
        assert!(of("format").is_ok() && of("size").is_ok() && of("parts").is_ok());
        assert!(of("imports").unwrap_err().contains("wasi:keyvalue/store@0.2.0"));
        assert!(of("exports").unwrap_err().contains("does not export"));
        assert!(of("manifest").unwrap_err().contains("no manifest"));
        assert!(all.iter().all(|(check, _)| *check != "code"), "nothing is compiled that is refused");
        assert_eq!(found("(module)")[0].1.clone().unwrap_err(), "it is a core WebAssembly module, not a component");
    }
}
