//! `isthmus pool`: address ranges.

use super::Session;
use crate::{
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{Draft, PoolSpec, Resource};

/// What can be done with pools.
#[derive(Debug, clap::Subcommand)]
pub enum PoolCommand {
    /// Makes a pool.
    #[command(
        after_help = "Examples:\n  isthmus pool create red --cluster red --cidr 10.64.0.0/16\n  isthmus pool create red-2 --cluster red --cidr 10.70.0.0/20 --block-len 27"
    )]
    Create {
        /// Its name.
        name: String,
        /// The cluster whose containers get the addresses.
        #[arg(long)]
        cluster: String,
        /// An address range, which overlaps with no other pool's; may be repeated.
        #[arg(long, required = true, value_name = "CIDR")]
        cidr: Vec<String>,
        /// Prefix length of the blocks that nodes lease; 26 if absent.
        #[arg(long, value_name = "BITS")]
        block_len: Option<u8>,
        /// Of an external cluster: packets from there are the world's, not the cluster's.
        #[arg(long)]
        world: bool,
        /// Labels: k=v.
        #[arg(long, value_name = "K=V", value_parser = super::label)]
        label: Vec<(String, String)>,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists pools.
    #[command(after_help = "Examples:\n  isthmus pool list\n  isthmus pool list --sort cluster")]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only pools with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
    },
    /// Shows one pool.
    #[command(after_help = "Examples:\n  isthmus pool show red\n  isthmus pool show red -o json")]
    Show {
        /// Its name.
        name: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Deletes a pool of which no block is leased.
    #[command(after_help = "Examples:\n  isthmus pool delete red-2\n  isthmus pool delete red-2 --dry-run")]
    Delete {
        /// Its name.
        name: String,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does what is said.
pub async fn run(command: PoolCommand, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    match command {
        PoolCommand::Create { name, cluster, cidr, block_len, world, label, dry_run } => {
            let spec = PoolSpec { cluster, cidrs: cidr, block_len, world };
            let draft = Draft { name: name.clone(), labels: label.into_iter().collect(), spec };
            let made: Resource<PoolSpec> = server.create("pools", &draft, dry_run).await?;
            writeln!(session.out, "{}", made.name)?;
            session.created("pool", &name, made.revision, dry_run);
        }
        PoolCommand::List { output, selector } => {
            let selector = Selector::parse(&selector)?;
            view().list(&mut *session.out, &output, server.selected("pools", &selector).await?)?;
        }
        PoolCommand::Show { name, output } => {
            view().show(&mut *session.out, &output, server.one("pools", &name).await?)?;
        }
        PoolCommand::Delete { name, dry_run } => {
            let pool: Resource<PoolSpec> = server.one("pools", &name).await?;
            server.delete("pools", &name, dry_run).await?;
            session.deleted("pool", &name, &undo(&pool), dry_run);
        }
    }
    Ok(Exit::Yes)
}

fn undo(pool: &Resource<PoolSpec>) -> String {
    let cidrs: String = pool.spec.cidrs.iter().flat_map(|cidr| [" --cidr ", cidr]).collect();
    let block = pool.spec.block_len.map(|len| format!(" --block-len {len}")).unwrap_or_default();
    let world = if pool.spec.world { " --world" } else { "" };
    format!("isthmus pool create {} --cluster {}{cidrs}{block}{world}", pool.name, pool.spec.cluster)
}

fn view() -> View<Resource<PoolSpec>> {
    View {
        columns: vec![
            Column::new("POOL", |row: &Resource<PoolSpec>| row.name.clone()),
            Column::new("CLUSTER", |row| row.spec.cluster.clone()),
            Column::new("CIDRS", |row| row.spec.cidrs.join(",")),
            Column::new("BLOCK", |row| row.spec.block_len.map(|len| format!("/{len}")).unwrap_or_default()),
            Column::wide("UUID", |row| row.uuid.to_string()),
            Column::wide("LABELS", |row| super::labels(&row.labels)),
            Column::wide("REVISION", |row| row.revision.to_string()),
        ],
        name: |row| row.name.clone(),
    }
}
