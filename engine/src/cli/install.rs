//! `fleetwright install`: prepares a Kubernetes for engines, and runs two of them there.

use std::path::PathBuf;

use kube::{Client, Config, config::KubeConfigOptions};
use serde::Serialize;
use serde_json::Value;

use crate::{
    client::Connection,
    error::{Failure, step},
    install::{
        self,
        manifests::{self, Choice},
    },
    kubernetes::NAMESPACE,
    output::print,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the objects as YAML, and ask no cluster.
    #[arg(long)]
    print: bool,
    /// Image of the engine.
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Namespace of the engine.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Kubeconfig of the cluster; as kubectl finds it ($KUBECONFIG, ~/.kube/config) when left out.
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when left out.
    #[arg(long, value_name = "NAME", conflicts_with = "print")]
    context: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let choice = Choice {
        image: &args.image,
        namespace: &args.namespace,
    };
    let objects = manifests::objects(&choice);
    if args.print {
        print(&printed(&objects)?);
        return Ok(());
    }
    let config = match &args.kubeconfig {
        Some(file) => {
            let connection = Connection::of(file, args.context.as_deref());
            connection.config().await?
        }
        None => current(args.context).await?,
    };
    let url = config.cluster_url.to_string();
    print(&format!("cluster    {}\n", url.trim_end_matches('/')));
    let client = step(Client::try_from(config), "cannot connect")?;
    install::definitions(&client).await?;
    install::objects(&client, &objects).await
}

/// The cluster that kubectl would ask.
async fn current(context: Option<String>) -> Result<Config, Failure> {
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    Config::from_kubeconfig(&options).await.map_err(|e| {
        Failure::usage(format!("cannot use the current kubeconfig: {e}"))
            .hint("say which cluster with --kubeconfig FILE, or see the objects with --print")
    })
}

/// All documents.
fn printed(objects: &[Value]) -> Result<String, Failure> {
    let definitions = manifests::definitions();
    let mut text = String::new();
    for definition in &definitions {
        text += &document(definition)?;
    }
    for object in objects {
        text += &document(object)?;
    }
    Ok(text)
}

fn document(object: &impl Serialize) -> Result<String, Failure> {
    let text = step(serde_saphyr::to_string(object), "cannot write YAML")?;
    Ok(format!("---\n{text}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What `install --print` prints, but for the kinds' definitions, as people review it. `UPDATE_DOCS=1` writes it anew.
    #[test]
    fn the_installed_objects() {
        let choice = Choice {
            image: "registry.example.org/fleetwright:0.1.0",
            namespace: NAMESPACE,
        };
        let objects = manifests::objects(&choice);
        let text: String = objects.iter().map(|o| document(o).unwrap()).collect();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/installed.yaml");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == text,
            "docs/installed.yaml is out of date: run `make docs`"
        );
        assert!(printed(&objects).unwrap().ends_with(&text));
    }
}
