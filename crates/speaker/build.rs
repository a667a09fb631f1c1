//! Generates GoBGP's API from `proto`: version 3, and what differs from it in version 4.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // Version 4 comes first: it leaves an empty file for the package that it takes from elsewhere.
    tonic_prost_build::configure()
        .extern_path(".apipb", "crate::gobgp::proto")
        .compile_protos(&["proto/gobgp4.proto"], &["proto"])?;
    tonic_prost_build::configure().compile_protos(&["proto/gobgp.proto"], &["proto"])?;
    Ok(())
}
