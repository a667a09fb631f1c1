//! Generates GoBGP's API from `proto/gobgp.proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().compile_protos(&["proto/gobgp.proto"], &["proto"])?;
    Ok(())
}
