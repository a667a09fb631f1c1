//! `isthmus ipam`: addresses.

use super::Session;
use crate::{
    api::{AGENT_SOCKET, Agent},
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
};
use isthmus_api::{
    local::LocalBlock,
    rest::{BlockSpec, PoolSpec, Resource},
};
use serde::Serialize;
use std::path::PathBuf;

/// Prefix length of blocks where a pool says nothing.
const BLOCK_LEN: u8 = 26;

/// What can be asked of addresses.
#[derive(Debug, clap::Subcommand)]
pub enum IpamCommand {
    /// Shows how many addresses are used and left, by pool.
    #[command(
        after_help = "Examples:\n  isthmus ipam show --cluster red\n  isthmus ipam show --agent -o wide"
    )]
    Show {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only pools of this cluster.
        #[arg(long)]
        cluster: Option<String>,
        /// Shows blocks, each with its node, instead of pools.
        #[arg(long)]
        blocks: bool,
        /// Asks the agent of this node instead of the server.
        #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = AGENT_SOCKET)]
        agent: Option<PathBuf>,
    },
}

/// One pool, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    pool: String,
    cluster: String,
    cidrs: Vec<String>,
    blocks_leased: u64,
    blocks: u64,
    used: u64,
    /// Addresses, used or not.
    addresses: u64,
}

/// Does what is said.
pub async fn run(command: IpamCommand, session: &mut Session) -> Result<Exit, Failure> {
    let IpamCommand::Show { output, cluster, blocks, agent } = command;
    let of_cluster = |found: &str| cluster.as_deref().is_none_or(|cluster| cluster == found);
    if let Some(socket) = agent {
        let mut blocks: Vec<LocalBlock> = Agent::new(&socket)?.get("/ipam").await?;
        blocks.retain(|block| of_cluster(&block.cluster));
        local_view().list(&mut *session.out, &output, blocks)?;
        return Ok(Exit::Yes);
    }
    let server = session.server()?;
    let mut leased = server.all::<BlockSpec>("blocks").await?;
    leased.retain(|block| of_cluster(&block.spec.cluster));
    if blocks {
        block_view().list(&mut *session.out, &output, leased)?;
        return Ok(Exit::Yes);
    }
    let mut pools = server.all::<PoolSpec>("pools").await?;
    pools.retain(|pool| of_cluster(&pool.spec.cluster));
    let rows: Vec<_> = pools.iter().map(|pool| usage(pool, &leased)).collect();
    let full: Vec<_> =
        rows.iter().filter(|row| row.blocks_leased == row.blocks).map(|row| row.pool.clone()).collect();
    view().list(&mut *session.out, &output, rows)?;
    for pool in full {
        session.tell(&format!(
            "! pool {pool} has no free block: add one, isthmus pool create NAME --cluster … --cidr …"
        ));
    }
    Ok(Exit::Yes)
}

fn usage(pool: &Resource<PoolSpec>, leased: &[Resource<BlockSpec>]) -> Usage {
    let ours = || leased.iter().filter(|block| block.spec.pool == pool.name);
    let block_len = pool.spec.block_len.unwrap_or(BLOCK_LEN);
    let sizes = pool.spec.cidrs.iter().filter_map(|cidr| {
        let (address, len) = cidr.split_once('/')?;
        let width: u8 = if address.contains(':') { 128 } else { 32 };
        let (len, block_len) = (len.parse::<u8>().ok()?.min(width), block_len.min(width));
        Some((power(block_len.saturating_sub(len)), power(width - len)))
    });
    let (blocks, addresses) = sizes.fold((0_u64, 0_u64), |(blocks, addresses), (more, wide)| {
        (blocks.saturating_add(more), addresses.saturating_add(wide))
    });
    Usage {
        pool: pool.name.clone(),
        cluster: pool.spec.cluster.clone(),
        cidrs: pool.spec.cidrs.clone(),
        blocks_leased: ours().count() as u64,
        blocks,
        used: ours().map(|block| block.spec.used).sum(),
        addresses,
    }
}

fn power(bits: u8) -> u64 {
    1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

fn view() -> View<Usage> {
    View {
        columns: vec![
            Column::new("POOL", |row: &Usage| row.pool.clone()),
            Column::new("CLUSTER", |row| row.cluster.clone()),
            Column::new("CIDRS", |row| row.cidrs.join(",")),
            Column::new("BLOCKS", |row| format!("{}/{}", row.blocks_leased, row.blocks)),
            Column::new("USED", |row| row.used.to_string()),
            Column::new("FREE", |row| row.addresses.saturating_sub(row.used).to_string()),
        ],
        name: |row| row.pool.clone(),
    }
}

fn block_view() -> View<Resource<BlockSpec>> {
    View {
        columns: vec![
            Column::new("BLOCK", |row: &Resource<BlockSpec>| row.spec.cidr.clone()),
            Column::new("POOL", |row| row.spec.pool.clone()),
            Column::new("CLUSTER", |row| row.spec.cluster.clone()),
            Column::new("NODE", |row| row.spec.node.clone()),
            Column::new("USED", |row| row.spec.used.to_string()),
        ],
        name: |row| row.spec.cidr.clone(),
    }
}

fn local_view() -> View<LocalBlock> {
    View {
        columns: vec![
            Column::new("BLOCK", |row: &LocalBlock| row.cidr.clone()),
            Column::new("CLUSTER", |row| row.cluster.clone()),
            Column::new("USED", |row| row.allocations.len().to_string()),
            Column::new("FREE", |row| row.free.to_string()),
            Column::wide("ALLOCATIONS", |row| {
                row.allocations
                    .iter()
                    .map(|(address, owner)| format!("{address}={owner}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            }),
        ],
        name: |row| row.cidr.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_counted_over_its_cidrs() {
        let pool = Resource {
            kind: "pool".into(),
            name: "p".into(),
            uuid: uuid::Uuid::from_u128(1),
            revision: 1,
            labels: [].into(),
            spec: PoolSpec {
                cluster: "red".into(),
                cidrs: vec!["10.64.0.0/19".into(), "10.70.0.0/26".into(), "nonsense".into()],
                ..PoolSpec::default()
            },
        };
        let block = |pool: &str, used| Resource {
            kind: "block".into(),
            name: "b".into(),
            uuid: uuid::Uuid::from_u128(2),
            revision: 1,
            labels: [].into(),
            spec: BlockSpec {
                cidr: "10.64.0.0/26".into(),
                pool: pool.into(),
                cluster: "red".into(),
                node: "n".into(),
                used,
            },
        };
        let usage = usage(&pool, &[block("p", 3), block("p", 4), block("q", 9)]);
        assert_eq!((usage.blocks, usage.blocks_leased), (129, 2));
        assert_eq!((usage.used, usage.addresses), (7, 8192 + 64));
        assert_eq!(power(64), u64::MAX);
    }
}
