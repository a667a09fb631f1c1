//! Generates GoBGP's API from `proto`: version 3, and what differs from it in version 4; and our own beside it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // Who takes messages from another package comes first: it leaves an empty file for that package.
    tonic_prost_build::configure()
        .extern_path(".apipb", "crate::gobgp::proto")
        .compile_protos(&["proto/gobgp4.proto"], &["proto"])?;
    tonic_prost_build::configure()
        .extern_path(".apipb", "crate::gobgp::proto")
        .compile_protos(&["proto/isthmus.proto"], &["proto"])?;
    tonic_prost_build::configure().compile_protos(&["proto/gobgp.proto"], &["proto"])?;
    Ok(())
}
