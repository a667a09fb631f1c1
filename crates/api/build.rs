//! Generates the agents' stream from `proto/agent.proto` when the feature `stream` asks for it.

#[cfg_attr(
    not(feature = "stream"),
    expect(clippy::unnecessary_wraps, reason = "only the generator can fail")
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "stream")]
    tonic_prost_build::configure()
        // Has a password; `lib.rs` prints it without.
        .skip_debug(["isthmus.agent.v1.BgpPeer"])
        .compile_protos(&["proto/agent.proto"], &["proto"])?;
    Ok(())
}
