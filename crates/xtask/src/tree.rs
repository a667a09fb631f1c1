//! Reads the tree: cargo's metadata, and the text of every file that git would keep.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// All that is checked.
pub(crate) struct Tree {
    pub(crate) metadata: Metadata,
    pub(crate) files: Vec<TextFile>,
    pub(crate) manifest: String,
    pub(crate) lock: String,
}

/// A text file; its path is relative to the root.
#[derive(Clone, Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What `cargo metadata` says of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the root, as all paths here.
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` of a normal one.
    pub(crate) kind: Option<String>,
    /// Of a crate of ours.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Package {
    /// Crates of ours that it uses other than in tests.
    pub(crate) fn own_dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|used| used.path.is_some() && used.kind.as_deref() != Some("dev"))
    }
}

/// Reads everything, from whatever directory of the tree.
pub(crate) fn read() -> anyhow::Result<Tree> {
    let root = PathBuf::from(output("git", &["rev-parse", "--show-toplevel"])?.trim_end());
    std::env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))?;
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let mut metadata: Metadata =
        serde_json::from_str(&metadata).context("cannot read what cargo metadata says")?;
    for package in &mut metadata.packages {
        let targets = package.targets.iter_mut().map(|target| &mut target.src_path);
        for path in targets.chain([&mut package.manifest_path]) {
            if let Ok(relative) = path.strip_prefix(&root) {
                *path = relative.to_owned();
            }
        }
    }
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    Ok(Tree { metadata, files: text_files()?, manifest: read("Cargo.toml")?, lock: read("Cargo.lock")? })
}

/// Names of all crates that `package` uses when it is built alone, so that features of others do not count.
pub(crate) fn dependencies(package: &str) -> anyhow::Result<Vec<String>> {
    let tree = output(
        "cargo",
        &[
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ],
    )?;
    Ok(tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// Tracked files, and new ones that are not ignored.
fn text_files() -> anyhow::Result<Vec<TextFile>> {
    let list = output("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let paths = list.split('\0').filter(|path| !path.is_empty() && Path::new(path).is_file());
    // What is not UTF-8 is a picture or a recording; nothing here applies to it.
    let read = |path: &str| Some(TextFile { path: path.to_owned(), text: fs::read_to_string(path).ok()? });
    Ok(paths.filter_map(read).collect())
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}: install it with make setup"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}", arguments.join(" "), said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} did not print UTF-8"))
}
