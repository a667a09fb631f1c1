//! What every crate's manifest and root must have, and how many dependencies there may be.

use crate::{
    Fault,
    tree::{Package, TextFile, Tree},
};
use std::path::Path;

/// Lines of `[workspace.dependencies]` that name others' crates.
const NAMED_MAX: usize = 80;
/// Packages in the lock file, all platforms in.
const LOCKED_MAX: usize = 500;
/// Crates that the BPF workspace reads too, whose manifests therefore inherit nothing from this one.
const SELF_CONTAINED: [&str; 1] = ["isthmus-dataplane-common"];
/// Crates that may use `unsafe`.
const UNSAFE_CRATES: [&str; 3] = ["isthmus-dataplane", "isthmus-dataplane-common", "isthmus-ebpf"];
/// Crates that may use `unsafe` in their module `sys`, and nowhere else.
const UNSAFE_IN_SYS: [&str; 1] = ["isthmus-speaker"];

/// Checks all manifests and crate roots.
pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = check_counts(&tree.manifest, &tree.lock);
    for package in &tree.metadata.packages {
        let manifest = tree.files.iter().find(|file| package.manifest_path == Path::new(&file.path));
        if let Some(manifest) = manifest.filter(|_| !SELF_CONTAINED.contains(&package.name.as_str())) {
            faults.extend(check_lints(manifest));
        }
        faults.extend(check_unsafe(package, &tree.files));
    }
    faults
}

/// The workspace's lints hold for every crate.
fn check_lints(manifest: &TextFile) -> Option<Fault> {
    let inherited = manifest.text.split("[lints]").nth(1).is_some_and(|rest| {
        rest.lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with('['))
            .any(|line| line == "workspace = true")
    });
    let what = "does not inherit the workspace's lints: add [lints] workspace = true";
    (!inherited).then(|| Fault::new(&manifest.path, what))
}

/// Every crate root forbids unsafe code, but those that need it.
fn check_unsafe(package: &Package, files: &[TextFile]) -> Vec<Fault> {
    if UNSAFE_CRATES.contains(&package.name.as_str()) {
        return Vec::new();
    }
    let roots =
        package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "lib" || kind == "bin"));
    let roots = roots.filter_map(|target| files.iter().find(|file| target.src_path == Path::new(&file.path)));
    if UNSAFE_IN_SYS.contains(&package.name.as_str()) {
        let open = roots.filter(|root| !root.text.contains("#![deny(unsafe_code)]"));
        let open =
            open.map(|root| Fault::new(&root.path, "does not deny unsafe code: add #![deny(unsafe_code)]"));
        return open.chain(check_unsafe_in_sys(package, files)).collect();
    }
    let open = roots.filter(|root| !root.text.contains("#![forbid(unsafe_code)]"));
    open.map(|root| Fault::new(&root.path, "does not forbid unsafe code: add #![forbid(unsafe_code)]"))
        .collect()
}

/// The module `sys` alone has unsafe code.
fn check_unsafe_in_sys<'a>(
    package: &Package,
    files: &'a [TextFile],
) -> impl Iterator<Item = Fault> + use<'a> {
    let src = package.manifest_path.with_file_name("src");
    let sys = src.join("sys");
    let others = files.iter().filter(move |file| {
        let path = Path::new(&file.path).with_extension("");
        path.starts_with(&src) && !path.starts_with(&sys)
    });
    let open = others
        .filter(|file| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| file.text.contains(word)));
    open.map(|file| Fault::new(&file.path, "has unsafe code: only the module sys of this crate may"))
}

fn check_counts(manifest: &str, lock: &str) -> Vec<Fault> {
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    let named = lines
        .filter(|line| line.contains(" = ") && !line.starts_with("isthmus") && !line.starts_with('#'))
        .count();
    let locked = lock.lines().filter(|line| *line == "[[package]]").count();
    let mut faults = Vec::new();
    if named > NAMED_MAX {
        faults.push(Fault::new(
            "Cargo.toml",
            format!("names {named} dependencies, at most {NAMED_MAX} are allowed"),
        ));
    }
    if locked > LOCKED_MAX {
        faults.push(Fault::new(
            "Cargo.lock",
            format!("locks {locked} packages, at most {LOCKED_MAX} are allowed"),
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Target;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn lints_that_are_not_inherited_are_found() {
        assert!(check_lints(&file("a", "[package]\n[lints]\nworkspace = true\n")).is_none());
        assert!(check_lints(&file("a", "[package]\nversion.workspace = true\n")).is_some());
        assert!(check_lints(&file("a", "[lints]\n[dependencies]\nworkspace = true\n")).is_some());
    }

    #[test]
    fn a_root_that_allows_unsafe_code_is_found() {
        let target = Target { kind: vec!["lib".to_owned()], src_path: "crates/x/src/lib.rs".into() };
        let mut package = Package {
            name: "isthmus-x".to_owned(),
            manifest_path: "crates/x/Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: vec![target],
        };
        let open = [file("crates/x/src/lib.rs", "//! X\n")];
        assert_eq!(check_unsafe(&package, &open).len(), 1);
        assert!(check_unsafe(&package, &[file("crates/x/src/lib.rs", "#![forbid(unsafe_code)]")]).is_empty());
        package.name = "isthmus-dataplane".to_owned();
        assert!(check_unsafe(&package, &open).is_empty());
    }

    #[test]
    fn unsafe_code_outside_of_its_module_is_found() {
        let target = Target { kind: vec!["lib".to_owned()], src_path: "crates/speaker/src/lib.rs".into() };
        let package = Package {
            name: "isthmus-speaker".to_owned(),
            manifest_path: "crates/speaker/Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: vec![target],
        };
        // Not in one piece: this file would be found.
        let block = ["unsafe", " {}"].concat();
        let faults = |root: &str, sys: &str, other: &str| {
            let files = [
                file("crates/speaker/src/lib.rs", root),
                file("crates/speaker/src/sys.rs", sys),
                file("crates/speaker/src/other.rs", other),
                file("crates/else/src/other.rs", &block),
            ];
            check_unsafe(&package, &files).into_iter().map(|fault| fault.place).collect::<Vec<_>>()
        };
        let deny = "#![deny(unsafe_code)]";
        assert!(faults(deny, &block, "").is_empty());
        assert_eq!(faults("", &block, ""), ["crates/speaker/src/lib.rs"]);
        assert_eq!(faults(deny, "", &block), ["crates/speaker/src/other.rs"]);
    }

    #[test]
    fn too_many_dependencies_are_found() {
        let manifest = |n: usize| {
            let lines = "a = \"1\"\n".repeat(n);
            format!(
                "[workspace.dependencies]\nisthmus-core = {{ path = \"x\" }}\n# b = c\n{lines}\n[profile.dev]\nx = 1\n"
            )
        };
        assert!(check_counts(&manifest(NAMED_MAX), "").is_empty());
        assert_eq!(check_counts(&manifest(NAMED_MAX + 1), "").len(), 1);
        assert_eq!(check_counts("", &"[[package]]\n".repeat(LOCKED_MAX + 1)).len(), 1);
    }
}
