//! The control plane: what the account's owner requests over HTTPS.
//!
//! [`IOT`], [`STS`] and [`SERVICE_QUOTAS`] list each operation with its path and its function: adding an operation
//! takes a row and a function. Sources: AWS IoT, STS and Service Quotas API References, as of botocore's service
//! models.

mod catalogue;
mod certificates;
mod endpoint;
mod groups;
mod page;
mod policies;
mod principals;
mod reply;
mod request;
mod service_quotas;
mod templates;
mod thing_types;
mod things;

use std::time::SystemTime;

use super::account::{AccountError, Action};
use super::http::{Head, Response};
use super::mint::CertifyError;
use super::scenario::Scenario;
use super::service::Service;
use super::verify::{SignedRequest, claimed_access_key, verify_header};
use reply::ApiError;
use request::{Call, Material, Query};

pub(super) use request::Owner;

type Answer = Result<serde_json::Value, ApiError>;

/// An operation: its path, the permission it needs, and the function that performs it.
struct Row {
    method: &'static str,
    /// The path's segments; those in braces are names, which the function gets in order. In services with a single
    /// path, the operation's name instead.
    path: &'static str,
    name: &'static str,
    /// The IAM action that the caller needs permission for; empty if none is needed.
    permission: &'static str,
    perform: fn(&mut Call<'_>) -> Answer,
}

macro_rules! operations {
    ($($method:ident $path:literal $name:ident $permission:literal $perform:path;)*) => {
        &[$(Row {
            method: stringify!($method),
            path: $path,
            name: stringify!($name),
            permission: $permission,
            perform: $perform,
        },)*]
    };
}

/// AWS IoT.
const IOT: &[Row] = operations! {
    POST   "/provisioning-templates"               CreateProvisioningTemplate    "iot:CreateProvisioningTemplate"    templates::create;
    GET    "/provisioning-templates"               ListProvisioningTemplates     "iot:ListProvisioningTemplates"     templates::list;
    GET    "/provisioning-templates/{}"            DescribeProvisioningTemplate  "iot:DescribeProvisioningTemplate"  templates::describe;
    PATCH  "/provisioning-templates/{}"            UpdateProvisioningTemplate    "iot:UpdateProvisioningTemplate"    templates::update;
    DELETE "/provisioning-templates/{}"            DeleteProvisioningTemplate    "iot:DeleteProvisioningTemplate"    templates::delete;
    POST   "/provisioning-templates/{}/versions"   CreateProvisioningTemplateVersion "iot:CreateProvisioningTemplateVersion" templates::create_version;
    GET    "/provisioning-templates/{}/versions"   ListProvisioningTemplateVersions "iot:ListProvisioningTemplateVersions" templates::list_versions;
    GET    "/provisioning-templates/{}/versions/{}" DescribeProvisioningTemplateVersion "iot:DescribeProvisioningTemplateVersion" templates::describe_version;
    DELETE "/provisioning-templates/{}/versions/{}" DeleteProvisioningTemplateVersion "iot:DeleteProvisioningTemplateVersion" templates::delete_version;
    POST   "/provisioning-templates/{}/provisioning-claim" CreateProvisioningClaim "iot:CreateProvisioningClaim"     templates::create_claim;
    POST   "/things"                               RegisterThing                 "iot:RegisterThing"                 templates::register_thing;

    POST   "/things/{}"                            CreateThing                   "iot:CreateThing"                   things::create;
    GET    "/things"                               ListThings                    "iot:ListThings"                    things::list;
    GET    "/things/{}"                            DescribeThing                 "iot:DescribeThing"                 things::describe;
    PATCH  "/things/{}"                            UpdateThing                   "iot:UpdateThing"                   things::update;
    DELETE "/things/{}"                            DeleteThing                   "iot:DeleteThing"                   things::delete;

    PUT    "/things/{}/principals"                 AttachThingPrincipal          "iot:AttachThingPrincipal"          principals::attach;
    DELETE "/things/{}/principals"                 DetachThingPrincipal          "iot:DetachThingPrincipal"          principals::detach;
    GET    "/things/{}/principals"                 ListThingPrincipals           "iot:ListThingPrincipals"           principals::of_thing;
    GET    "/things/{}/principals-v2"              ListThingPrincipalsV2         "iot:ListThingPrincipalsV2"         principals::of_thing_v2;
    GET    "/principals/things"                    ListPrincipalThings           "iot:ListPrincipalThings"           principals::things;
    GET    "/principals/things-v2"                 ListPrincipalThingsV2         "iot:ListPrincipalThingsV2"         principals::things_v2;

    POST   "/keys-and-certificate"                 CreateKeysAndCertificate      "iot:CreateKeysAndCertificate"      certificates::create_keys;
    POST   "/certificates"                         CreateCertificateFromCsr      "iot:CreateCertificateFromCsr"      certificates::create_from_csr;
    POST   "/certificate/register-no-ca"           RegisterCertificateWithoutCA  "iot:RegisterCertificateWithoutCA"  certificates::register;
    GET    "/certificates"                         ListCertificates              "iot:ListCertificates"              certificates::list;
    GET    "/certificates/{}"                      DescribeCertificate           "iot:DescribeCertificate"           certificates::describe;
    PUT    "/certificates/{}"                      UpdateCertificate             "iot:UpdateCertificate"             certificates::update;
    DELETE "/certificates/{}"                      DeleteCertificate             "iot:DeleteCertificate"             certificates::delete;

    POST   "/policies/{}"                          CreatePolicy                  "iot:CreatePolicy"                  policies::create;
    GET    "/policies"                             ListPolicies                  "iot:ListPolicies"                  policies::list;
    GET    "/policies/{}"                          GetPolicy                     "iot:GetPolicy"                     policies::describe;
    DELETE "/policies/{}"                          DeletePolicy                  "iot:DeletePolicy"                  policies::delete;
    POST   "/policies/{}/version"                  CreatePolicyVersion           "iot:CreatePolicyVersion"           policies::create_version;
    GET    "/policies/{}/version"                  ListPolicyVersions            "iot:ListPolicyVersions"            policies::list_versions;
    GET    "/policies/{}/version/{}"               GetPolicyVersion              "iot:GetPolicyVersion"              policies::describe_version;
    PATCH  "/policies/{}/version/{}"               SetDefaultPolicyVersion       "iot:SetDefaultPolicyVersion"       policies::set_default_version;
    DELETE "/policies/{}/version/{}"               DeletePolicyVersion           "iot:DeletePolicyVersion"           policies::delete_version;
    PUT    "/target-policies/{}"                   AttachPolicy                  "iot:AttachPolicy"                  policies::attach;
    POST   "/target-policies/{}"                   DetachPolicy                  "iot:DetachPolicy"                  policies::detach;
    POST   "/attached-policies/{}"                 ListAttachedPolicies          "iot:ListAttachedPolicies"          policies::of_target;
    POST   "/policy-targets/{}"                    ListTargetsForPolicy          "iot:ListTargetsForPolicy"          policies::targets;
    PUT    "/principal-policies/{}"                AttachPrincipalPolicy         "iot:AttachPrincipalPolicy"         policies::attach_principal;
    DELETE "/principal-policies/{}"                DetachPrincipalPolicy         "iot:DetachPrincipalPolicy"         policies::detach_principal;
    GET    "/principal-policies"                   ListPrincipalPolicies         "iot:ListPrincipalPolicies"         policies::of_principal;
    GET    "/policy-principals"                    ListPolicyPrincipals          "iot:ListPolicyPrincipals"          policies::principals;

    POST   "/thing-types/{}"                       CreateThingType               "iot:CreateThingType"               thing_types::create;
    GET    "/thing-types"                          ListThingTypes                "iot:ListThingTypes"                thing_types::list;
    GET    "/thing-types/{}"                       DescribeThingType             "iot:DescribeThingType"             thing_types::describe;
    POST   "/thing-types/{}/deprecate"             DeprecateThingType            "iot:DeprecateThingType"            thing_types::deprecate;
    DELETE "/thing-types/{}"                       DeleteThingType               "iot:DeleteThingType"               thing_types::delete;

    POST   "/thing-groups/{}"                      CreateThingGroup              "iot:CreateThingGroup"              groups::create;
    GET    "/thing-groups"                         ListThingGroups               "iot:ListThingGroups"               groups::list;
    GET    "/thing-groups/{}"                      DescribeThingGroup            "iot:DescribeThingGroup"            groups::describe;
    PATCH  "/thing-groups/{}"                      UpdateThingGroup              "iot:UpdateThingGroup"              groups::update;
    DELETE "/thing-groups/{}"                      DeleteThingGroup              "iot:DeleteThingGroup"              groups::delete;
    GET    "/thing-groups/{}/things"               ListThingsInThingGroup        "iot:ListThingsInThingGroup"        groups::things;
    GET    "/things/{}/thing-groups"               ListThingGroupsForThing       "iot:ListThingGroupsForThing"       groups::of_thing;
    PUT    "/thing-groups/addThingToThingGroup"    AddThingToThingGroup          "iot:AddThingToThingGroup"          groups::add;
    PUT    "/thing-groups/removeThingFromThingGroup" RemoveThingFromThingGroup   "iot:RemoveThingFromThingGroup"     groups::remove;
    PUT    "/thing-groups/updateThingGroupsForThing" UpdateThingGroupsForThing   "iot:UpdateThingGroupsForThing"     groups::update_for_thing;

    POST   "/billing-groups/{}"                    CreateBillingGroup            "iot:CreateBillingGroup"            groups::create_billing;
    GET    "/billing-groups"                       ListBillingGroups             "iot:ListBillingGroups"             groups::list_billing;
    GET    "/billing-groups/{}"                    DescribeBillingGroup          "iot:DescribeBillingGroup"          groups::describe_billing;
    PATCH  "/billing-groups/{}"                    UpdateBillingGroup            "iot:UpdateBillingGroup"            groups::update_billing;
    DELETE "/billing-groups/{}"                    DeleteBillingGroup            "iot:DeleteBillingGroup"            groups::delete_billing;
    GET    "/billing-groups/{}/things"             ListThingsInBillingGroup      "iot:ListThingsInBillingGroup"      groups::things_billing;
    PUT    "/billing-groups/addThingToBillingGroup" AddThingToBillingGroup       "iot:AddThingToBillingGroup"        groups::add_billing;
    PUT    "/billing-groups/removeThingFromBillingGroup" RemoveThingFromBillingGroup "iot:RemoveThingFromBillingGroup" groups::remove_billing;

    GET    "/endpoint"                             DescribeEndpoint              "iot:DescribeEndpoint"              endpoint::describe;
};

/// AWS STS: its operation needs no permission.
const STS: &[Row] = operations! {
    POST "GetCallerIdentity" GetCallerIdentity "" endpoint::caller_identity;
};

/// Service Quotas.
const SERVICE_QUOTAS: &[Row] = operations! {
    POST "GetServiceQuota" GetServiceQuota "servicequotas:GetServiceQuota" service_quotas::applied;
    POST "GetAWSDefaultServiceQuota" GetAWSDefaultServiceQuota "servicequotas:GetAWSDefaultServiceQuota" service_quotas::default;
    POST "ListServiceQuotas" ListServiceQuotas "servicequotas:ListServiceQuotas" service_quotas::list_applied;
    POST "ListAWSDefaultServiceQuotas" ListAWSDefaultServiceQuotas "servicequotas:ListAWSDefaultServiceQuotas" service_quotas::list_default;
    POST "ListServices" ListServices "servicequotas:ListServices" service_quotas::services;
};

/// Checks that every action that the scenario denies is one that the emulator checks.
///
/// # Errors
/// [`AccountError::NotEnforced`] for an action that is never checked.
pub(super) fn check_denied(scenario: &Scenario) -> Result<(), AccountError> {
    match scenario.deny.iter().find(|action| !is_permission(action)) {
        Some(action) => Err(AccountError::NotEnforced { action: action.clone() }),
        None => Ok(()),
    }
}

/// Checks that every control plane quota is for an operation that the emulator offers.
///
/// # Errors
/// [`AccountError::NoSuchOperation`] for any other name.
pub(super) fn check_quotas(scenario: &Scenario) -> Result<(), AccountError> {
    let is_known = |name: &str| [IOT, STS, SERVICE_QUOTAS].into_iter().flatten().any(|row| row.name == name);
    match scenario.quotas.control_plane.keys().find(|name| !is_known(name)) {
        Some(name) => Err(AccountError::NoSuchOperation { name: name.clone() }),
        None => Ok(()),
    }
}

fn is_permission(action: &str) -> bool {
    let mut rows = IOT.iter().chain(SERVICE_QUOTAS);
    Action::ALL.iter().any(|known| known.name() == action) || rows.any(|row| row.permission == action)
}

/// A service of the control plane. All share one port here, and are told apart by their protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    /// rest-json: each operation has a path.
    Iot,
    /// The query protocol: the operation is named in a form.
    Sts,
    /// JSON 1.1: the operation is named in a header.
    ServiceQuotas,
}

/// The operation that a request asks for.
enum Asked {
    /// A known operation, with the names in its path.
    Known(&'static Row, Vec<String>),
    /// The name of an operation that the service has but the emulator lacks.
    Missing(String),
    /// No operation.
    Nothing,
}

impl Api {
    fn of(head: &Head) -> Self {
        let is_form = head.header("content-type").is_some_and(|kind| kind.contains("x-www-form-urlencoded"));
        match (head.method.as_str(), head.path()) {
            ("POST", "/") if head.header("x-amz-target").is_some() => Self::ServiceQuotas,
            ("POST", "/") if is_form => Self::Sts,
            _ => Self::Iot,
        }
    }

    /// The service names that a signature may use. Older SDKs sign for `execute-api`.
    fn signing_names(self) -> &'static [&'static str] {
        match self {
            Self::Iot => &["iot", "execute-api"],
            Self::Sts => &["sts"],
            Self::ServiceQuotas => &["servicequotas"],
        }
    }

    fn find(self, head: &Head, body: &[u8]) -> Asked {
        let by_name = |table: &'static [Row], name: &str| match table.iter().find(|row| row.name == name) {
            Some(row) => Asked::Known(row, Vec::new()),
            None => Asked::Missing(name.to_owned()),
        };
        match self {
            Self::Iot => find_path(&head.method, head.path()),
            Self::Sts => by_name(STS, Query::of_form(body).text("Action").unwrap_or_default()),
            Self::ServiceQuotas => {
                let target = head.header("x-amz-target").unwrap_or_default();
                by_name(SERVICE_QUOTAS, target.rsplit('.').next().unwrap_or_default())
            }
        }
    }
}

/// The operation for `method` and `path`; the path is as received.
fn find_path(method: &str, path: &str) -> Asked {
    // Split before decoding: an ARN in a path contains an escaped slash.
    let segments: Option<Vec<String>> = path.split('/').skip(1).map(request::decode).collect();
    let Some(segments) = segments else { return Asked::Nothing };
    let matching = |pattern: &str| {
        let pattern: Vec<&str> = pattern.split('/').skip(1).collect();
        let is_name = |part: &str| part.starts_with('{');
        let mut both = pattern.iter().zip(&segments);
        let fits =
            pattern.len() == segments.len() && both.all(|(part, found)| is_name(part) || part == found);
        fits.then(|| {
            let named = pattern.iter().zip(&segments).filter(|(part, _)| is_name(part));
            named.map(|(_, name)| name.clone()).collect::<Vec<_>>()
        })
    };
    // A path without names goes before one that would take its last segment for a name.
    let mut found: Vec<_> = IOT
        .iter()
        .filter(|row| row.method == method)
        .filter_map(|row| Some((row, matching(row.path)?)))
        .collect();
    found.sort_by_key(|(_, names)| names.len());
    match found.into_iter().next() {
        Some((row, names)) => Asked::Known(row, names),
        None => match catalogue::name(method, |path| matching(path).is_some()) {
            Some(name) => Asked::Missing(name.to_owned()),
            None => Asked::Nothing,
        },
    }
}

/// Answers a request that is not an upgrade and is correctly signed. `None` if the changes it made cannot be stored.
pub(super) async fn respond(
    service: &Service,
    head: &Head,
    body: &[u8],
    now: SystemTime,
) -> Option<Response> {
    let api = Api::of(head);
    let signed = SignedRequest { method: &head.method, target: &head.target, headers: &head.headers };
    if let Err(refusal) =
        verify_header(&signed, body, &service.control_realm(&signed, api.signing_names()), now)
    {
        tracing::debug!(%refusal, "control plane request refused");
        service.counts.forbidden.add();
        return Some(reply::forbidden(&refusal, now));
    }
    service.counts.control_requests.add();
    let answer = match api.find(head, body) {
        Asked::Known(row, names) => perform(service, &signed, row, names, body, now).await,
        Asked::Missing(name) => Err(ApiError::missing(&name)),
        Asked::Nothing => Err(ApiError::unknown_path(&head.method, head.path())),
    };
    service.settled().await.ok()?;
    Some(reply::response(api, answer, now))
}

async fn perform(
    service: &Service,
    signed: &SignedRequest<'_>,
    row: &Row,
    names: Vec<String>,
    body: &[u8],
    now: SystemTime,
) -> Answer {
    let owner =
        Owner { scenario: &service.scenario, port: service.port, host: &service.host, age: service.age() };
    if !service.account(|account| account.admit_operation(service.age(), row.name)) {
        return Err(ApiError::throttled());
    }
    let signer = claimed_access_key(signed).unwrap_or_default();
    let may = row.permission.is_empty()
        || service.account(|account| account.signer_allows(&signer, row.permission));
    if !may {
        return Err(ApiError::access_denied(&service.scenario.account_id, row.permission));
    }
    let material = match request::needs(row.name, body)? {
        request::Needs::Nothing => Material::None,
        request::Needs::Keys => Material::Keys(service.mint.take(service.clients.number()).await),
        request::Needs::Certificate(csr) => match service.certify(csr).await {
            Ok(certified) => Material::Certified(certified),
            Err(CertifyError::Csr(error)) => {
                return Err(ApiError::invalid(format!(
                    "The certificate signing request is not valid: {error}."
                )));
            }
            Err(CertifyError::Mint(error)) => return Err(ApiError::internal(error.to_string())),
        },
    };
    service.account(|account| {
        account.expire(now);
        let query = Query::of_target(signed.target);
        (row.perform)(&mut Call { owner: &owner, account, now, names, query, signed, body, material })
    })
}

impl Owner<'_> {
    fn arn(&self, resource: &str, name: impl std::fmt::Display) -> String {
        format!("arn:aws:iot:{}:{}:{resource}/{name}", self.scenario.region, self.scenario.account_id)
    }
}

/// Parses a request's path, query and body, for fuzzing.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(target: &str, body: &[u8]) {
    let _ = (request::Query::of_target(target), request::Query::of_form(body), request::decode(target));
    let _ = request::parse::<serde_json::Value>(body);
}

#[cfg(test)]
mod tests;
