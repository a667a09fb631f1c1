//! Tables without lines, as the rest of the CLI prints them.

use comfy_table::{Table, presets};

/// An empty table with these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    table
}
