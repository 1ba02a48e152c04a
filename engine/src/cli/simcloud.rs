//! `fleetwright simcloud`: the simulated cloud as a process of its own.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_provider_sim::{Cloud, CloudOptions, serve};
use tokio_util::sync::CancellationToken;

use super::stop_signal;
use crate::{
    data_dir::DataDir,
    error::{Failure, step},
    http::bind,
};

/// What `--help` says after the options.
const MORE: &str = "\
Start it, then an engine that uses it; either may be killed and started again:
  fleetwright simcloud --listen 127.0.0.1:7070 --data ./cloud
  fleetwright up DIR --simcloud http://127.0.0.1:7070

Make things go wrong, see which did, make calls slow:
  curl -d '{\"effect\": \"answerLost\", \"verb\": \"create\"}' http://127.0.0.1:7070/faults
  curl http://127.0.0.1:7070/faults
  curl -X PUT -d '{\"millis\": 200, \"region\": \"eu\"}' http://127.0.0.1:7070/latencies

Effects: requestLost, answerLost, throttled, noCapacity. All of it: docs/simulated-cloud.md";

#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// Address to listen on, of this machine alone; port 0 takes the last one used, else a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder of its state (`cloud.db`) and of its journal (`journal.jsonl`, a line for each call).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    serve::allowed(args.listen).map_err(|e| Failure::usage(e.to_string()))?;
    let data = DataDir::open(&args.data)?;
    let opened = Cloud::open(CloudOptions {
        dir: data.path().to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    });
    let cloud = step(opened, "cannot start the simulated cloud")?;
    let listener = bind(args.listen, &data.path().join("simcloud.addr")).await?;
    let address = step(listener.local_addr(), "the listener has no address")?;
    announce(address, &data);
    let stop = CancellationToken::new();
    let running = cloud.clone();
    let run = running.run(stop.clone());
    let serving = serve::serve(cloud, listener, stop.clone());
    tokio::pin!(run, serving);
    let result = tokio::select! {
        biased;
        signal = stop_signal() => signal,
        ended = &mut serving => step(ended, "the simulated cloud ended"),
        () = &mut run => Ok(()),
    };
    stop.cancel();
    result
}

#[expect(clippy::print_stdout, reason = "tells where the cloud is")]
fn announce(address: SocketAddr, data: &DataDir) {
    println!("simcloud   http://{address}");
    println!("journal    {}", data.path().join("journal.jsonl").display());
}
