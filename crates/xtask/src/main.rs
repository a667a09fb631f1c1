//! Checks of the tree that lints cannot make: `cargo xtask tidy`.
//!
//! Each check is a function from text to faults; this file reads the tree and prints what they find. Who adds a crate
//! gives it a row in [`edges`].
#![forbid(unsafe_code)]

mod edges;
mod files;
mod manifests;
mod tree;

use anyhow::bail;
use std::process::ExitCode;

/// Something that is not as it should be: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    place: String,
    what: String,
}

impl Fault {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        Some("crates") => crates(),
        other => bail!("unknown task {other:?}: write `cargo xtask tidy` or `cargo xtask crates`"),
    }
}

/// Checks the tree and prints all faults.
fn tidy() -> anyhow::Result<ExitCode> {
    let tree = tree::read()?;
    let mut faults = edges::check(&tree.metadata);
    faults.extend(edges::check_forbidden(tree::dependencies)?);
    faults.extend(manifests::check(&tree));
    faults.extend(tree.files.iter().flat_map(files::check));
    faults.extend(files::check_modules(&tree.files));
    faults.extend(files::check_error_pages(&tree.files));
    faults.extend(files::check_fuzz_targets(&tree.files));
    faults.sort();
    for fault in &faults {
        eprintln!("{}: {}", fault.place, fault.what);
    }
    println!(
        "tidy: {} files and {} crates, {} faults",
        tree.files.len(),
        tree.metadata.packages.len(),
        faults.len()
    );
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints who uses whom, for people.
fn crates() -> anyhow::Result<ExitCode> {
    for package in tree::read()?.metadata.packages {
        let uses: Vec<_> = package.own_dependencies().map(|dependency| dependency.name.as_str()).collect();
        println!("{} -> {}", package.name, uses.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
