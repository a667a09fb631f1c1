//! Lists and objects on standard output, in the form that was asked for.
//!
//! A kind has one list of [`Column`]s. The table shows the first of them, `wide` all; `--columns` and `--sort` go by
//! their titles; CSV has all. JSON has the whole object, so that it holds whatever a table shows.

use crate::failure::Failure;
use serde::Serialize;
use std::{cmp::Ordering, io::Write};

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, all of them.
    Wide,
    /// Names alone, one on each line.
    Name,
    /// One JSON document.
    Json,
    /// One JSON document on each line.
    Jsonl,
    /// Comma-separated values with a heading (RFC 4180).
    Csv,
}

/// How a list is printed, as flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// Leaves the headings out.
    #[arg(long)]
    pub no_headers: bool,
    /// Columns to show, by title, with commas between.
    #[arg(long, value_delimiter = ',', value_name = "TITLES")]
    pub columns: Vec<String>,
    /// Column to sort by; a dash before it turns the order round.
    #[arg(long, value_name = "TITLE", allow_hyphen_values = true)]
    pub sort: Option<String>,
}

/// One column of a kind.
pub struct Column<T> {
    title: &'static str,
    wide: bool,
    value: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of every table.
    pub const fn new(title: &'static str, value: fn(&T) -> String) -> Self {
        Self { title, wide: false, value }
    }

    /// A column of wide tables.
    pub const fn wide(title: &'static str, value: fn(&T) -> String) -> Self {
        Self { title, wide: true, value }
    }
}

/// What one kind looks like.
pub struct View<T> {
    /// All columns.
    pub columns: Vec<Column<T>>,
    /// What `-o name` prints.
    pub name: fn(&T) -> String,
}

impl<T: Serialize> View<T> {
    /// Prints a list.
    pub fn list(&self, out: &mut dyn Write, args: &OutputArgs, mut rows: Vec<T>) -> Result<(), Failure> {
        let shown = self.shown(args)?;
        if let Some(title) = &args.sort {
            self.sort(&mut rows, title)?;
        }
        match args.output {
            Format::Json => writeln!(out, "{}", pretty(&rows))?,
            Format::Jsonl => rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?,
            Format::Name => rows.iter().try_for_each(|row| writeln!(out, "{}", (self.name)(row)))?,
            Format::Csv => csv(out, args, &shown, &rows)?,
            Format::Table | Format::Wide => table(out, args, &shown, &rows)?,
        }
        Ok(())
    }

    /// Prints one object: a line for each column, or as a list of one.
    pub fn show(&self, out: &mut dyn Write, args: &OutputArgs, row: T) -> Result<(), Failure> {
        match args.output {
            Format::Json => writeln!(out, "{}", pretty(&row))?,
            Format::Table | Format::Wide if args.columns.is_empty() => {
                let width = self.columns.iter().map(|column| column.title.len()).max().unwrap_or_default();
                for column in &self.columns {
                    writeln!(
                        out,
                        "{:width$}  {}",
                        column.title.to_lowercase(),
                        clean(&blank((column.value)(&row)))
                    )?;
                }
            }
            _ => self.list(out, args, vec![row])?,
        }
        Ok(())
    }

    fn shown(&self, args: &OutputArgs) -> Result<Vec<&Column<T>>, Failure> {
        if args.columns.is_empty() {
            let all = !matches!(args.output, Format::Table);
            return Ok(self.columns.iter().filter(|column| all || !column.wide).collect());
        }
        args.columns.iter().map(|title| self.column(title)).collect()
    }

    fn column(&self, title: &str) -> Result<&Column<T>, Failure> {
        let found = self.columns.iter().find(|column| column.title.eq_ignore_ascii_case(title.trim()));
        found.ok_or_else(|| {
            let titles: Vec<_> = self.columns.iter().map(|column| column.title).collect();
            Failure::usage(format!("there is no column \"{title}\""), format!("use {}", titles.join(", ")))
        })
    }

    fn sort(&self, rows: &mut [T], title: &str) -> Result<(), Failure> {
        let (title, turn) = title.strip_prefix('-').map_or((title, false), |title| (title, true));
        let column = self.column(title)?;
        rows.sort_by(|a, b| {
            let order = natural(&(column.value)(a), &(column.value)(b));
            if turn { order.reverse() } else { order }
        });
        Ok(())
    }
}

fn csv<T>(out: &mut dyn Write, args: &OutputArgs, shown: &[&Column<T>], rows: &[T]) -> Result<(), Failure> {
    let record = |cells: Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
    if !args.no_headers {
        writeln!(out, "{}", record(shown.iter().map(|column| column.title.to_lowercase()).collect()))?;
    }
    for row in rows {
        writeln!(out, "{}", record(shown.iter().map(|column| (column.value)(row)).collect()))?;
    }
    Ok(())
}

fn table<T>(out: &mut dyn Write, args: &OutputArgs, shown: &[&Column<T>], rows: &[T]) -> Result<(), Failure> {
    let mut lines = Vec::new();
    if !args.no_headers {
        lines.push(shown.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>());
    }
    lines.extend(rows.iter().map(|row| shown.iter().map(|column| blank((column.value)(row))).collect()));
    aligned(out, &lines)?;
    Ok(())
}

/// `text` with `?` for control characters, which could move the cursor: names come from whoever deploys.
pub fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "?")
}

/// Writes lines of cells, each column as wide as its widest cell, each cell [`clean`].
pub fn aligned(out: &mut dyn Write, lines: &[Vec<String>]) -> std::io::Result<()> {
    let lines: Vec<Vec<String>> =
        lines.iter().map(|line| line.iter().map(|cell| clean(cell)).collect()).collect();
    let count = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |index| {
        lines
            .iter()
            .filter_map(|line: &Vec<String>| line.get(index))
            .map(|cell: &String| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..count).map(|index| width(index).unwrap_or_default()).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| {
            let space = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(space))
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// `value` as JSON over several lines.
pub fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("documents of the API are always JSON")
}

/// `value` as JSON on one line.
pub fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("documents of the API are always JSON")
}

fn blank(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// RFC 4180 section 2: a field with commas, quotes or line breaks is quoted, a quote in it doubled.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Numbers by value, all else by text.
fn natural(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize)]
    struct Row {
        name: &'static str,
        count: u64,
        note: &'static str,
    }

    fn view() -> View<Row> {
        View {
            columns: vec![
                Column::new("NAME", |row: &Row| row.name.to_owned()),
                Column::new("COUNT", |row| row.count.to_string()),
                Column::wide("NOTE", |row| row.note.to_owned()),
            ],
            name: |row| row.name.to_owned(),
        }
    }

    fn print(args: &OutputArgs) -> String {
        let rows = vec![
            Row { name: "web", count: 10, note: "a, \"b\"" },
            Row { name: "größer", count: 9, note: "" },
            Row { name: "x\u{1b}[2J", count: 100, note: "c" },
        ];
        let mut out = Vec::new();
        view().list(&mut out, args, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn args(output: Format) -> OutputArgs {
        OutputArgs { output, ..OutputArgs::default() }
    }

    #[test]
    fn tables_align_and_show_no_control_characters() {
        assert_eq!(print(&args(Format::Table)), "NAME    COUNT\nweb     10\ngrößer  9\nx?[2J   100\n");
        let bare = OutputArgs { no_headers: true, columns: vec!["count".into()], ..OutputArgs::default() };
        assert_eq!(print(&bare), "10\n9\n100\n");
        assert!(
            print(&args(Format::Wide))
                .starts_with("NAME    COUNT  NOTE\nweb     10     a, \"b\"\ngrößer  9      -\n")
        );
    }

    #[test]
    fn machines_get_what_people_get() {
        assert_eq!(print(&args(Format::Csv)).lines().nth(1), Some("web,10,\"a, \"\"b\"\"\""));
        assert_eq!(print(&args(Format::Name)).lines().next(), Some("web"));
        assert_eq!(
            print(&args(Format::Jsonl)).lines().next(),
            Some(r#"{"name":"web","count":10,"note":"a, \"b\""}"#)
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&print(&args(Format::Json))).unwrap()[1]["count"],
            9
        );
    }

    #[test]
    fn sorting_goes_by_number_where_there_are_numbers() {
        let sorted = |title: &str| {
            let args = OutputArgs {
                sort: Some(title.into()),
                columns: vec!["COUNT".into()],
                no_headers: true,
                ..args(Format::Table)
            };
            print(&args)
        };
        assert_eq!(sorted("count"), "9\n10\n100\n");
        assert_eq!(sorted("-Count"), "100\n10\n9\n");
    }

    #[test]
    fn an_unknown_column_is_refused_with_those_that_exist() {
        let args = OutputArgs { columns: vec!["nam".into()], ..OutputArgs::default() };
        let failure = view().list(&mut Vec::new(), &args, Vec::new()).unwrap_err();
        assert_eq!(failure.render(), "error: there is no column \"nam\"\n  help: use NAME, COUNT, NOTE\n");
    }

    #[test]
    fn one_object_is_shown_line_by_line() {
        let mut out = Vec::new();
        view().show(&mut out, &OutputArgs::default(), Row { name: "web", count: 1, note: "" }).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name   web\ncount  1\nnote   -\n");
    }
}
