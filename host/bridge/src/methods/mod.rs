//! The methods, by topic. `PROTOCOL.md` describes them; a test compares its table with [`names`].

/// Defines the methods of a topic: their names, their functions, and `with data` for those that take bulk data.
macro_rules! methods {
    ($($name:literal => $function:ident $(with $data:ident)?,)*) => {
        pub(super) const METHODS: &[$crate::methods::base::Method] = &[$(
            $crate::methods::base::Method {
                name: $name,
                takes_data: methods!(@takes $($data)?),
                start: |context, arguments| $crate::methods::base::start($function, context, arguments),
            },
        )*];
    };
    (@takes) => { false };
    (@takes data) => { true };
}

/// Defines the arguments of methods.
macro_rules! arguments {
    ($($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty),* $(,)? })*) => {$(
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self", expecting = "an object")]
        struct $name {
            $($(#[$meta])* $field: $kind,)*
        }

        $crate::shapes::from_object!($name);
    )*};
}

/// Defines the arguments of methods on sandboxes: these fields, and those that name the sandbox.
macro_rules! in_sandbox {
    ($($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty),* $(,)? })*) => {$(
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self", expecting = "an object")]
        struct $name {
            provider: u64,
            sandbox: String,
            container: Option<String>,
            user: Option<String>,
            $($(#[$meta])* $field: $kind,)*
        }

        $crate::shapes::from_object!($name);

        impl $name {
            /// Returns the sandbox that the arguments name.
            fn place(
                &self,
                context: &$crate::methods::base::Context,
            ) -> Result<$crate::methods::base::Place, $crate::fault::Fault> {
                let (container, user) = (self.container.as_deref(), self.user.as_deref());
                $crate::methods::base::Place::find(context, self.provider, &self.sandbox, container, user)
            }
        }
    )*};
}

mod base;
mod files;
mod forward;
mod images;
mod processes;
mod providers;
mod sandboxes;
mod state;
mod transfers;

use std::sync::Arc;

use bytes::Bytes;

use self::base::{Context, Counter, Method, Work};
use crate::fault::Fault;
use crate::objects::Objects;

const TOPICS: [&[Method]; 8] = [
    providers::METHODS,
    sandboxes::METHODS,
    state::METHODS,
    images::METHODS,
    processes::METHODS,
    files::METHODS,
    transfers::METHODS,
    forward::METHODS,
];

/// Decodes the arguments of a call and returns its work.
pub(crate) fn start(objects: Arc<Objects>, method: &str, arguments: &str, data: Bytes) -> Result<Work, Fault> {
    let found = TOPICS.iter().copied().flatten().find(|known| known.name == method);
    let Some(found) = found else { return Err(Fault::invalid(format!("there is no method {method:?}"))) };
    if !found.takes_data && !data.is_empty() {
        return Err(Fault::invalid(format!("the method {method} takes no data")));
    }
    let arguments = if arguments.is_empty() { "{}" } else { arguments };
    (found.start)(Context { method: found.name, objects, data, progress: Counter::default() }, arguments)
}

/// Returns the names of all methods.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    TOPICS.iter().copied().flatten().map(|method| method.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The first column of the table has the names in backquotes.
    #[test]
    fn the_table_of_the_protocol_has_all_methods() {
        let text = include_str!("../../PROTOCOL.md");
        let (_, table) = text.split_once("## Methods").expect("no table");
        let (table, _) = table.split_once("\n## ").expect("nothing after the table");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let described: BTreeSet<_> = cells
            .flat_map(|cell| cell.split(" / ").flat_map(|names| names.split(", ")))
            .map(|name| name.trim_matches(|c: char| c == '`' || c.is_whitespace()))
            .map(|name| name.split('`').next().unwrap_or(name))
            .collect();
        assert_eq!(described, BTreeSet::from_iter(super::names()));
        assert_eq!(described.len(), super::names().len(), "a method is defined twice");
    }
}
