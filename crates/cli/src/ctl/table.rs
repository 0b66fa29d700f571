//! Tables and field lists for people.

use std::borrow::Cow;
use std::io::{self, Write};

/// How a cell stands out on a terminal with colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Not at all.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Watch,
    /// Something is wrong.
    Bad,
}

impl Tone {
    /// SGR parameters (ECMA-48).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Watch => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A cell: its text is fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    right: bool,
    tone: Tone,
}

impl Cell {
    /// Text that may come from anywhere.
    pub(super) fn text(text: &str) -> Self {
        let text = if text.is_empty() { "\"\"".to_owned() } else { printable(text).into_owned() };
        Self { text, right: false, tone: Tone::Plain }
    }

    /// Text, or `-` where there is none.
    pub(super) fn maybe(text: Option<&str>) -> Self {
        match text {
            Some(text) => Self::text(text),
            None => Self { text: "-".to_owned(), right: false, tone: Tone::Plain },
        }
    }

    /// A number, aligned to the right.
    pub(super) fn number(number: &impl ToString) -> Self {
        Self { text: number.to_string(), right: true, tone: Tone::Plain }
    }

    pub(super) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// A row of a table.
pub(super) trait Row {
    /// The titles of its columns.
    const TITLES: &'static [&'static str];

    /// As many cells as there are titles.
    fn cells(&self) -> Vec<Cell>;
}

impl<T: Row> Row for &T {
    const TITLES: &'static [&'static str] = T::TITLES;

    fn cells(&self) -> Vec<Cell> {
        (*self).cells()
    }
}

/// A table that is written piece by piece. Columns are as wide as their widest cell up to here: they may grow from one
/// piece to the next, never shrink.
#[derive(Debug)]
pub(super) struct Table {
    colour: bool,
    widths: Vec<usize>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, widths: Vec::new() }
    }

    /// Writes rows, the first time with the titles above them.
    pub(super) fn write<T: Row>(&mut self, out: &mut impl Write, rows: &[T]) -> io::Result<()> {
        let rows: Vec<Vec<Cell>> = rows.iter().map(Row::cells).collect();
        let first = self.widths.is_empty();
        if first {
            self.widths = T::TITLES.iter().map(|title| width(title)).collect();
        }
        for row in &rows {
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(&cell.text));
            }
        }
        if first {
            let right =
                |column: usize| rows.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right);
            let title = |(column, title): (usize, &&str)| Cell {
                text: (*title).to_owned(),
                right: right(column),
                tone: Tone::Plain,
            };
            let titles: Vec<Cell> = T::TITLES.iter().enumerate().map(title).collect();
            self.line(out, &titles)?;
        }
        rows.iter().try_for_each(|row| self.line(out, row))
    }

    fn line(&self, out: &mut impl Write, cells: &[Cell]) -> io::Result<()> {
        let mut padding = 0;
        for (column, (cell, &widest)) in cells.iter().zip(&self.widths).enumerate() {
            let missing = widest.saturating_sub(width(&cell.text));
            let before = if cell.right { missing } else { 0 };
            let gap = if column == 0 { "" } else { GAP };
            write!(out, "{:padding$}{gap}{:before$}", "", "")?;
            match cell.tone.code().filter(|_| self.colour) {
                Some(code) => write!(out, "\u{1b}[{code}m{}\u{1b}[0m", cell.text)?,
                None => out.write_all(cell.text.as_bytes())?,
            }
            // Kept back, so that no line ends in spaces.
            padding = missing - before;
        }
        out.write_all(b"\n")
    }
}

/// Writes names and values below each other.
pub(super) fn write_fields(out: &mut impl Write, fields: &[(String, String)]) -> io::Result<()> {
    let widest = fields.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    for (name, value) in fields {
        let missing = widest - width(name);
        writeln!(out, "{name}{:missing$}{GAP}{}", "", printable(value))?;
    }
    Ok(())
}

/// Columns of a terminal, about: wide and combining characters make a crooked table and nothing worse.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text without what a terminal obeys: control characters, and those that turn the direction of writing or cannot
/// be seen, are escaped as in Rust (`\u{1b}`).
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hazard) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| -> Box<dyn Iterator<Item = char>> {
        if is_hazard(c) { Box::new(c.escape_unicode()) } else { Box::new(std::iter::once(c)) }
    };
    Cow::Owned(text.chars().flat_map(escape).collect())
}

fn is_hazard(c: char) -> bool {
    // Zero-width and bidirectional marks, line and paragraph separators, BOM, tags (Unicode 23.2 to 23.8).
    let unseen = matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, u64);

    impl Row for Named {
        const TITLES: &'static [&'static str] = &["NAME", "COUNT", "STATE"];

        fn cells(&self) -> Vec<Cell> {
            vec![Cell::text(self.0), Cell::number(&self.1), Cell::text("up").tone(Tone::Good)]
        }
    }

    fn written(colour: bool, pieces: &[&[Named]]) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(colour);
        for piece in pieces {
            table.write(&mut out, piece).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_numbers_to_the_right_and_no_line_ends_in_spaces() {
        let table = written(false, &[&[Named("räum", 7), Named("x", 12345678)]]);
        assert_eq!(table, "NAME     COUNT  STATE\nräum         7  up\nx     12345678  up\n");
        assert!(table.lines().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn titles_come_once_and_columns_never_shrink() {
        let table = written(false, &[&[Named("long-name", 1)], &[Named("x", 2)], &[]]);
        assert_eq!(table, "NAME       COUNT  STATE\nlong-name      1  up\nx              2  up\n");
        assert_eq!(written(false, &[&[]]), "NAME  COUNT  STATE\n");
    }

    #[test]
    fn colours_are_for_terminals_only_and_do_not_move_columns() {
        let coloured = written(true, &[&[Named("a", 1)]]);
        assert!(coloured.contains("\u{1b}[32mup\u{1b}[0m"), "{coloured:?}");
        let plain = coloured.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, written(false, &[&[Named("a", 1)]]));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(printable("\u{202e}evil\u{9b}31m"), "\\u{202e}evil\\u{9b}31m");
        assert_eq!(printable("räum/車+#"), "räum/車+#");
        assert_eq!(Cell::text(""), Cell::text("\"\""));
    }

    #[test]
    fn fields_stand_below_each_other() {
        let mut out = Vec::new();
        let fields = [("a".to_owned(), "1".to_owned()), ("long".to_owned(), "\u{7}".to_owned())];
        write_fields(&mut out, &fields).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     1\nlong  \\u{7}\n");
    }
}
