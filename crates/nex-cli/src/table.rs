//! Tables for people, with a centred title row, that fit the terminal.

use std::borrow::Cow;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::style::harmless;

const STYLE: TableStyle = UTF8_FULL_CONDENSED
    .with_rounded_corners()
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'));

/// What a column gives up where the terminal is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrow {
    /// Nothing, unless there is no other way.
    Keep,
    /// The middle of its texts.
    Shorten,
    /// All of it.
    Hide,
}

/// A column: header, alignment, and what it gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    header: &'static str,
    is_right: bool,
    narrow: Narrow,
}

impl Column {
    /// Left-aligned, for text that may be shortened.
    pub(crate) const fn left(header: &'static str) -> Self {
        Self { header, is_right: false, narrow: Narrow::Shorten }
    }

    /// Right-aligned, for numbers, which are kept whole.
    pub(crate) const fn right(header: &'static str) -> Self {
        Self { header, is_right: true, narrow: Narrow::Keep }
    }

    /// Kept whole: an id, or a word of few letters.
    pub(crate) const fn whole(self) -> Self {
        Self { narrow: Narrow::Keep, ..self }
    }

    /// Left out where there is no room; the last such column first.
    pub(crate) const fn optional(self) -> Self {
        Self { narrow: Narrow::Hide, ..self }
    }
}

/// A table that is rendered as wide as the terminal lets it be.
#[derive(Debug)]
pub(crate) struct Grid {
    title: String,
    /// None: the rows are names with their values.
    columns: Option<Vec<Column>>,
    rows: Vec<Vec<String>>,
}

/// A table with title and header.
pub(crate) fn titled(title: &str, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Grid {
    let rows = rows.into_iter().map(|row| row.iter().map(|text| harmless(text).into_owned()).collect()).collect();
    Grid { title: title.to_owned(), columns: Some(columns.to_vec()), rows }
}

/// Names and values with a title.
pub(crate) fn properties(title: &str, rows: impl IntoIterator<Item = (&'static str, String)>) -> Grid {
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), harmless(&value).into_owned()]).collect();
    Grid { title: title.to_owned(), columns: None, rows }
}

impl Grid {
    /// Renders it in so many columns at most, if that is said and can be.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let mut table = Table::new();
        table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        let Some(columns) = &self.columns else {
            if let Some(width) = width.and_then(|width| u16::try_from(width).ok()) {
                // Values are wrapped, not shortened: somebody wants to read them.
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            table.add_rows(self.rows.iter().map(|row| row.iter().map(Cell::new).collect::<Vec<_>>()));
            return with_title(&self.title, &table);
        };
        let widths = fit(columns, &self.rows, width);
        let shown = |at: &usize| widths.get(*at).is_some_and(|width| *width > 0);
        let cells = |texts: &mut dyn Iterator<Item = &str>| {
            let all = texts.zip(columns).zip(&widths).enumerate().filter(|(at, _)| shown(at));
            all.map(|(_, ((text, column), width))| cell(&shortened(text, *width), *column)).collect::<Vec<_>>()
        };
        table.set_header(cells(&mut columns.iter().map(|column| column.header)));
        for row in &self.rows {
            table.add_row(cells(&mut row.iter().map(String::as_str)));
        }
        with_title(&self.title, &table)
    }
}

/// Shortest text that a column is shortened to before others are left out.
const READABLE: usize = 10;
/// Shortest of all: one letter on each side of the ellipsis.
const MIN: usize = 3;

/// The width of each column's texts, 0 for one that is left out.
fn fit(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let natural = |(at, column): (usize, &Column)| {
        let texts = rows.iter().filter_map(|row| row.get(at)).map(|text| text.width());
        texts.chain([column.header.width()]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = columns.iter().enumerate().map(natural).collect();
    let Some(width) = width else { return widths };
    let least = |(width, column): (&usize, &Column)| match column.narrow {
        Narrow::Shorten => (*width).min(READABLE),
        Narrow::Keep | Narrow::Hide => *width,
    };
    while total(widths.iter().zip(columns).map(least)) > width {
        let optional = |(width, column): &(&mut usize, &Column)| **width > 0 && column.narrow == Narrow::Hide;
        let Some((hidden, _)) = widths.iter_mut().zip(columns).rev().find(optional) else { break };
        *hidden = 0;
    }
    for kinds in [&[Narrow::Shorten][..], &[Narrow::Shorten, Narrow::Keep, Narrow::Hide]] {
        while total(widths.iter().copied()) > width {
            let may_shrink = |(width, column): &(&mut usize, &Column)| **width > MIN && kinds.contains(&column.narrow);
            let candidates = widths.iter_mut().zip(columns).filter(may_shrink);
            let Some((widest, _)) = candidates.max_by_key(|(width, _)| **width) else { break };
            *widest -= 1;
        }
    }
    widths
}

/// Width of a table: each column has a blank on both sides and a border on its left, and the last border closes the row.
fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.filter(|width| *width > 0).map(|width| width + 3).sum::<usize>() + 1
}

/// The text in so many columns, its middle left out where it is longer: the end of an id or of a subject says as much as its beginning.
fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let room = width.saturating_sub(1);
    let head = taken(text.chars(), room - room / 2);
    let tail: String = taken(text.chars().rev(), room / 2).chars().rev().collect();
    Cow::Owned(format!("{head}…{tail}"))
}

fn taken(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

fn cell(text: &str, column: Column) -> Cell {
    Cell::new(text).set_alignment(if column.is_right { CellAlignment::Right } else { CellAlignment::Left })
}

/// Adds a title row. Border characters are one column wide, so the first line has the width.
fn with_title(title: &str, table: &Table) -> String {
    let mut lines: Vec<String> = table.lines().collect();
    let inner = lines.first().map_or(0, |line| line.chars().count().saturating_sub(2));
    let missing = inner.saturating_sub(title.chars().count());
    let (left, right) = (missing - missing / 2, missing / 2);
    if let Some(first) = lines.first_mut() {
        *first = first.replace('╭', "├").replace('╮', "┤");
    }
    let rule = "─".repeat(inner);
    format!("╭{rule}╮\n│{}{title}{}│\n{}", " ".repeat(left), " ".repeat(right), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_layout_of_0_2_7() {
        let columns = [Column::left("ID"), Column::left("Version"), Column::left("Uptime"), Column::right("Workloads")];
        let row = ["NCOBPU3MCEA7LF6XADFD4P74CHW2OL6GQZYPPRRNPDSBNQ5BJPFHHQB5", "0.0.1", "10m15s", "0"];
        let text = titled("NATS Execution Nodes", &columns, [row.map(str::to_owned).to_vec()]).render(None);
        let expected = "\
╭─────────────────────────────────────────────────────────────────────────────────────────╮
│                                   NATS Execution Nodes                                  │
├──────────────────────────────────────────────────────────┬─────────┬────────┬───────────┤
│ ID                                                       │ Version │ Uptime │ Workloads │
├──────────────────────────────────────────────────────────┼─────────┼────────┼───────────┤
│ NCOBPU3MCEA7LF6XADFD4P74CHW2OL6GQZYPPRRNPDSBNQ5BJPFHHQB5 │ 0.0.1   │ 10m15s │         0 │
╰──────────────────────────────────────────────────────────┴─────────┴────────┴───────────╯";
        assert_eq!(text, expected);
    }

    #[test]
    fn properties_need_no_header() {
        let text = properties("Node", [("Version", "1".to_owned()), ("Tags", "a=b, c=d".to_owned())]).render(None);
        let expected = "\
╭────────────────────╮
│        Node        │
├─────────┬──────────┤
│ Version │ 1        │
│ Tags    │ a=b, c=d │
╰─────────┴──────────╯";
        assert_eq!(text, expected);
    }

    fn workloads(width: usize) -> String {
        let columns = [
            Column::left("ID").whole(),
            Column::left("Name"),
            Column::left("State").whole(),
            Column::right("Restarts").optional(),
            Column::left("Triggers"),
        ];
        let row = ["dc1dr6bcav1k2c2pmt5g", "a-name-of-some-length", "running", "12", "orders.created.europe.west"];
        titled("Workloads", &columns, [row.map(str::to_owned).to_vec()]).render(Some(width))
    }

    #[test]
    fn texts_lose_their_middle_before_columns_are_left_out_and_ids_stay_whole() {
        let wide = workloads(200);
        assert!(wide.contains("orders.created.europe.west") && wide.contains("Restarts"));
        let narrower = workloads(80);
        assert!(
            narrower.contains("dc1dr6bcav1k2c2pmt5g") && narrower.contains("Restarts") && narrower.contains("…"),
            "{narrower}"
        );
        let narrow = workloads(64);
        assert!(
            narrow.contains("dc1dr6bcav1k2c2pmt5g") && !narrow.contains("Restarts") && narrow.contains("running"),
            "{narrow}"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 40..220 {
            let text = workloads(width);
            let widest = text.lines().map(str::width).max();
            assert!(widest <= Some(width), "{width}:\n{text}");
            let value = "tag=value, ".repeat(20);
            let text = properties("Node", [("Tags", value), ("ID", "N".repeat(56))]).render(Some(width));
            let widest = text.lines().map(str::width).max();
            assert!(widest <= Some(width), "{width}:\n{text}");
        }
        assert_eq!(shortened("🟢🟢🟢🟢", 5), "🟢…🟢");
        assert_eq!(shortened("abc", 0), "…");
    }
}
