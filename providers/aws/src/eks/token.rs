//! A token for the API of a cluster of EKS: a request to STS that tells who we are, signed and not sent. The cluster sends it.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4::SigningParams,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{ProviderError, managed::Access};
use jiff::{SignedDuration, Timestamp};

use super::terminal;

/// Names the cluster; part of what is signed, so that a token is good for one cluster alone.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// Seconds that the request says it may wait: what EKS' own tools say. EKS counts from its date alone.
const REQUEST_SECONDS: u64 = 60;
/// How long EKS takes a token: fifteen minutes, one of which is left for clocks that differ.
const LIFE: SignedDuration = SignedDuration::from_mins(14);

/// A token for the cluster of this name in this region.
///
/// # Errors
/// The request cannot be signed.
pub(crate) fn token(
    credentials: &Credentials,
    region: &str,
    cluster: &str,
    now: Timestamp,
) -> Result<Access, ProviderError> {
    let failed = |e: String| terminal(format!("a token cannot be made: {e}"));
    let end = if region.starts_with("cn-") { ".cn" } else { "" };
    let url = format!(
        "https://sts.{region}.amazonaws.com{end}/?Action=GetCallerIdentity&Version=2011-06-15"
    );
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(REQUEST_SECONDS));
    let identity = credentials.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(SystemTime::from(now))
        .settings(settings)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let headers = [(CLUSTER_HEADER, cluster)];
    let body = SignableBody::Bytes(&[]);
    let request = SignableRequest::new("GET", url.as_str(), headers.into_iter(), body);
    let request = request.map_err(|e| failed(e.to_string()))?;
    let signed = sign(request, &params.into()).map_err(|e| failed(e.to_string()))?;
    let (instructions, _) = signed.into_parts();
    let mut request = http::Request::get(&url)
        .header(CLUSTER_HEADER, cluster)
        .body(())
        .map_err(|e| failed(e.to_string()))?;
    instructions.apply_to_request_http1x(&mut request);
    let url = URL_SAFE_NO_PAD.encode(request.uri().to_string());
    let whole = now.checked_add(LIFE).unwrap_or(now);
    // STS takes nothing of a session that has ended.
    let session = credentials.expiry().map(Timestamp::try_from);
    Ok(Access {
        token: SecretText::new(format!("k8s-aws-v1.{url}")),
        expires: session
            .and_then(Result::ok)
            .map_or(whole, |end| end.min(whole)),
    })
}
