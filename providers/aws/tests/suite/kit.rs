//! AWS as the tests see it: moto, the proxy that remembers client tokens, microburst, and a client of their own past all that.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials as Keys;
use aws_sdk_ec2::{
    Client,
    types::{Instance as Shown, InstanceStateName, Tag},
};
use aws_smithy_http_client::tls::{Provider as Tls, rustls_provider::CryptoMode};
use fleetwright_api::secret::SecretText;
use fleetwright_provider_aws::{
    Aws,
    config::{API_VERSION, MACHINE_CONFIG},
};
use fleetwright_providers::{Account, CreateInstance, Credentials, Ownership};
use fleetwright_tests::{
    client_tokens,
    emulators::{Emulator, microburst, moto},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Images that moto has in every region.
pub(crate) const IMAGE: &str = "ami-12c6146b";
pub(crate) const OTHER_IMAGE: &str = "ami-03cf127a";
/// The installation that the provider works for.
pub(crate) const INSTALLATION: &str = "test";
/// The instance profile of all instances.
pub(crate) const PROFILE: &str = "node";

/// What all tests share.
pub(crate) struct Stand {
    pub(crate) moto: Emulator,
    pub(crate) faults: Emulator,
}

static STAND: OnceCell<Option<Stand>> = OnceCell::const_new();

impl Stand {
    /// The one of this process; `None` where an emulator is not installed and tests may be skipped for it.
    pub(crate) async fn get() -> Option<&'static Self> {
        let start = async || {
            let moto = moto().await?;
            make_profile(&moto).await;
            let faults = microburst(&client_tokens::remember(moto.url())).await?;
            Some(Self { moto, faults })
        };
        STAND.get_or_init(start).await.as_ref()
    }
}

/// What moto's IAM, which is for all regions, answers to a query.
pub(crate) async fn iam(moto: &Emulator, query: &str) -> String {
    let scope = "AWS4-HMAC-SHA256 Credential=AKIATEST/20261130/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
    let headers = [
        ("authorization", scope),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let body = format!("Version=2010-05-08&{query}");
    let (status, text) = moto.call("POST", "/", &headers, &body).await.unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// Makes the instance profile that all instances have.
pub(crate) async fn make_profile(moto: &Emulator) {
    let query = format!("Action=CreateInstanceProfile&InstanceProfileName={PROFILE}");
    iam(moto, &query).await;
}

/// A region of AWS with what machines need there.
pub(crate) struct Place {
    pub(crate) region: &'static str,
    pub(crate) stand: &'static Stand,
    pub(crate) aws: Aws,
    /// Past everything that goes wrong.
    pub(crate) ec2: Client,
    /// Subnets with their availability zones.
    pub(crate) subnets: Vec<(String, String)>,
    pub(crate) groups: [String; 2],
}

/// Settings of the SDK for a client of a test's own.
pub(crate) async fn sdk(url: &str, region: &'static str) -> aws_config::SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Tls::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region))
        .endpoint_url(url)
        .credentials_provider(Keys::new("AKIATEST", "test", None, None, "test"))
        .load()
        .await
}

/// An account whose Secret holds these keys.
pub(crate) fn account_with(url: &str, region: &str, id: &str, secret: &str) -> Account {
    let entries = [
        ("accessKeyID".to_owned(), SecretText::new(id)),
        ("secretAccessKey".to_owned(), SecretText::new(secret)),
    ];
    Account {
        name: format!("aws-{region}"),
        provider: "aws".into(),
        region: region.into(),
        endpoint: Some(url.into()),
        credentials: Some(Credentials::new(format!("{id}/{secret}"), entries)),
        ..Account::default()
    }
}

impl Place {
    /// A region, which no other test may use; `None` where tests are skipped.
    pub(crate) async fn at(region: &'static str) -> Option<Self> {
        let stand = Stand::get().await?;
        stand.moto.take(region);
        let ec2 = Client::new(&sdk(stand.moto.url(), region).await);
        let found = ec2.describe_subnets().send().await.unwrap();
        let mut subnets: Vec<(String, String)> = found
            .subnets()
            .iter()
            .map(|s| {
                let zone = s.availability_zone().unwrap();
                (s.subnet_id().unwrap().to_owned(), zone.to_owned())
            })
            .collect();
        subnets.sort_by(|a, b| a.1.cmp(&b.1));
        let network = found.subnets()[0].vpc_id().unwrap().to_owned();
        let mut groups = Vec::new();
        for name in ["one", "two"] {
            let call = ec2.create_security_group().group_name(name);
            let made = call.description(name).vpc_id(&network).send().await;
            groups.push(made.unwrap().group_id().unwrap().to_owned());
        }
        Some(Self {
            region,
            stand,
            aws: Aws::new(INSTALLATION),
            ec2,
            subnets,
            groups: groups.try_into().unwrap(),
        })
    }

    pub(crate) fn account(&self) -> Account {
        account_with(self.stand.faults.url(), self.region, "AKIATEST", "test")
    }

    pub(crate) fn config(&self) -> Value {
        let (subnet, zone) = &self.subnets[0];
        json!({
            "apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "aws",
            "instanceType": "t3.micro", "image": IMAGE, "iamInstanceProfile": PROFILE,
            "subnets": [{"id": subnet, "availabilityZone": zone}],
            "securityGroups": [self.groups[0]],
            "tags": {"team": "a"},
        })
    }

    /// An order whose instance key is made of the machine's name.
    pub(crate) fn order(&self, cluster: &str, machine: &str) -> CreateInstance {
        CreateInstance {
            owner: Ownership {
                installation: INSTALLATION.into(),
                cluster_key: cluster.into(),
                cluster: "default/eu".into(),
                pool: "web".into(),
                set: "web-1".into(),
                machine: machine.into(),
                instance_key: format!("key-of-{machine}"),
            },
            version: "v1.36.2".into(),
            config: self.config(),
            config_digest: "digest-of-the-order".into(),
            ..CreateInstance::default()
        }
    }

    /// All instances of the region, as EC2 itself shows them: those too that were terminated.
    pub(crate) async fn all(&self) -> Vec<Shown> {
        let found = self.ec2.describe_instances().send().await.unwrap();
        assert_eq!(found.next_token(), None, "there are more of them");
        let found = found.reservations.unwrap_or_default().into_iter();
        found
            .flat_map(|r| r.instances.unwrap_or_default())
            .collect()
    }

    /// Instances with this key that live, as EC2 itself shows them.
    pub(crate) async fn living(&self, key: &str) -> Vec<Shown> {
        let tag = Tag::builder()
            .key("fleetwright.dev/instance-key")
            .value(key)
            .build();
        let all = self.all().await.into_iter();
        all.filter(|i| i.tags().contains(&tag))
            .filter(|i| {
                let state = i.state().and_then(|s| s.name());
                state.is_some_and(|s| *s != InstanceStateName::Terminated)
            })
            .collect()
    }

    /// The instance with this id as EC2 itself shows it.
    pub(crate) async fn shown(&self, id: &str) -> Shown {
        let found = self.ec2.describe_instances().instance_ids(id).send().await;
        let mut all = found.unwrap().reservations.unwrap_or_default();
        all.remove(0).instances.unwrap_or_default().remove(0)
    }

    /// Makes calls in this region go wrong; gives the number of the rule.
    pub(crate) async fn fault(&self, mut rule: Value) -> u64 {
        rule["region"] = json!(self.region);
        self.stand.faults.fault(&rule).await.unwrap()
    }

    pub(crate) async fn fired(&self, rule: u64) -> usize {
        self.stand.faults.fired(rule).await.unwrap()
    }

    pub(crate) async fn mend(&self) {
        self.stand.faults.mend(self.region).await.unwrap();
    }
}

/// Waits a moment between two looks.
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
