//! Builds the eBPF programs (crates/ebpf) for the BPF target and leaves the object in `OUT_DIR`.
//!
//! The inner cargo has a target directory of its own, so that it does not wait for the outer one's lock, shared by all
//! profiles, so that `core` is compiled once. Needs `rust-src` and `bpf-linker`: `make setup` installs both.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// How the programs are compiled: for the instructions of Linux 5.1, and copying structs by words, where the linker's
/// default calls a function that copies byte by byte.
const FLAGS: [&str; 4] =
    ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf", "-Clink-arg=--disable-expand-memcpy-in-order"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let crates = manifest.parent().ok_or("the crate lies in a directory")?;
    for path in ["ebpf/src", "ebpf/Cargo.toml", "ebpf/Cargo.lock", "dataplane-common/src"] {
        println!("cargo:rerun-if-changed={}", crates.join(path).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = target_directory(&out)?.join("ebpf");
    build(&crates.join("ebpf"), &target)?;
    fs::copy(target.join("bpfel-unknown-none/release/isthmus-ebpf"), out.join("isthmus-ebpf"))?;
    Ok(())
}

/// `OUT_DIR` is `TARGET[/TRIPLE]/PROFILE/build/PACKAGE/out`.
fn target_directory(out: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let above_profile = out.ancestors().nth(4).ok_or("OUT_DIR lies in a target directory")?;
    let triple = env::var("TARGET")?;
    let target = if above_profile.ends_with(&triple) { above_profile.parent() } else { Some(above_profile) };
    Ok(target.ok_or("OUT_DIR lies in a target directory")?.to_owned())
}

fn build(ebpf: &Path, target: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.current_dir(ebpf).args(["build", "--release", "--locked", "--target", "bpfel-unknown-none"]);
    cargo.args(["-Z", "build-std=core", "--target-dir"]).arg(target);
    // The outer build's flags and wrappers (clippy, coverage) are not for this target.
    for name in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
    {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PROFILE_")) {
        cargo.env_remove(name);
    }
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the eBPF programs do not build: is `bpf-linker` in PATH and `rust-src` installed? Run `make setup`".into())
    }
}
