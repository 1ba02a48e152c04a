//! `fleetwright why`: why an object is as it is, and what it waits for.

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineHealthCheck, MachineSet,
    time::{Clock as _, SystemClock},
};

use crate::{
    error::Failure,
    object::{Kind, Object},
    output::Output,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    object: Object,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let object = &args.object;
    let client = object.client().await?;
    let why = match object.object.kind {
        Kind::Cluster => {
            let cluster: Cluster = object.get(&client).await?;
            let family = object.family(&client, &object.object.name).await?;
            family.scene().whole(&cluster)
        }
        Kind::Pool => {
            let pool: MachineDeployment = object.get(&client).await?;
            let family = object.family(&client, &pool.spec.cluster_name).await?;
            family.scene().pool(&pool)
        }
        Kind::Set => {
            let set: MachineSet = object.get(&client).await?;
            let family = object.family(&client, &set.spec.cluster_name).await?;
            family.scene().set(&set)
        }
        Kind::HealthCheck => {
            let check: MachineHealthCheck = object.get(&client).await?;
            let family = object.family(&client, &check.spec.cluster_name).await?;
            family.scene().health_check(&check)
        }
        Kind::Machine | Kind::Node => {
            let machine: Machine = match object.object.kind {
                Kind::Node => object.machine_of_node(&client).await?,
                _ => object.get(&client).await?,
            };
            let family = object.family(&client, &machine.spec.cluster_name).await?;
            family.scene().machine(&machine)
        }
    };
    args.output.print(&why, || why.text(SystemClock.now()))
}
