//! Fleet: a Git repository (or a local directory) to follow.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::LocalSecretRef,
    disruption::DisruptionBudget,
    version::Version,
    waves::{Wave, WaveStatus, Window},
};

/// A Git repository to follow. Never read from the repository that it follows.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "Fleet",
    plural = "fleets",
    category = "fleetwright",
    namespaced,
    status = "FleetStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"The last observed revision was applied"}"#,
    printcolumn = r#"{"name":"Observed","type":"string","jsonPath":".status.observed.revision","description":"Revision last seen"}"#,
    printcolumn = r#"{"name":"Settled","type":"string","jsonPath":".status.settled.revision","description":"Revision that last converged or failed"}"#,
    printcolumn = r#"{"name":"Objects","type":"integer","jsonPath":".status.counts.objects","description":"Objects in the repository"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","description":"What it does or waits for","priority":10}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// What is followed.
    pub source: FleetSource,
    /// Look, but apply nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The forge that holds the repository: it gets commit statuses and sends webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<Forge>,
    /// Plans on pull requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_requests: Option<PullRequests>,
    /// What is done about differences that Git did not make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftPolicy>,
    /// Guards of deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<PrunePolicy>,
    /// What becomes of its objects when the Fleet is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain"))]
    pub deletion_policy: Option<DeletionPolicy>,
    /// What the repository may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// Kubernetes versions that clusters may be upgraded to and pass through on the way, of each minor the last one listed; all
    /// when empty, and then the first of each minor is passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(regex(pattern = r"^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+].+)?$"), length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub versions: Vec<String>,
    /// How many machines of all its clusters together may be out of service at once; no limit of its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionBudget>,
    /// Fleets whose newest revision must have converged before anything of this one is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub depends_on: Vec<FleetReference>,
    /// In which order a revision reaches clusters and pools; all at once when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub waves: Vec<Wave>,
    /// When changes may begin; always when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<Window>,
    /// A commit fails when nothing moved for so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 1800))]
    pub progress_deadline_seconds: Option<i32>,
}

impl FleetSpec {
    /// [`Self::versions`], in their order.
    pub fn allowed_versions(&self) -> Vec<Version> {
        self.versions
            .iter()
            .filter_map(|v| v.parse().ok())
            .collect()
    }
}

/// Another Fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetReference {
    /// Its namespace; the same one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
}

/// Default of `progressDeadlineSeconds`.
pub const DEFAULT_PROGRESS_DEADLINE_SECONDS: i32 = 1800;
/// Default of `pullRequests.intervalSeconds`.
pub const DEFAULT_PULL_REQUESTS_INTERVAL_SECONDS: i32 = 60;
/// Default of `forge.clusterStatuses`.
pub const DEFAULT_CLUSTER_STATUSES: i32 = 20;
/// Default of `source.intervalSeconds`.
pub const DEFAULT_INTERVAL_SECONDS: i32 = 60;
/// Default of `prune.maxMachines`.
pub const DEFAULT_PRUNE_MAX_MACHINES: i32 = 10;

/// What a Fleet follows: exactly one of `url` and `directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.url) != has(self.directory)", "message": "set exactly one of url and directory"},
    {"rule": "has(self.url) || !has(self.verify)", "message": "only a Git repository has signatures: verify needs url"},
    {"rule": "has(self.url) || !has(self.notes) || !self.notes", "message": "only a Git repository has notes: notes needs url"},
]))]
pub struct FleetSource {
    /// Git URL: https://…, ssh://…, user@host:path or file://…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = [{"rule": "self.startsWith('https://') || self.startsWith('ssh://') || self.startsWith('file://') || self.matches('^[^:/@]+@[^:/@]+:.+')", "message": "url must begin with https://, ssh:// or file://, or be of the form user@host:path"}]))]
    pub url: Option<String>,
    /// A directory of this machine, watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub directory: Option<String>,
    /// Which commit; the remote's HEAD when left out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitRef>,
    /// Folder in the repository; its root when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Seconds between polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 60))]
    pub interval_seconds: Option<i32>,
    /// Globs of files below `path` that count, as in gitignore; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,
    /// Globs of files below `path` that do not count, as in gitignore. What they leave out of a sudden is deleted like what is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,
    /// Secret in the Fleet's namespace. For https: `token`, or `username` and `password`, or `githubAppID`, `githubAppInstallationID` and
    /// `githubAppPrivateKey`; `ca.crt` for an authority of its own. For ssh: `identity`, `identityPassword`, `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalSecretRef>,
    /// Which commits must be signed; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Whether what becomes of commits is pushed to the repository as Git notes, to `refs/notes/fleetwright`: what a forge is told as
    /// commit statuses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notes: bool,
}

/// Which commits must be signed, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Which commits.
    #[serde(default)]
    #[schemars(extend("default" = "head"))]
    pub mode: VerifyMode,
    /// Secret in the Fleet's namespace with the public keys that are trusted: keys `*.pub` with SSH keys (lines of authorized_keys), keys
    /// `*.asc` with OpenPGP keys.
    pub secret_ref: LocalSecretRef,
}

/// Which commits must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyMode {
    /// The commit that is applied, or the annotated tag that names it.
    #[default]
    Head,
    /// Every commit since the one that was applied last, merged ones too.
    History,
}

/// Which commit of a repository: at most one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(x, x).size() <= 1",
    "message": "set at most one of branch, tag, semver and commit",
}]))]
pub struct GitRef {
    /// Head of a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// A tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The highest tag in a range of semantic versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// One commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// The forge that holds the repository: it gets commit statuses and sends webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.type != 'gitea' || has(self.apiURL)", "message": "set apiURL, such as https://git.example.com/api/v1"},
    {"rule": "self.type == 'gitlab' || self.repository.matches('^[^/]+/[^/]+$')", "message": "repository must be of the form owner/name"},
    {"rule": "self.type != 'gitlab' || self.repository.matches('^([0-9]+|[^/]+(/[^/]+)+)$')", "message": "repository must be of the form group/name, group/subgroup/name, or a project's number"},
]))]
pub struct Forge {
    /// github, gitlab or gitea (Forgejo is one).
    #[serde(rename = "type")]
    pub kind: ForgeType,
    /// Base URL of its API: `https://HOST/api/v3`, `https://HOST/api/v4` or `https://HOST/api/v1`. GitHub and GitLab have a
    /// public one, taken when left out.
    #[serde(default, rename = "apiURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub api_url: Option<String>,
    /// `owner/name`; at GitLab also `group/subgroup/name` or the project's number.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,
    /// Secret in the Fleet's namespace whose key `token` may write statuses; or, at GitHub, with the keys `githubAppID`,
    /// `githubAppInstallationID` and `githubAppPrivateKey` of an app that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalSecretRef>,
    /// Of how many clusters a commit's statuses tell one by one, beside the one that tells of all; those that fail first. None with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 20))]
    pub cluster_statuses: Option<i32>,
    /// Whether the commit that settled last tells by a status of its own, context `…/health`, when clusters are no longer Available or in
    /// sync, and when they are again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub health: bool,
    /// Secret in the Fleet's namespace whose key `secret` signs webhooks. What `previousSecret` signs is believed as well, so
    /// that a secret can be changed without losing a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret_ref: Option<LocalSecretRef>,
}

/// Kind of forge.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ForgeType {
    /// GitHub, also GitHub Enterprise Server.
    #[default]
    Github,
    /// GitLab, also self-managed.
    Gitlab,
    /// Gitea and Forgejo.
    Gitea,
}

impl ForgeType {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
        }
    }
}

/// Plans on pull requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.apply) || self.apply != 'OnApproval' || (has(self.plan) && self.plan)", "message": "what is applied on approval must be planned: set plan: true"},
]))]
pub struct PullRequests {
    /// Whether pull requests into the branch of `source.ref` are planned.
    #[serde(default)]
    pub plan: bool,
    /// Seconds between looks at the forge; webhooks come in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10), extend("default" = 60))]
    pub interval_seconds: Option<i32>,
    /// When a pull request is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "AfterMerge"))]
    pub apply: Option<ApplyWhen>,
    /// Who may say that a pull request is to be applied, by their names at the forge; whoever may write to the repository there when
    /// empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub approvers: Vec<String>,
}

/// When a pull request is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApplyWhen {
    /// When it is in the branch.
    #[default]
    AfterMerge,
    /// When somebody who may says so in a comment, before it is merged: `fleetwright apply` and at least 12 digits of its plan.
    OnApproval,
}

/// What is done about differences that Git did not make: fields that others hold, and what others change of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftPolicy {
    /// The policy for what no rule fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "report"))]
    pub policy: Option<DriftAction>,
    /// Policies for some of it: the first rule that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<DriftRule>,
}

/// A policy for some of what differs. It fits where all that it names fits; what is left out fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftRule {
    /// Kinds of objects: of those in Git, and `Machine`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Vec<String>,
    /// Fields, each with all below it, such as `spec.template.metadata.labels`; of machines `instance.tags`, `instance.securityGroups`,
    /// `instance.network`, `instance.instanceType`, `instance.image`, `instance.state`, `node.kubelet` and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub paths: Vec<String>,
    /// Field managers: all that hold the field must be among them. Of machines nobody knows any: a rule that names some fits none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub managers: Vec<String>,
    /// What is done about them.
    pub policy: DriftAction,
}

/// What is done about a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DriftAction {
    /// It is told, and stays.
    #[default]
    Report,
    /// A field is taken back; a machine is put right in place, or replaced as a broken one is.
    Correct,
    /// It stays, and is not told.
    Ignore,
}

/// Guards of deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrunePolicy {
    /// Most machines that one commit may delete without consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 10))]
    pub max_machines: Option<i32>,
}

/// What becomes of a Fleet's objects when the Fleet is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay as they are; another Fleet that declares them takes them over.
    #[default]
    Retain,
    /// They go first, by the guards of a commit that removes them all: a Cluster needs consent.
    Delete,
}

/// What the repository may hold; an empty list allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Vec<String>,
    /// ProviderAccounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub accounts: Vec<String>,
}

/// What is known of the Fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Revision last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<RevisionRef>,
    /// Revision last applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<RevisionRef>,
    /// Revision that last converged or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<RevisionRef>,
    /// The pull request that is applied though it is not merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What was answered to those who said that a pull request is to be applied, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
    pub answers: Vec<Answer>,
    /// Waves that have not passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub waves: Vec<WaveStatus>,
    /// Counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<FleetCounts>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A revision of the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRef {
    /// Commit id, or `dir:<tree id>` for a directory.
    pub revision: String,
    /// Git tree id of the followed path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A pull request that is applied though it is not merged: the Fleet follows its merge in place of the branch, until the branch has it or
/// it is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Its number.
    pub number: i64,
    /// Commit of its head.
    pub head: String,
    /// Commit of the branch that the head was merged into.
    pub base: String,
    /// Git tree id of the followed path of that merge.
    pub tree: String,
    /// Digest of the plan that was approved.
    pub plan: String,
    /// Who approved it, by the name at the forge.
    pub approved_by: String,
    /// The commit by which it came into the branch, once it is merged. It is held until the branch is seen to have it.
    // Written as null, as the next one: a merge patch would keep those of another pull request.
    #[serde(default)]
    pub merged_as: Option<String>,
    /// Head of what was held when it was approved.
    #[serde(default)]
    pub replaces: Option<String>,
}

/// What was answered to whoever said last that a pull request is to be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Number of the pull request.
    pub number: i64,
    /// The forge's number of the comment. None up to it counts again.
    pub comment: i64,
    /// The answer.
    pub text: String,
}

/// Counts of a Fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetCounts {
    /// Objects in the repository.
    #[serde(default)]
    pub objects: i32,
    /// Objects that have not converged yet.
    #[serde(default)]
    pub converging: i32,
    /// Mistakes in the repository.
    #[serde(default)]
    pub errors: i32,
}
