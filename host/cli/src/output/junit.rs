//! Writes the results of `conformance` as JUnit XML, which CI systems show as test results.

use std::fmt::Write as _;

use sandbox_conformance::{Report, State, groups};

use super::line::printable;

/// Returns the document: one test suite per group, one test case per check.
pub fn junit(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for group in groups() {
        let results: Vec<_> = report.results.iter().filter(|result| result.check.group() == group).collect();
        if results.is_empty() {
            continue;
        }
        let failures = report.count(|check| check.group() == group, State::Failed);
        let skipped = results.iter().filter(|result| !matches!(result.state, State::Passed | State::Failed)).count();
        let time: f64 = results.iter().map(|result| result.time.as_secs_f64()).sum();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{time:.3}\">",
            escaped(&format!("{}.{group}", report.provider)),
            results.len()
        );
        for result in results {
            let (id, time) = (escaped(result.check.id), result.time.as_secs_f64());
            let class = escaped(&report.provider);
            let _ = write!(text, "    <testcase classname=\"{class}\" name=\"{id}\" time=\"{time:.3}\">");
            let (seen, clause) = (escaped(&result.text), escaped(result.check.clause));
            let _ = match result.state {
                State::Passed => writeln!(text, "</testcase>"),
                State::Failed => writeln!(text, "<failure message=\"{seen}\">{clause}</failure></testcase>"),
                State::NotDeclared => writeln!(text, "<skipped message=\"not declared: {seen}\"/></testcase>"),
                State::Skipped => writeln!(text, "<skipped message=\"{seen}\"/></testcase>"),
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// Escapes text for an attribute or an element. XML cannot contain most control characters, so they are left out.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\n' => shown.push_str("&#10;"),
            '\t' => shown.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("a<b>&\"c\"\n\u{0}\u{1b}[0m\u{ffff}ü"), "a&lt;b&gt;&amp;&quot;c&quot;&#10;[0mü");
    }
}
