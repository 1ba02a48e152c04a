//! What AWS' errors mean.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::{
    assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError,
};
use fleetwright_providers::ProviderError;

/// Milliseconds of patience that a throttled call is asked for: so long, AWS' buckets refill by a few calls.
const PATIENCE_MS: u64 = 2_000;
/// Most characters of AWS' own words.
const MOST_WORDS: usize = 600;
/// What is said for people with other rights follows here, differently each time.
const ENCODED: &str = "Encoded authorization failure message";

/// A call, for its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    operation: &'static str,
    writes: bool,
}

/// A call that changes nothing.
pub(crate) const fn reads(operation: &'static str) -> Call {
    Call {
        operation,
        writes: false,
    }
}

/// A call that changes something, and may have done so though its answer never came.
pub(crate) const fn writes(operation: &'static str) -> Call {
    Call {
        operation,
        writes: true,
    }
}

/// What an error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Throttled,
    Quota,
    NoCapacity,
    Credentials,
    NotFound,
    /// Refused before anything was done; the next try may fare better.
    Unavailable,
    /// Failed, nobody knows how far.
    Unknown,
    Terminal,
}

const CODES: &[(Meaning, &[&str])] = &[
    (
        Meaning::Throttled,
        &[
            "BandwidthLimitExceeded",
            "ConcurrentTagAccess",
            "EC2ThrottledException",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "TooManyUpdates",
        ],
    ),
    (
        Meaning::Quota,
        &[
            "MaxIOPSLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "ResourceCountExceeded",
            "TooManyListeners",
            "TooManyLoadBalancers",
            "TooManyTargetGroups",
            "TooManyTargets",
            "TooManyRegistrationsForTargetId",
        ],
    ),
    (
        Meaning::NoCapacity,
        &[
            "InsufficientAddressCapacity",
            "InsufficientCapacity",
            "InsufficientCapacityOnHost",
            "InsufficientFreeAddressesInSubnet",
            "InsufficientHostCapacity",
            "InsufficientInstanceCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientVolumeCapacity",
            "ReservationCapacityExceeded",
            "SpotMaxPriceTooLow",
            "UnfulfillableCapacity",
        ],
    ),
    (
        Meaning::Credentials,
        &[
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "Blocked",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "NotAuthorized",
            "OptInRequired",
            "PendingVerification",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
        ],
    ),
    (
        Meaning::NotFound,
        &[
            "InvalidInstanceID.Malformed",
            "InvalidInstanceID.NotFound",
            "ListenerNotFound",
            "LoadBalancerNotFound",
            "ParameterNotFound",
            "ResourceNotFoundException",
            "TargetGroupNotFound",
        ],
    ),
    (
        Meaning::Unavailable,
        &[
            "ResourceInUseException",
            "ServerBusy",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "Unavailable",
        ],
    ),
    (
        Meaning::Unknown,
        &[
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "RequestTimeout",
            "RequestTimeoutException",
        ],
    ),
];

/// What this code means, in an answer of this HTTP status.
fn meaning(code: &str, status: u16) -> Meaning {
    let listed = CODES.iter().find(|(_, codes)| codes.contains(&code));
    if let Some((meaning, _)) = listed {
        return *meaning;
    }
    // VcpuLimitExceeded, InstanceLimitExceeded, and one for each thing that is counted. How many tags a thing has is no quota.
    let limit = code.strip_suffix("Exception").unwrap_or(code);
    if limit.ends_with("LimitExceeded") && limit != "TagLimitExceeded" {
        return Meaning::Quota;
    }
    match status {
        401 | 403 => Meaning::Credentials,
        429 => Meaning::Throttled,
        503 => Meaning::Unavailable,
        status if (400..500).contains(&status) => Meaning::Terminal,
        // Also an answer of success that cannot be read.
        _ => Meaning::Unknown,
    }
}

/// The error of a call that was answered with one.
fn answered(call: Call, code: &str, status: u16, words: &str) -> ProviderError {
    let words = words.split(ENCODED).next().unwrap_or_default().trim();
    let end = words.char_indices().nth(MOST_WORDS).map(|(at, _)| at);
    let words = end.and_then(|end| words.get(..end)).unwrap_or(words);
    let operation = call.operation;
    let message = match (code, words) {
        ("", "") => format!("{operation}: HTTP {status}"),
        ("", words) => format!("{operation}: HTTP {status}: {words}"),
        (code, "") => format!("{operation}: {code}"),
        (code, words) => format!("{operation}: {code}: {words}"),
    };
    match meaning(code, status) {
        Meaning::Throttled => ProviderError::Throttled {
            after_ms: PATIENCE_MS,
        },
        Meaning::Quota => ProviderError::Quota {
            message: format!("{message}; quotas are raised in AWS' Service Quotas"),
        },
        Meaning::NoCapacity => ProviderError::NoCapacity { message },
        Meaning::Credentials => ProviderError::Credentials { message },
        Meaning::NotFound => ProviderError::NotFound { message },
        Meaning::Unknown if call.writes => ProviderError::Ambiguous { message },
        Meaning::Unknown | Meaning::Unavailable => ProviderError::Unavailable { message },
        Meaning::Terminal => ProviderError::Terminal { message },
    }
}

/// Something among the causes of an error.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = error.source();
    }
    text
}

/// What STS answered, where the error comes of an answer of its.
fn answer_of_sts(error: &(dyn Error + 'static)) -> Option<(String, u16)> {
    fn answer<E>(error: &SdkError<E>) -> Option<(String, u16)>
    where
        E: ProvideErrorMetadata,
    {
        let SdkError::ServiceError(service) = error else {
            return None;
        };
        let code = service.err().code().unwrap_or_default();
        Some((code.to_owned(), service.raw().status().as_u16()))
    }
    cause::<SdkError<AssumeRoleError>>(error)
        .and_then(answer)
        .or_else(|| cause::<SdkError<AssumeRoleWithWebIdentityError>>(error).and_then(answer))
}

/// Whether credentials that could not be had were refused: otherwise the next try may fare better.
fn is_refused(error: &CredentialsError) -> bool {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            true
        }
        _ => answer_of_sts(error).is_some_and(|(code, status)| {
            let passes = matches!(
                meaning(&code, status),
                Meaning::Throttled | Meaning::Unavailable | Meaning::Unknown
            );
            (400..500).contains(&status) && !passes
        }),
    }
}

/// What it means that credentials cannot be had for this operation.
pub(crate) fn of_credentials(operation: &str, error: &CredentialsError) -> ProviderError {
    without_credentials(format!("{operation}: {}", chain(error)), error)
}

fn without_credentials(message: String, error: &CredentialsError) -> ProviderError {
    match is_refused(error) {
        true => ProviderError::Credentials { message },
        false => ProviderError::Unavailable { message },
    }
}

/// The error of a call that was not answered, or not in words that can be read.
fn unanswered(call: Call, error: &(dyn Error + 'static)) -> ProviderError {
    let message = format!("{}: {}", call.operation, chain(error));
    if let Some(own) = cause::<CredentialsError>(error) {
        return without_credentials(message, own);
    }
    let never_sent = cause::<hyper_util::client::legacy::Error>(error)
        .is_some_and(hyper_util::client::legacy::Error::is_connect);
    if call.writes && !never_sent {
        ProviderError::Ambiguous { message }
    } else {
        ProviderError::Unavailable { message }
    }
}

/// The error code of an answer.
pub(crate) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
}

/// What an answer that refuses nothing must show. Only an error of its own says that something is not there.
pub(crate) fn shown<T>(operation: &str, found: Option<T>) -> Result<T, ProviderError> {
    found.ok_or_else(|| ProviderError::Unavailable {
        message: format!("{operation}: the answer shows nothing of what was asked for"),
    })
}

/// What AWS' words may be told of: those on a value that it refuses repeat the value.
fn words_on_secrets<'a>(code: &str, status: u16, words: &'a str) -> &'a str {
    match meaning(code, status) {
        Meaning::Credentials => words,
        _ => "",
    }
}

/// What a failed call means that carried secrets.
pub(crate) fn told_of_secrets<E>(call: Call, error: SdkError<E>) -> ProviderError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    told_in(words_on_secrets, call, error)
}

/// What a failed call means.
pub(crate) fn told<E>(call: Call, error: SdkError<E>) -> ProviderError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    told_in(|_, _, words| words, call, error)
}

fn told_in<E>(
    tell: for<'a> fn(&str, u16, &'a str) -> &'a str,
    call: Call,
    error: SdkError<E>,
) -> ProviderError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let (code, words) = (service.err().code(), service.err().message());
            let of = code.unwrap_or_default();
            let words = tell(of, status, words.unwrap_or_default());
            let error = answered(call, of, status, words);
            tracing::debug!(operation = call.operation, code, status, %error, "AWS refuses");
            error
        }
        SdkError::ConstructionFailure(_) if cause::<CredentialsError>(&error).is_none() => {
            ProviderError::Terminal {
                message: format!("{}: {}", call.operation, chain(&error)),
            }
        }
        _ => unanswered(call, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(call: Call, code: &str, status: u16) -> &'static str {
        answered(call, code, status, "words").word()
    }

    #[test]
    fn codes_mean_what_is_to_be_done() {
        for (code, status, expected) in [
            ("RequestLimitExceeded", 503, "Throttled"),
            ("Throttling", 400, "Throttled"),
            ("ThrottlingException", 400, "Throttled"),
            ("", 429, "Throttled"),
            ("InsufficientInstanceCapacity", 500, "NoCapacity"),
            ("InsufficientReservedInstanceCapacity", 400, "NoCapacity"),
            ("InsufficientFreeAddressesInSubnet", 400, "NoCapacity"),
            ("SpotMaxPriceTooLow", 400, "NoCapacity"),
            ("VcpuLimitExceeded", 400, "QuotaExceeded"),
            ("InstanceLimitExceeded", 400, "QuotaExceeded"),
            ("MaxSpotInstanceCountExceeded", 400, "QuotaExceeded"),
            ("VolumeLimitExceeded", 400, "QuotaExceeded"),
            ("TooManyLoadBalancers", 400, "QuotaExceeded"),
            ("ParameterLimitExceeded", 400, "QuotaExceeded"),
            ("ResourceLimitExceededException", 400, "QuotaExceeded"),
            ("TagLimitExceeded", 400, "Terminal"),
            ("UnauthorizedOperation", 403, "CredentialsRefused"),
            ("AccessDenied", 403, "CredentialsRefused"),
            ("AuthFailure", 401, "CredentialsRefused"),
            ("InvalidClientTokenId", 403, "CredentialsRefused"),
            ("ExpiredToken", 400, "CredentialsRefused"),
            ("RequestExpired", 400, "CredentialsRefused"),
            ("SignatureDoesNotMatch", 403, "CredentialsRefused"),
            ("", 403, "CredentialsRefused"),
            ("InvalidInstanceID.NotFound", 400, "NotFound"),
            ("InvalidInstanceID.Malformed", 400, "NotFound"),
            ("LoadBalancerNotFound", 400, "NotFound"),
            ("InvalidAMIID.NotFound", 400, "Terminal"),
            ("InvalidSubnetID.NotFound", 400, "Terminal"),
            ("InvalidParameterValue", 400, "Terminal"),
            ("InvalidParameterCombination", 400, "Terminal"),
            ("Unsupported", 400, "Terminal"),
            ("OperationNotPermitted", 400, "Terminal"),
            ("IdempotentParameterMismatch", 400, "Terminal"),
            ("ServiceUnavailable", 503, "Unavailable"),
            ("Unavailable", 503, "Unavailable"),
            ("", 503, "Unavailable"),
        ] {
            for call in [reads("DescribeInstances"), writes("RunInstances")] {
                assert_eq!(word(call, code, status), expected, "{code} {status}");
            }
        }
        for (code, status) in [
            ("InternalError", 500),
            ("InternalFailure", 500),
            ("", 500),
            ("", 502),
            ("", 200),
        ] {
            assert_eq!(
                word(reads("DescribeInstances"), code, status),
                "Unavailable"
            );
            assert_eq!(word(writes("RunInstances"), code, status), "Ambiguous");
        }
        let mut all: Vec<&str> = CODES
            .iter()
            .flat_map(|(_, codes)| *codes)
            .copied()
            .collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count, "a code means two things");
    }

    #[test]
    fn words_are_the_same_each_time_and_bounded() {
        let said = "You are not authorized. User: a. Encoded authorization failure message: 5xY";
        let error = answered(writes("RunInstances"), "UnauthorizedOperation", 403, said);
        assert_eq!(
            error.to_string(),
            "credentials refused: RunInstances: UnauthorizedOperation: You are not authorized. User: a."
        );
        let long = answered(reads("DescribeImages"), "InvalidX", 400, &"é".repeat(5000));
        assert!(long.to_string().chars().count() < 700);
    }

    #[test]
    fn what_was_never_sent_is_not_ambiguous() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(unanswered(writes("RunInstances"), &io).word(), "Ambiguous");
        assert_eq!(
            unanswered(reads("DescribeInstances"), &io).word(),
            "Unavailable"
        );
        let none = CredentialsError::not_loaded("nothing in the environment");
        let error = unanswered(writes("RunInstances"), &none);
        assert_eq!(error.word(), "CredentialsRefused");
        assert!(
            error.to_string().contains("nothing in the environment"),
            "{error}"
        );
    }

    #[test]
    fn only_what_sts_refuses_is_refused() {
        use aws_sdk_ec2::{config::http::HttpResponse, error::ErrorMetadata};
        let answer = |code: &str, status: u16| {
            let raw = HttpResponse::new(status.try_into().unwrap(), "".into());
            let error = AssumeRoleError::generic(ErrorMetadata::builder().code(code).build());
            CredentialsError::provider_error(SdkError::service_error(error, raw))
        };
        let lost = SdkError::<AssumeRoleError, HttpResponse>::timeout_error("too late");
        for (error, word) in [
            (answer("AccessDenied", 403), "CredentialsRefused"),
            (answer("ExpiredToken", 400), "CredentialsRefused"),
            (answer("ValidationError", 400), "CredentialsRefused"),
            (answer("Throttling", 400), "Unavailable"),
            (answer("", 429), "Unavailable"),
            (answer("InternalFailure", 500), "Unavailable"),
            (answer("ServiceUnavailable", 503), "Unavailable"),
            (CredentialsError::provider_error(lost), "Unavailable"),
            (CredentialsError::unhandled("odd"), "Unavailable"),
            (
                CredentialsError::invalid_configuration("a loop"),
                "CredentialsRefused",
            ),
        ] {
            let words = error.to_string();
            assert_eq!(of_credentials("AssumeRole", &error).word(), word, "{words}");
            let call = writes("RunInstances");
            assert_eq!(unanswered(call, &error).word(), word, "{words}");
        }
    }

    #[test]
    fn a_value_that_is_refused_is_not_repeated() {
        let secret = "c2VjcmV0".repeat(512);
        let said = format!("1 validation error detected: Value '{secret}' at 'value'");
        for (code, status, words) in [
            ("ValidationException", 400, ""),
            ("InternalServerError", 500, ""),
            ("", 400, ""),
            ("AccessDeniedException", 400, said.as_str()),
        ] {
            assert_eq!(words_on_secrets(code, status, &said), words);
        }
    }
}
