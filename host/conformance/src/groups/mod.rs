//! The checks, one file per group.

mod callers;
mod capabilities;
mod core;
mod data;
mod describe;
mod exec;
mod faults;
mod files;
mod images;
mod lifecycle;
mod limits;
mod logs;
mod network;
mod processes;
mod sidecars;
mod snapshots;
mod trees;
mod tunnels;
mod usage;
mod volumes;

use crate::table::Check;

/// All groups, in the order in which they run.
pub(crate) const ALL: &[&[Check]] = &[
    describe::CHECKS,
    capabilities::CHECKS,
    core::CHECKS,
    limits::CHECKS,
    lifecycle::CHECKS,
    exec::CHECKS,
    processes::CHECKS,
    files::CHECKS,
    trees::CHECKS,
    data::CHECKS,
    callers::CHECKS,
    images::CHECKS,
    snapshots::CHECKS,
    volumes::CHECKS,
    network::CHECKS,
    tunnels::CHECKS,
    sidecars::CHECKS,
    logs::CHECKS,
    usage::CHECKS,
    faults::CHECKS,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ALL;
    use crate::PARTS;
    use crate::check::PROGRAM;
    use crate::world::{IMPLIED, PROGRAMS, TOOLS};

    /// The text of the interface.
    fn interface() -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let files = std::fs::read_dir(folder).expect("wit/ is missing");
        let files = files.map(|entry| entry.expect("wit/ cannot be read").path());
        let text = files.filter(|path| path.extension().is_some_and(|extension| extension == "wit"));
        text.map(|path| std::fs::read_to_string(path).expect("not UTF-8")).collect()
    }

    #[test]
    fn every_check_has_an_id_of_its_own_and_a_group() {
        let mut seen = HashSet::new();
        for check in ALL.iter().copied().flatten() {
            assert!(seen.insert(check.id), "{} stands twice", check.id);
            assert!(check.group() != check.id, "{} has no group", check.id);
        }
        assert!(seen.len() >= 100, "{}", seen.len());
    }

    #[test]
    fn every_clause_names_a_part_of_the_interface() {
        let interface = interface();
        for check in ALL.iter().copied().flatten() {
            let (name, rest) = check.clause.split_once(": ").unwrap_or_default();
            let defined = ["func", "record", "variant", "type", "enum", "interface"].iter().any(|kind| match *kind {
                "func" => {
                    interface.contains(&format!(" {name}: func")) || interface.contains(&format!(" %{name}: func"))
                }
                kind => interface.contains(&format!("{kind} {name} ")),
            });
            assert!(defined && !rest.is_empty(), "{}: `{name}` is nothing of wit/", check.id);
        }
    }

    #[test]
    fn every_need_is_a_capability_or_a_part() {
        let interface = interface();
        for check in ALL.iter().copied().flatten() {
            for need in check.needs {
                if let Some(program) = need.strip_prefix(PROGRAM) {
                    let known = PROGRAMS.contains(&program) || TOOLS.contains(&program);
                    assert!(known, "{}: no run looks for `{program}`", check.id);
                    continue;
                }
                let named = PARTS.contains(need) || IMPLIED.contains(need);
                assert!(named || interface.contains(&format!("`{need}`")), "{}: {need} is no capability", check.id);
            }
        }
    }
}
