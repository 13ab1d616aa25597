//! Prints results on standard output.

use std::io::Write;

use anyhow::Context as _;
use serde::Serialize;

use super::line::{JsonLine, Line, inline};

/// Prints a line of a result on standard output.
pub fn print(line: impl Into<Line>) -> anyhow::Result<()> {
    print_lines(std::iter::once(line))
}

/// Prints text of this program itself without escaping.
pub fn print_own(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = text.trim_ascii_end();
    stdout
        .write_all(text)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
        .context("write to standard output")
}

/// Prints a heading and text of any number of lines. Lines after the first one are indented.
pub fn print_text(heading: impl Into<Line>, text: &str) -> anyhow::Result<()> {
    let mut lines = text.lines();
    let first = format!("{}{}", heading.into().0, lines.next().unwrap_or_default());
    print_lines(std::iter::once(first).chain(lines.map(|line| format!("          {line}"))))
}

/// Prints a result as JSON, on one line of standard output.
pub fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    let value = serde_json::to_value(result).context("convert the result to JSON")?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", JsonLine(&value)).and_then(|()| stdout.flush()).context("write to standard output")
}

/// Prints the lines of a result on standard output, with a single flush.
pub fn print_lines(lines: impl Iterator<Item = impl Into<Line>>) -> anyhow::Result<()> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let write = || {
        for line in lines {
            writeln!(stdout, "{}", line.into().0)?;
        }
        stdout.flush()
    };
    write().context("write to standard output")
}

/// A JSON array on one line of standard output, printed value by value. [`Array::end`] completes it.
pub struct Array {
    stdout: std::io::BufWriter<std::io::Stdout>,
    is_empty: bool,
}

impl Array {
    /// Begins an array.
    pub fn begin() -> anyhow::Result<Array> {
        let mut stdout = std::io::BufWriter::new(std::io::stdout());
        write!(stdout, "[").context("write to standard output")?;
        Ok(Array { stdout, is_empty: true })
    }

    /// Prints one more value.
    pub fn add(&mut self, result: &impl Serialize) -> anyhow::Result<()> {
        let value = serde_json::to_value(result).context("convert the result to JSON")?;
        let between = if std::mem::replace(&mut self.is_empty, false) { "" } else { "," };
        write!(self.stdout, "{between}{}", JsonLine(&value)).context("write to standard output")
    }

    /// Prints the end of the array.
    pub fn end(mut self) -> anyhow::Result<()> {
        writeln!(self.stdout, "]").and_then(|()| self.stdout.flush()).context("write to standard output")
    }
}

/// Prints rows in columns that are as wide as necessary. The last column is not padded.
pub fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    Rows::default().print(rows)
}

/// Prints rows in columns, part by part. The columns of each part are at least as wide as those of the previous parts.
#[derive(Default)]
pub struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    /// Prints the next part.
    pub fn print(&mut self, rows: &[Vec<String>]) -> anyhow::Result<()> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| inline(cell)).collect()).collect();
        for row in &rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        print_lines(rows.iter().map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let pad = if last { 0 } else { self.widths[column].saturating_sub(cell.chars().count()) + 2 };
                line.push_str(cell);
                line.push_str(&" ".repeat(pad));
            }
            line.trim_end().to_owned()
        }))
    }
}
