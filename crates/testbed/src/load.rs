//! placeholder
/// x
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {}
/// x
pub fn run(_args: LoadArgs) -> u8 {
    0
}
