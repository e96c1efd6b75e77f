//! Tables for people, with a centred title row.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use crate::style::harmless;

const STYLE: TableStyle = UTF8_FULL_CONDENSED
    .with_rounded_corners()
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'));

/// A column: header and alignment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Left-aligned, for text.
    Left(&'static str),
    /// Right-aligned, for numbers.
    Right(&'static str),
}

/// Renders a table with title and header.
pub(crate) fn titled(title: &str, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(header) | Column::Right(header) => Cell::new(header),
    }));
    for row in rows {
        table.add_row(row.iter().zip(columns).map(|(text, column)| cell(text, *column)));
    }
    with_title(title, &table)
}

/// Renders names and values with a title.
pub(crate) fn properties(title: &str, rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = plain();
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(harmless(&value))]);
    }
    with_title(title, &table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table
}

fn cell(text: &str, column: Column) -> Cell {
    let side = if matches!(column, Column::Right(_)) { CellAlignment::Right } else { CellAlignment::Left };
    Cell::new(harmless(text)).set_alignment(side)
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
        let columns = [Column::Left("ID"), Column::Left("Version"), Column::Left("Uptime"), Column::Right("Workloads")];
        let row = ["NCOBPU3MCEA7LF6XADFD4P74CHW2OL6GQZYPPRRNPDSBNQ5BJPFHHQB5", "0.0.1", "10m15s", "0"];
        let text = titled("NATS Execution Nodes", &columns, [row.map(str::to_owned).to_vec()]);
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
        let text = properties("Node", [("Version", "1".to_owned()), ("Tags", "a=b, c=d".to_owned())]);
        let expected = "\
╭────────────────────╮
│        Node        │
├─────────┬──────────┤
│ Version │ 1        │
│ Tags    │ a=b, c=d │
╰─────────┴──────────╯";
        assert_eq!(text, expected);
    }
}
