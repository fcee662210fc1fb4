//! How the emulated account should behave: plain data, from TOML.
//!
//! Owns every setting of the emulator and its default, and states in one place what is documented and what is a guess.
//! Whatever AWS has not published is a field here, never a constant elsewhere. Acts on none of it: [`super::account`]
//! applies the rules, the server and the simulated network apply the latencies.

mod access;
mod built_in;
mod error;
mod faults;
mod latency;
mod law;
mod limits;
mod quota;
mod refusal;
mod resources;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use access::{AccessKey, DenialAnswer, Denials};
pub use error::ScenarioError;
pub(in crate::emulator) use faults::reason;
pub use faults::{Acts, Fault, FaultRule, FaultTarget, Faults, Framing};
pub use latency::{Latency, Stall};
pub use law::{LONGEST_LATENCY, LatencyLaw, NotALaw};
pub use limits::{Limits, MAX_LEVELS, MAX_PAYLOAD, MAX_TOPIC};
pub use quota::{ConnectExcess, NotAQuota, Quota, Quotas, Window};
pub use refusal::{ErrorText, ErrorTexts, Refusal};
pub use resources::{NamedPolicy, Resources};
pub use units::{NotADuration, parse_duration};

/// The name of the built-in template, which the seed registers with.
pub const BUILT_IN_TEMPLATE: &str = "TEMP_DEVICE";

/// The built-in template: the seed's parameters, a typed thing, an active certificate, one shared policy.
const TEMP_DEVICE: &str = include_str!("../../../fixtures/templates/temp-device.json");

/// How the emulated account behaves. `Default` is the documented service without quotas.
///
/// `fixtures/scenarios/default.toml` spells out every field with its default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The region that signatures must be for.
    pub region: String,
    /// The account's number, 12 digits; it appears in ARNs.
    pub account_id: String,
    /// The access key that the emulator tells its clients. It is AWS's documentation example, and opens nothing
    /// elsewhere.
    pub access_key_id: String,
    /// The access key's secret, also AWS's documentation example. It need not be secret: the emulator tells it to
    /// everyone who starts it.
    pub secret_access_key: String,
    /// The session token that clients must append; `None` if the credentials are not temporary.
    pub session_token: Option<String>,
    /// Further access keys that the emulator accepts.
    pub credentials: Vec<AccessKey>,
    /// IAM actions that are denied to all access keys, whatever their own policies say, such as `iot:DescribeEndpoint`
    /// or `iot:Publish`.
    pub deny: Vec<String>,
    /// How a client is told of a denial over MQTT.
    pub permissions: Denials,
    /// The keys that certificates get.
    pub keys: Keys,
    /// Whether a capitalised `Parameters` is ignored like any unknown field. Otherwise it is accepted, with a counted
    /// warning. AWS documents `parameters`; what it does with the other spelling is unknown.
    pub strict: bool,
    /// Whether a reply is sent only to a requester that has subscribed to its topic. The service was observed to reply
    /// without a subscription, but documents that one is needed.
    pub require_subscription: bool,
    /// How long an ownership token is valid, and an unused certificate kept. Documented: one hour (Developer Guide,
    /// "Device provisioning MQTT API").
    #[serde(deserialize_with = "units::duration")]
    pub token_lifetime: Duration,
    /// Whether a token may register again. What AWS does is unknown.
    pub token_reuse: TokenReuse,
    /// Whether a template's `CertificateId` must be the token's certificate. What AWS does is unknown.
    pub certificate_id_mismatch: CertificateIdMismatch,
    /// What omitted `OverrideSettings` mean for an existing thing. What AWS does is unknown.
    pub override_default: OverrideDefault,
    /// How to treat a parameter that a template declares without a default and a request omits. What AWS does is
    /// unknown.
    pub missing_parameter: MissingParameter,
    /// What a pre-provisioning hook gets as `claimCertificateId` if the client signed its connection and so has no
    /// claim certificate. What AWS does is unknown.
    pub claim_of_signer: ClaimOfSigner,
    /// The account's provisioning templates. Naming any replaces the built-in one.
    pub templates: Vec<NamedTemplate>,
    /// The most versions of a provisioning template. AWS has a limit (CreateProvisioningTemplateVersion), but its value
    /// is unknown.
    pub template_versions: u32,
    /// Whether the resources that a template names must exist.
    pub resources: Resources,
    /// The account's policies, in addition to the built-in template's.
    #[serde(deserialize_with = "resources::policies")]
    pub policies: Vec<NamedPolicy>,
    /// The account's thing types, in addition to the built-in template's.
    #[serde(deserialize_with = "resources::thing_types")]
    pub thing_types: Vec<String>,
    /// The account's thing groups.
    pub thing_groups: Vec<String>,
    /// The account's billing groups.
    pub billing_groups: Vec<String>,
    /// Pre-provisioning hooks: the program to run and its arguments, by the ARN that a template names. The program gets
    /// the function's input on standard input, and writes the function's output to standard output.
    pub hooks: BTreeMap<String, Vec<String>>,
    /// How long a detachment takes to take effect. Documented as several seconds for a certificate from a thing
    /// (DetachThingPrincipal) and up to five minutes for a policy (DeletePolicy); the distribution is unknown.
    #[serde(deserialize_with = "units::duration")]
    pub detach_lag: Duration,
    /// How long a thing type must have been deprecated before it can be deleted. Documented: five minutes (Developer Guide,
    /// "Thing types").
    #[serde(deserialize_with = "units::duration")]
    pub thing_type_deletion_wait: Duration,
    /// The texts of rejections.
    pub errors: ErrorTexts,
    /// How long each operation takes.
    pub latency: Latency,
    /// The quotas of the account and of each connection, per second.
    pub quotas: Quotas,
    /// Limits on what a connection may be and hold.
    pub limits: Limits,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// The seed of the account's randomness: the same seed, requests and certificates give the same answers.
    pub seed: u64,
}

/// The keys that certificates get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// A new RSA 2048 pair for each certificate, as the service makes them.
    Rsa2048,
    /// A new P-256 pair for each certificate: fast, but not what the service makes.
    P256,
    /// The same RSA 2048 pair in all certificates, for load tests. The certificates still differ. They are signed with
    /// P-256, which the service does not do.
    Recycled,
}

/// Whether a token may register again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenReuse {
    /// A token that has registered is refused.
    Reject,
    /// A token may register its certificate again until it expires; the same parameters get the same answer.
    Accept,
}

/// Whether a template's `CertificateId` must be the token's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateIdMismatch {
    /// Any id is accepted: the token alone decides.
    Ignore,
    /// A different id is refused.
    Reject,
}

/// What an omitted override means for an existing thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OverrideDefault {
    /// The thing keeps its values.
    DoNothing,
    /// The template's value replaces the thing's.
    Replace,
    /// The registration is refused.
    Fail,
}

/// How to treat a parameter without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingParameter {
    /// The registration is refused.
    Reject,
    /// The parameter is an empty text.
    Empty,
}

/// What a hook gets as the claim certificate if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimOfSigner {
    /// The field is left out.
    Omitted,
    /// The field is an empty text.
    Empty,
}

/// A provisioning template and its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TemplateEntry")]
pub struct NamedTemplate {
    /// 1 to 36 characters of letters, digits, `_` and `-`.
    pub name: String,
    /// The template's text, or where to read it: a template body, or the output of `aws iot
    /// describe-provisioning-template`.
    pub source: TemplateSource,
    /// The ARN of the template's pre-provisioning hook.
    pub hook: Option<String>,
}

/// Where a template's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateSource {
    /// In a file; [`Scenario::read`] replaces it by the file's text.
    File(PathBuf),
    /// The text itself.
    Body(String),
}

impl Scenario {
    /// Parses a scenario. Templates given as files are not opened: see [`Scenario::read`].
    ///
    /// # Errors
    /// [`ScenarioError::Invalid`] with the line, the key, what was found and what was wanted.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| ScenarioError::in_text(text, &error))
    }

    /// Reads a scenario, and the template files it names, whose paths are relative to the scenario's own folder.
    ///
    /// # Errors
    /// [`ScenarioError`] for an error in the file, or in reading a file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let mut scenario = Self::from_toml(&read(path)?)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for template in &mut scenario.templates {
            if let TemplateSource::File(file) = &template.source {
                template.source = TemplateSource::Body(read(&folder.join(file))?);
            }
        }
        let of_policies = scenario.policies.iter_mut().map(|policy| (&mut policy.file, &mut policy.document));
        let of_keys = scenario.credentials.iter_mut().map(|key| (&mut key.file, &mut key.document));
        for (file, document) in of_policies.chain(of_keys) {
            if let Some(file) = file.take() {
                *document = Some(read(&folder.join(file))?);
            }
        }
        Ok(scenario)
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            region: String::from("us-east-1"),
            account_id: String::from("123456789012"),
            access_key_id: String::from("AKIAIOSFODNN7EXAMPLE"),
            secret_access_key: String::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
            credentials: Vec::new(),
            deny: Vec::new(),
            permissions: Denials::default(),
            keys: Keys::Rsa2048,
            strict: false,
            require_subscription: false,
            token_lifetime: Duration::from_secs(3600),
            token_reuse: TokenReuse::Reject,
            certificate_id_mismatch: CertificateIdMismatch::Ignore,
            override_default: OverrideDefault::DoNothing,
            missing_parameter: MissingParameter::Reject,
            claim_of_signer: ClaimOfSigner::Omitted,
            templates: vec![NamedTemplate {
                name: String::from(BUILT_IN_TEMPLATE),
                source: TemplateSource::Body(String::from(TEMP_DEVICE)),
                hook: None,
            }],
            template_versions: 5,
            resources: Resources::Declared,
            policies: vec![NamedPolicy::built_in()],
            thing_types: vec![String::from(resources::BUILT_IN_TYPE)],
            thing_groups: Vec::new(),
            billing_groups: Vec::new(),
            hooks: BTreeMap::new(),
            detach_lag: Duration::ZERO,
            thing_type_deletion_wait: Duration::from_secs(300),
            errors: ErrorTexts::default(),
            latency: Latency::default(),
            quotas: Quotas::default(),
            limits: Limits::default(),
            faults: Faults::default(),
            seed: 0,
        }
    }
}

/// Whether the service accepts `name` for a provisioning template: `^[0-9A-Za-z_-]+$`, 1 to 36 characters
/// (CreateProvisioningTemplate).
pub fn is_template_name(name: &str) -> bool {
    (1..=36).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn read(path: &Path) -> Result<String, ScenarioError> {
    std::fs::read_to_string(path)
        .map_err(|error| ScenarioError::Unreadable { path: path.to_owned(), detail: error.to_string() })
}

/// A template as written in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateEntry {
    name: String,
    file: Option<PathBuf>,
    body: Option<String>,
    pre_provisioning_hook: Option<String>,
}

impl TryFrom<TemplateEntry> for NamedTemplate {
    type Error = String;

    fn try_from(entry: TemplateEntry) -> Result<Self, Self::Error> {
        if !is_template_name(&entry.name) {
            let name = entry.name.escape_debug();
            return Err(format!("template name `{name}`, expected 1 to 36 letters, digits, `_` or `-`"));
        }
        let source = match (entry.file, entry.body) {
            (Some(file), None) => TemplateSource::File(file),
            (None, Some(body)) => TemplateSource::Body(body),
            (Some(_), Some(_)) => return Err(String::from("both `file` and `body`, expected one of them")),
            (None, None) => return Err(String::from("neither `file` nor `body`, expected one of them")),
        };
        Ok(Self { name: entry.name, source, hook: entry.pre_provisioning_hook })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios").join(name)
    }

    #[test]
    fn an_empty_scenario_is_the_default() {
        assert_eq!(Scenario::from_toml("").unwrap(), Scenario::default());
    }

    #[test]
    fn the_default_fixture_spells_out_every_default() {
        let text = std::fs::read_to_string(fixture("default.toml")).unwrap();
        assert_eq!(Scenario::read(&fixture("default.toml")).unwrap(), Scenario::default());
        // A commented example line counts too: the point is that the reader meets every key.
        for key in [
            "region",
            "account_id",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "valid_for",
            "deny",
            "keys",
            "template_versions",
            "claim_of_signer",
            "missing_parameter",
            "resources",
            "thing_types",
            "thing_groups",
            "billing_groups",
            "document",
            "pre_provisioning_hook",
            "detach_lag",
            "thing_type_deletion_wait",
        ] {
            assert!(text.contains(&format!("{key} =")), "{key}");
        }
        for refusal in Refusal::ALL {
            assert!(text.contains(&format!("[errors.{}]", refusal.name())), "{}", refusal.name());
        }
    }

    #[test]
    fn the_other_fixtures_are_scenarios() {
        let throttled = Scenario::read(&fixture("throttled.toml")).unwrap();
        assert_eq!(throttled.quotas.create_certificate_from_csr, Some("20/s".parse().unwrap()));
        assert_eq!(throttled.quotas.register_thing, Some("10/s".parse().unwrap()));
        assert_eq!(Scenario::read(&fixture("load.toml")).unwrap().keys, Keys::Recycled);
        assert!(Scenario::read(&fixture("strict.toml")).unwrap().strict);
        let rules = |name: &str| Scenario::read(&fixture(name)).unwrap().faults.rules;
        for target in FaultTarget::REQUESTS {
            // Six that exclude each other, and a delay.
            assert_eq!(rules("faults.toml").iter().filter(|rule| rule.on == [target]).count(), 7);
        }
        let kinds: BTreeSet<&str> = rules("hostile.toml").iter().map(|rule| rule.fault.kind()).collect();
        assert!(kinds.len() > 10, "{kinds:?}");
        assert!(rules("calm.toml").is_empty());
        assert!(!rules("flaky.toml").is_empty());
    }

    #[test]
    fn a_scenario_says_what_it_wants() {
        let scenario = Scenario::from_toml(
            r#"
            region = "ap-northeast-1"
            keys = "p256"
            token_lifetime = "90s"
            token_reuse = "accept"
            override_default = "REPLACE"
            seed = 7
            [latency]
            register_thing = "250ms"
            [quotas]
            create_keys_and_certificate = "10/s"
            [errors.throttled]
            code = "TooManyRequests"
            [[templates]]
            name = "Other"
            file = "other.json"
            "#,
        )
        .unwrap();
        assert_eq!(
            (scenario.region.as_str(), scenario.keys, scenario.seed),
            ("ap-northeast-1", Keys::P256, 7)
        );
        assert_eq!(scenario.token_lifetime, Duration::from_secs(90));
        assert_eq!(scenario.token_reuse, TokenReuse::Accept);
        assert_eq!(scenario.override_default, OverrideDefault::Replace);
        assert_eq!(scenario.latency.register_thing, Duration::from_millis(250).into());
        assert_eq!(scenario.quotas.register_thing, None);
        let throttled = scenario.errors.text(Refusal::Throttled);
        assert_eq!((throttled.status, throttled.code.as_str()), (429, "TooManyRequests"));
        assert_eq!(scenario.templates[0].source, TemplateSource::File("other.json".into()));
    }

    #[test]
    fn a_template_file_is_read_from_the_scenarios_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.json"), "{}").unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(&path, "[[templates]]\nname = \"T\"\nfile = \"t.json\"\n").unwrap();
        let scenario = Scenario::read(&path).unwrap();
        assert_eq!(scenario.templates[0].source, TemplateSource::Body("{}".into()));
        std::fs::remove_file(folder.path().join("t.json")).unwrap();
        let error = Scenario::read(&path).unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains("cannot be read"), "{error}");
    }
}
