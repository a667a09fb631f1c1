//! What holds for single files, and for files as modules.

use crate::{Fault, tree::TextFile};
use std::{collections::BTreeSet, path::Path};

/// Lines of a source file.
const LINES_MAX: usize = 1_500;
/// Lines of ARCHITECTURE.md, which is to be read in one go.
const ARCHITECTURE_LINES_MAX: usize = 299;
/// Places that exist on one machine alone. Written in two parts, because this file is checked too.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wor", "k/"), concat!("/root/", "."), concat!("/home/", "user"), concat!("/tmp/", "bash_jobs")];
/// Registries other than the public one. Packages come from crates.io; a mirror is each machine's own affair.
const REGISTRIES: [&str; 4] = [
    concat!("replace", "-with"),
    concat!("sparse+", "http"),
    concat!("artifact", "ory"),
    concat!("goproxy", "."),
];

/// Checks one file.
pub(crate) fn check(file: &TextFile) -> Vec<Fault> {
    let lines = file.text.lines().count();
    let mut faults = Vec::new();
    let is_source = has_extension(&file.path, "rs");
    if is_source && lines > LINES_MAX {
        faults.push(Fault::new(
            &file.path,
            format!("has {lines} lines, at most {LINES_MAX} are allowed: split it"),
        ));
    }
    if file.path == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES_MAX {
        let what = format!("has {lines} lines, at most {ARCHITECTURE_LINES_MAX} are allowed: say less");
        faults.push(Fault::new(&file.path, what));
    }
    if is_source && file.path.ends_with("/mod.rs") {
        faults.push(Fault::new(&file.path, "is a mod.rs: put x.rs beside x/"));
    }
    for (number, line) in file.text.lines().enumerate() {
        let place = || format!("{}:{}", file.path, number + 1);
        faults.extend(check_line(line, is_source).map(|what| Fault::new(place(), what)));
    }
    faults
}

/// What is wrong with a line.
fn check_line(line: &str, is_source: bool) -> Option<String> {
    let forbidden = MACHINE_PATHS.iter().chain(&REGISTRIES).find(|text| line.contains(**text));
    if let Some(text) = forbidden {
        return Some(format!("names \"{text}\", which is right on one machine only"));
    }
    if is_source && line.trim_start().starts_with(concat!("fn te", "st_")) {
        return Some("is a test named after itself: name the behaviour, without test_".to_owned());
    }
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let without_issue = |word: &&str| {
        let rest = line.split(*word).nth(1);
        rest.is_some_and(|rest| !rest.starts_with("(#") && !rest.starts_with(char::is_alphanumeric))
    };
    let word = words.iter().find(|word| is_source && without_issue(word))?;
    Some(format!("has a {word} without an issue: write {word}(#12), or do it"))
}

/// Finds files that no module declares: the compiler never sees them.
pub(crate) fn check_modules(files: &[TextFile]) -> Vec<Fault> {
    let sources: Vec<_> = files.iter().filter(|file| has_extension(&file.path, "rs")).collect();
    let declared = |path: &str, module: &str| {
        let file = sources.iter().find(|file| file.path == path);
        file.is_some_and(|file| declares(&file.text, module))
    };
    let mut faults = Vec::new();
    for file in &sources {
        let path = Path::new(&file.path);
        let (Some(directory), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str()))
        else {
            continue;
        };
        if is_root(path) {
            continue;
        }
        let directory = directory.display().to_string();
        let parents =
            [format!("{directory}.rs"), format!("{directory}/lib.rs"), format!("{directory}/main.rs")];
        let among_tests = directory.contains("/tests/")
            && sources.iter().any(|root| {
                is_root(Path::new(&root.path)) && declares(&root.text, directory_name(&directory))
            });
        if !parents.iter().any(|parent| declared(parent, stem)) && !among_tests {
            faults.push(Fault::new(&file.path, "is declared by no module: declare it or delete it"));
        }
    }
    faults
}

/// Files that cargo finds by itself: roots of crates, programs, tests, benches and build scripts.
fn is_root(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "lib.rs" | "main.rs" | "build.rs")
        || matches!(parent, "tests" | "benches" | "examples" | "bin" | "fuzz_targets")
}

fn directory_name(directory: &str) -> &str {
    directory.rsplit('/').next().unwrap_or(directory)
}

fn declares(text: &str, module: &str) -> bool {
    let names = |line: &str| {
        let line = line.trim().trim_end_matches([';', '{', ' ']);
        line.rsplit_once("mod ").is_some_and(|(before, name)| {
            name == module
                && (before.is_empty()
                    || before.trim_end().ends_with("pub")
                    || before.trim_end().ends_with(')'))
        })
    };
    text.lines().any(names)
}

/// Finds error codes without a page for `isthmus help`.
pub(crate) fn check_error_pages(files: &[TextFile]) -> Vec<Fault> {
    let pages: BTreeSet<&str> =
        files.iter().filter_map(|file| file.path.strip_prefix("docs/errors/")?.strip_suffix(".md")).collect();
    let mut faults = BTreeSet::new();
    // Tests may make codes up.
    let is_program = |path: &str| {
        has_extension(path, "rs") && !path.contains("/tests") && !path.starts_with("crates/xtask/")
    };
    for file in files.iter().filter(|file| is_program(&file.path)) {
        for code in error_codes(&file.text).filter(|code| !pages.contains(code)) {
            faults.insert(Fault::new(
                &file.path,
                format!("names {code}, which has no page: write docs/errors/{code}.md"),
            ));
        }
    }
    faults.into_iter().collect()
}

/// Finds fuzz targets that cargo does not build, since it looks for none by itself, and those nobody is told of.
pub(crate) fn check_fuzz_targets(files: &[TextFile]) -> Vec<Fault> {
    let says =
        |path: &str, text: &str| files.iter().any(|file| file.path == path && file.text.contains(text));
    let mut faults = Vec::new();
    for file in files {
        let name = file.path.strip_prefix("fuzz/fuzz_targets/").and_then(|name| name.strip_suffix(".rs"));
        let Some(name) = name else { continue };
        if !says("fuzz/Cargo.toml", &format!("path = \"fuzz_targets/{name}.rs\"")) {
            faults.push(Fault::new(&file.path, "is built by nobody: add a [[bin]] to fuzz/Cargo.toml"));
        }
        if !says("fuzz/README.md", &format!("| `{name}` |")) {
            faults.push(Fault::new(&file.path, "is told nobody: add a line to the table in fuzz/README.md"));
        }
    }
    faults
}

/// Codes such as ISE-0102 in a text.
fn error_codes(text: &str) -> impl Iterator<Item = &str> {
    // The last one stands for a code that does not exist, in tests.
    let is_code = |code: &&str| {
        *code != "ISE-9999" && code.len() == 8 && code.bytes().skip(4).all(|byte| byte.is_ascii_digit())
    };
    text.match_indices("ISE-").filter_map(|(at, _)| text.get(at..at + 8)).filter(is_code)
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn faults(path: &str, text: &str) -> usize {
        check(&file(path, text)).len()
    }

    #[test]
    fn long_files_and_mod_rs_are_found() {
        assert_eq!(faults("crates/x/src/a.rs", &"x\n".repeat(LINES_MAX)), 0);
        assert_eq!(faults("crates/x/src/a.rs", &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(faults("data.json", &"x\n".repeat(LINES_MAX + 1)), 0);
        assert_eq!(faults("ARCHITECTURE.md", &"x\n".repeat(300)), 1);
        assert_eq!(faults("crates/x/src/a/mod.rs", ""), 1);
    }

    #[test]
    fn work_that_was_left_needs_an_issue() {
        let word = concat!("TO", "DO");
        assert_eq!(faults("a.rs", &format!("// {word}: later")), 1);
        assert_eq!(faults("a.rs", &format!("//! {word}")), 1);
        assert_eq!(faults("a.rs", &format!("// {word}(#12): later")), 0);
        assert_eq!(faults("a.md", &format!("{word}: later")), 0);
    }

    #[test]
    fn a_test_that_is_called_test_is_found() {
        assert_eq!(faults("a.rs", concat!("    fn te", "st_release() {")), 1);
        assert_eq!(faults("a.rs", "    fn release_of_last_address_returns_block() {"), 0);
    }

    #[test]
    fn places_of_one_machine_are_found() {
        assert_eq!(faults("README.md", &format!("see {}shared", MACHINE_PATHS[0])), 1);
        assert_eq!(faults(".cargo/config.toml", &format!("{} = \"mirror\"", REGISTRIES[0])), 1);
        assert_eq!(faults("README.md", "see /var/lib/isthmus"), 0);
    }

    #[test]
    fn files_that_no_module_declares_are_found() {
        let files = [
            file("crates/x/src/lib.rs", "pub mod a;\n#[cfg(test)]\nmod tests;\n// mod ghost\n"),
            file("crates/x/src/a.rs", "    pub(crate) mod b;"),
            file("crates/x/src/a/b.rs", ""),
            file("crates/x/src/tests.rs", ""),
            file("crates/x/src/dead.rs", ""),
            file("crates/x/src/a/dead.rs", ""),
            file("crates/x/tests/outside.rs", "mod common;"),
            file("crates/x/tests/common.rs", ""),
            file("crates/x/build.rs", ""),
        ];
        let found: Vec<_> = check_modules(&files).into_iter().map(|fault| fault.place).collect();
        assert_eq!(found, ["crates/x/src/dead.rs", "crates/x/src/a/dead.rs"]);
    }

    #[test]
    fn an_error_code_without_a_page_is_found() {
        let files = [
            file("crates/x/src/lib.rs", "\"ISE-0102\" and ISE-0103, not ISE-nnnn or ISE-01"),
            file("crates/x/tests/a.rs", "ISE-0104"),
            file("crates/x/src/a/tests.rs", "ISE-0105"),
            file("docs/errors/ISE-0102.md", ""),
        ];
        let found = check_error_pages(&files);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("ISE-0103"));
    }

    #[test]
    fn a_fuzz_target_that_nobody_builds_or_tells_of_is_found() {
        let files = [
            file("fuzz/Cargo.toml", "path = \"fuzz_targets/built.rs\"\npath = \"fuzz_targets/both.rs\""),
            file("fuzz/README.md", "| `told` | a |\n| `both` | b |"),
            file("fuzz/fuzz_targets/built.rs", ""),
            file("fuzz/fuzz_targets/told.rs", ""),
            file("fuzz/fuzz_targets/both.rs", ""),
        ];
        let found: Vec<_> = check_fuzz_targets(&files).into_iter().map(|fault| fault.place).collect();
        assert_eq!(found, ["fuzz/fuzz_targets/built.rs", "fuzz/fuzz_targets/told.rs"]);
    }
}
