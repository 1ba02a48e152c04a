//! What nodes read when they boot: user data where it may be seen, SSM parameters where it holds secrets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use base64::{Engine, engine::general_purpose::STANDARD};
use fleetwright_api::{names, secret::SecretText};
use fleetwright_providers::{Account, Bootstrap, NodeId, Ownership, ProviderError};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    config,
    create::USER_DATA_LIMIT,
    errors::{code, told, told_of_secrets, writes},
    provider::Aws,
    schema::USUAL_OS,
    tags,
};

/// Most characters of a parameter in the tier that costs nothing.
const CHUNK: usize = 4096;
/// Most parameters of a machine: 60 KiB before they are encoded.
const MOST_CHUNKS: usize = 20;
/// Most parameters that one call deletes.
const BATCH: usize = 10;

/// Asks the instance's own metadata, with a token.
macro_rules! metadata {
    ($path:literal) => {
        concat!(
            "$(imds=\"${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest\"; curl -fsS -H \"X-aws-ec2-metadata-token: ",
            "$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \"$imds/api/token\")\" \"$imds/meta-data/",
            $path,
            "\")"
        )
    };
}

const PROVIDER_ID: &str = concat!(
    "aws:///",
    metadata!("placement/availability-zone"),
    "/",
    metadata!("instance-id")
);

/// Reads parameters by curl alone: the instance's own rights from its metadata, a signed call for each parameter. Where both are found
/// can be told by the variables that AWS' tools know. It prints all or nothing, and says by its status which; shells that wait for that
/// status do not stop by themselves at what fails.
const READ: &str = r#"(imds="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}"
ssm="${AWS_ENDPOINT_URL_SSM:-@url@}"
token=$(curl -fsS --retry 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/latest/api/token") || exit 1
ask() { curl -fsS --retry 5 -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/iam/security-credentials/$1"; }
field() { printf '%s' "$2" | tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }
role=$(ask '') || exit 1
rights=$(ask "$role") || exit 1
user="$(field AccessKeyId "$rights"):$(field SecretAccessKey "$rights")"
session=$(field Token "$rights")
text=
n=0
while [ "$n" -lt @count@ ]; do
    answer=$(printf 'user = "%s"\nheader = "X-Amz-Security-Token: %s"\n' "$user" "$session" |
        curl -fsS --retry 5 -K - --aws-sigv4 'aws:amz:@region@:ssm' -H 'Content-Type: application/x-amz-json-1.1' \
            -H 'X-Amz-Target: AmazonSSM.GetParameter' -d "{\"Name\":\"@path@/$n\",\"WithDecryption\":true}" "$ssm/") || exit 1
    part=$(field Value "$answer")
    [ -n "$part" ] || exit 1
    text="$text$part"
    n=$((n + 1))
done
printf '%s' "$text" | base64 -d)"#;

/// Under which the machine's parameters are.
///
/// # Errors
/// A part of it cannot stand in a parameter's name.
fn path(owner: &Ownership) -> Result<String, ProviderError> {
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let parts = [&owner.installation, &owner.cluster_key, &owner.machine];
    match parts
        .iter()
        .find(|p| p.is_empty() || !p.chars().all(simple))
    {
        None => {
            let [installation, cluster, machine] = parts;
            Ok(format!("/fleetwright/{installation}/{cluster}/{machine}"))
        }
        Some(part) => Err(ProviderError::Terminal {
            message: format!(
                "{part:?} cannot stand in the name of an SSM parameter: letters, digits, dashes, dots and underscores can"
            ),
        }),
    }
}

/// Pieces of the payload that fit into parameters, in characters that survive any shell.
///
/// # Errors
/// There are too many.
fn chunks(payload: &SecretText) -> Result<Vec<String>, ProviderError> {
    let text = STANDARD.encode(payload.expose());
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(CHUNK).collect();
    if bytes.len() > MOST_CHUNKS {
        let (length, most) = (payload.expose().len(), MOST_CHUNKS * CHUNK * 3 / 4);
        return Err(ProviderError::Terminal {
            message: format!("{length} bytes are to be kept for the machine: {most} can be"),
        });
    }
    let all = bytes.into_iter().map(String::from_utf8_lossy);
    Ok(all.map(String::from).collect())
}

/// For how long it is believed that a parameter is still what was written.
const BELIEVED: Duration = Duration::from_secs(600);

/// Digests of the parts that were kept a moment ago, by account and path: a create that is tried again writes what differs.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<BTreeMap<(String, String), Parts>>);

/// When the first of the parts was written, and their digests by number.
type Parts = (Instant, BTreeMap<usize, String>);

impl Kept {
    fn digest(part: &str) -> String {
        names::short_hash(["part", part], 40)
    }

    fn has(&self, account: &str, path: &str, n: usize, part: &str, now: Instant) -> bool {
        let known = self.0.lock();
        let parts = known.get(&(account.to_owned(), path.to_owned()));
        let parts = parts.filter(|(at, _)| now.duration_since(*at) < BELIEVED);
        parts.is_some_and(|(_, parts)| parts.get(&n) == Some(&Self::digest(part)))
    }

    fn keep(&self, account: &str, path: &str, n: usize, part: &str, now: Instant) {
        let mut known = self.0.lock();
        known.retain(|_, (at, _)| now.duration_since(*at) < BELIEVED);
        let key = (account.to_owned(), path.to_owned());
        let (_, parts) = known.entry(key).or_insert_with(|| (now, BTreeMap::new()));
        parts.insert(n, Self::digest(part));
    }

    fn forget(&self, account: &str, path: &str) {
        let key = (account.to_owned(), path.to_owned());
        self.0.lock().remove(&key);
    }
}

fn command(account: &Account, path: &str, count: usize) -> String {
    let region = &account.region;
    let usual = || {
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://ssm.{region}.amazonaws.com{suffix}")
    };
    let endpoint = account.endpoint.clone().unwrap_or_else(usual);
    READ.replace("@url@", endpoint.trim_end_matches('/'))
        .replace("@count@", &count.to_string())
        .replace("@region@", region)
        .replace("@path@", path)
}

#[async_trait]
impl Bootstrap for Aws {
    fn operating_system<'a>(&self, config: &'a Value) -> &'a str {
        config["os"].as_str().unwrap_or(USUAL_OS)
    }

    fn waits_for_cloud_controller(&self, cluster_config: Option<&Value>) -> bool {
        cluster_config.is_some_and(|c| c["cloudController"] == true)
    }

    fn user_data_limit(&self) -> usize {
        USER_DATA_LIMIT
    }

    fn node_id(&self, _: &Ownership) -> NodeId {
        NodeId::Expression(PROVIDER_ID)
    }

    async fn keep(
        &self,
        account: &Account,
        owner: &Ownership,
        config: &Value,
        payload: &SecretText,
    ) -> Result<String, ProviderError> {
        // Among others, that there are rights to read it by.
        config::machine(config)?;
        let (path, chunks) = (path(owner)?, chunks(payload)?);
        let clients = self.clients(account).await?;
        let tags = tags::of_owner(owner);
        let tags = tags.iter().filter(|(_, value)| !value.is_empty());
        let tags: Result<Vec<Tag>, _> = tags
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        let tags = tags.map_err(|e| ProviderError::Terminal {
            message: format!("PutParameter: {e}"),
        })?;
        for (n, chunk) in chunks.iter().enumerate() {
            if self
                .kept()
                .has(&account.name, &path, n, chunk, Instant::now())
            {
                continue;
            }
            let put = || {
                clients
                    .ssm
                    .put_parameter()
                    .name(format!("{path}/{n}"))
                    .value(chunk)
                    .r#type(ParameterType::SecureString)
                    .tier(ParameterTier::Standard)
            };
            let made = put().set_tags(Some(tags.clone())).send().await;
            let done = match made {
                // Tags and another value cannot be written at once; the tags are there.
                Err(error) if code(&error) == Some("ParameterAlreadyExists") => {
                    put().overwrite(true).send().await
                }
                made => made,
            };
            done.map_err(|e| told_of_secrets(writes("PutParameter"), e))?;
            self.kept()
                .keep(&account.name, &path, n, chunk, Instant::now());
        }
        Ok(command(account, &path, chunks.len()))
    }

    async fn discard(&self, account: &Account, owner: &Ownership) -> Result<(), ProviderError> {
        let path = path(owner)?;
        self.kept().forget(&account.name, &path);
        let clients = self.clients(account).await?;
        let names: Vec<String> = (0..MOST_CHUNKS).map(|n| format!("{path}/{n}")).collect();
        for names in names.chunks(BATCH) {
            let call = clients.ssm.delete_parameters();
            let gone = call.set_names(Some(names.to_vec())).send().await;
            gone.map_err(|e| told(writes("DeleteParameters"), e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Ownership {
        Ownership {
            installation: "main".into(),
            cluster_key: "0123".into(),
            machine: "eu-cp-0".into(),
            ..Ownership::default()
        }
    }

    #[test]
    fn parameters_are_found_by_what_the_machine_is_called() {
        assert_eq!(path(&owner()).unwrap(), "/fleetwright/main/0123/eu-cp-0");
        let other = Ownership {
            installation: "a/b".into(),
            ..owner()
        };
        assert!(path(&other).unwrap_err().is_terminal());
    }

    #[test]
    fn payloads_are_cut_and_bounded() {
        let kept = |length: usize| chunks(&SecretText::new("x".repeat(length)));
        assert_eq!(kept(3072).unwrap().len(), 1);
        assert_eq!(kept(3073).unwrap().len(), 2);
        let text = kept(10_000).unwrap().concat();
        assert_eq!(
            STANDARD.decode(text).unwrap(),
            "x".repeat(10_000).as_bytes()
        );
        assert_eq!(kept(61_440).unwrap().len(), MOST_CHUNKS);
        let error = kept(61_441).unwrap_err();
        assert!(
            error.is_terminal() && !error.to_string().contains('x'),
            "{error}"
        );
    }

    #[test]
    fn the_command_names_region_and_parameters() {
        let account = Account {
            region: "eu-central-1".into(),
            ..Account::default()
        };
        let text = command(&account, "/fleetwright/a/b/c", 3);
        for part in [
            "AWS_ENDPOINT_URL_SSM:-https://ssm.eu-central-1.amazonaws.com}",
            "aws:amz:eu-central-1:ssm",
            "-lt 3 ]",
            "/fleetwright/a/b/c/$n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
