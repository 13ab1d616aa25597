//! Circles in import relations.

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};

/// Returns the groups of nodes that import each other, directly or through others. Each group has at least two nodes.
pub fn circles<'a>(edges: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    let graph: DiGraphMap<&str, ()> = edges.into_iter().filter(|(from, to)| from != to).collect();
    let mut circles: Vec<_> = tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1).collect();
    circles.iter_mut().for_each(|circle| circle.sort_unstable());
    circles.sort();
    circles
}
