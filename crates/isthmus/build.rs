//! Embeds `docs/errors/ISE-nnnn.md`, so that `isthmus help ISE-nnnn` works without a network.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../docs/errors");
    println!("cargo:rerun-if-changed={}", directory.display());
    let mut pages = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let code = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if code.starts_with("ISE-") && path.extension().is_some_and(|extension| extension == "md") {
            println!("cargo:rerun-if-changed={}", path.display());
            pages.push((code, fs::read_to_string(&path)?));
        }
    }
    pages.sort();
    let mut source = String::from("&[\n");
    for (code, text) in pages {
        writeln!(source, "    ({code:?}, {text:?}),")?;
    }
    source.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), source)?;
    Ok(())
}
