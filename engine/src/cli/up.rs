//! `fleetwright up`: the engine; with the Kubernetes API in its own process, or on a Kubernetes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fleetwright_api::{fleet::ForgeType, secret::SecretText};

use fleetwright_controllers::Escrow;

use super::stop_signal;
use crate::{
    data_dir::{self, DataDir},
    error::Failure,
    kubernetes::{self, Target},
    setup::{Source, Wish},
    wiring::{Engine, Options, Place},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory, or URL of a Git repository (https:// or file://), to follow. On Kubernetes it may be left out: Fleets there
    /// say what is followed.
    #[arg(value_name = "DIR|URL")]
    source: Option<String>,
    /// Work on the Kubernetes of this kubeconfig, instead of with an API in this process. In a pod that of the pod is used
    /// where neither this nor something to follow is given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when left out.
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// Namespace of the Lease by which engines on one Kubernetes elect the one that works: the same for all. In a pod it is
    /// the pod's.
    #[arg(long, value_name = "NAME", requires = "kubeconfig", default_value = kubernetes::NAMESPACE)]
    namespace: String,
    /// Branch of the repository; its HEAD when left out.
    #[arg(long)]
    branch: Option<String>,
    /// Folder in the repository that is followed; its root when left out.
    #[arg(long)]
    path: Option<String>,
    /// Seconds between polls of the repository.
    #[arg(long, value_name = "SECONDS")]
    interval: Option<i32>,
    /// Folder of all state, on Kubernetes of caches alone [default: $XDG_STATE_HOME/fleetwright].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the Kubernetes API in this process; port 0 takes the last one used, else a free one.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:0",
        conflicts_with = "kubeconfig"
    )]
    listen: SocketAddr,
    /// File of the audit log of the Kubernetes API in this process: a line for each write, and for each request that is refused;
    /// none when left out.
    #[arg(long, value_name = "FILE", conflicts_with = "kubeconfig")]
    audit_log: Option<PathBuf>,
    /// Address of webhooks, metrics and probes; port 0 takes the last one used, else a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    http_listen: SocketAddr,
    /// Name of this installation: part of commit statuses' contexts and of the clusters' keys.
    #[arg(long, default_value = "default")]
    installation: String,
    /// Follow another source than the state was made with.
    #[arg(long)]
    replace_source: bool,
    /// File with Namespaces, Secrets, ProviderAccounts and Fleets that are applied at the start.
    #[arg(long, value_name = "FILE")]
    admin: Option<PathBuf>,
    /// URL of a simulated cloud that runs as a process of its own; on Kubernetes there is none without it.
    #[arg(long, value_name = "URL")]
    simcloud: Option<String>,
    /// Kind of the forge that holds the repository.
    #[arg(long, value_enum, default_value_t)]
    forge: Forge,
    /// Base URL of the forge's API; the public one of GitHub or GitLab when left out.
    #[arg(long, value_name = "URL", requires = "repository")]
    forge_url: Option<String>,
    /// Repository at the forge that gets commit statuses, as owner/name.
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// Plan pull requests into the branch: their heads get a commit status, and they get a comment.
    #[arg(long, requires = "repository", requires = "branch")]
    pull_requests: bool,
    /// Push what becomes of commits to the repository as Git notes, to refs/notes/fleetwright.
    #[arg(long)]
    notes: bool,
    /// File with the token for the repository and for commit statuses.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the secret that signs webhooks.
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Folder in which the keys of new clusters are kept, and snapshots of their etcd from before each minor version, encrypted
    /// with age: somewhere else than the state. Without it, lost state means that clusters made here can be watched and not
    /// changed.
    #[arg(long, value_name = "DIR", requires = "escrow_recipients")]
    escrow: Option<PathBuf>,
    /// age public key of somebody who can read the escrow; may be given several times.
    #[arg(long = "escrow-recipient", value_name = "AGE1…", requires = "escrow")]
    escrow_recipients: Vec<String>,
    /// File with the age identity of a recipient, to take keys from the escrow when the state was lost.
    #[arg(long, value_name = "FILE", requires = "escrow")]
    escrow_identity: Option<PathBuf>,
}

/// Kinds of forges, as [`ForgeType`] has them.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Forge {
    /// GitHub, also GitHub Enterprise Server
    #[default]
    Github,
    /// GitLab, also self-managed
    Gitlab,
    /// Gitea and Forgejo
    Gitea,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let place = place_of(&args)?;
    let source = args.source.as_deref().map(Source::parse).transpose()?;
    let token = args.token_file.as_deref().map(read_secret).transpose()?;
    let webhook_secret = args
        .webhook_secret_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let escrow = match args.escrow {
        Some(folder) => Some(Escrow {
            folder,
            recipients: args.escrow_recipients,
            identity: args
                .escrow_identity
                .as_deref()
                .map(read_secret)
                .transpose()?,
        }),
        None => None,
    };
    let folder = match &args.data {
        Some(dir) => dir.clone(),
        None => data_dir::default_path()?,
    };
    if let Some(Source::Directory(directory)) = &source
        && std::path::absolute(&folder).is_ok_and(|p| p.starts_with(directory))
    {
        let text = format!(
            "the state folder {} is inside the followed directory",
            folder.display()
        );
        return Err(Failure::usage(text).hint("choose another folder with --data"));
    }
    let data = DataDir::open(&folder)?;
    let wish = source.map(|source| Wish {
        source,
        branch: args.branch,
        path: args.path,
        interval: args.interval,
        forge: match args.forge {
            Forge::Github => ForgeType::Github,
            Forge::Gitlab => ForgeType::Gitlab,
            Forge::Gitea => ForgeType::Gitea,
        },
        forge_url: args.forge_url,
        repository: args.repository,
        pull_requests: args.pull_requests,
        notes: args.notes,
        token: token.clone(),
        replace_source: args.replace_source,
    });
    let options = Options {
        place,
        http_listen: args.http_listen,
        installation: args.installation,
        admin: args.admin,
        simcloud: args.simcloud,
        token,
        webhook_secret,
        escrow,
        wish,
    };
    let engine = Engine::start(&data, options).await?;
    announce(&engine);
    engine.work(stop_signal()).await
}

/// Where the API is to live.
fn place_of(args: &Args) -> Result<Place, Failure> {
    if let Some(file) = &args.kubeconfig {
        return Ok(Place::Kubernetes(Target::File {
            file: file.clone(),
            context: args.context.clone(),
            namespace: args.namespace.clone(),
        }));
    }
    if args.source.is_some() {
        return Ok(Place::Here {
            listen: args.listen,
            audit: args.audit_log.clone(),
        });
    }
    if args.audit_log.is_some() {
        return Err(
            Failure::usage("--audit-log is for an API in this process").hint(
                "give a directory or a URL to follow; a Kubernetes keeps an audit log of its own",
            ),
        );
    }
    // As client libraries tell that they run in a pod.
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Ok(Place::Kubernetes(Target::Inside));
    }
    Err(Failure::usage("nothing to follow")
        .hint("give a directory or a URL; on a Kubernetes (--kubeconfig FILE) Fleets say what is followed"))
}

fn read_secret(file: &Path) -> Result<SecretText, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format!("{} is empty", file.display()))
            .hint("an empty secret protects nothing: put a random one there")),
        text => Ok(SecretText::new(text)),
    }
}

#[expect(clippy::print_stdout, reason = "tells where everything is")]
fn announce(engine: &Engine) {
    let kubeconfig = engine.kubeconfig.as_ref().map(|k| k.display().to_string());
    let kubectl = match &kubeconfig {
        Some(file) => format!("kubectl --kubeconfig {file}"),
        None => "kubectl".to_owned(),
    };
    // A Kubernetes may have others' kinds of the same names.
    let (kinds, group) = (
        ["clusters", "machinedeployments", "machines"],
        fleetwright_api::GROUP,
    );
    let kinds = match &engine.identity {
        Some(_) => kinds.map(|k| format!("{k}.{group}")).join(","),
        None => kinds.join(","),
    };
    let lines = [
        ("API", Some(engine.api_url.clone())),
        ("kubeconfig", kubeconfig),
        ("metrics", Some(format!("{}/metrics", engine.http_url))),
        (
            "webhooks",
            Some(format!("{}/webhooks/github", engine.http_url)),
        ),
        ("simcloud", engine.cloud_url.clone()),
        ("identity", engine.identity.clone()),
        ("try", Some(format!("{kubectl} get {kinds} -A"))),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            println!("{name:<10} {value}");
        }
    }
}
