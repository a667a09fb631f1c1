//! placeholder
/// x
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {}
/// x
pub fn run(_args: DemoArgs) -> u8 {
    0
}
