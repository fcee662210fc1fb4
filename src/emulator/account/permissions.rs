//! What a principal may do: for a certificate, what its attached policies allow; for a signer, what its access key's
//! policy allows; in both cases less what the scenario denies to all.
//!
//! Owns which documents apply, and the values of their variables; [`super::super::policy`] evaluates the documents.
//! Source: AWS IoT Developer Guide, "AWS IoT Core policies", "Basic AWS IoT Core policy variables" and "Thing policy
//! variables".

use super::super::policy::{Attempt, Decision, Document, decide};
use super::state::{Certificate, CertificateStatus};
use super::{Account, Rules};

/// An action over MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// CONNECT with a client id.
    Connect,
    /// PUBLISH to a topic.
    Publish,
    /// SUBSCRIBE to a filter.
    Subscribe,
    /// Delivery of a message on a topic.
    Receive,
}

/// The principal of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The owner of this access key, which signed the connection's upgrade.
    Signer(String),
    /// The owner of the private key of the certificate with this id.
    Certificate(String),
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 4] = [Action::Connect, Action::Publish, Action::Subscribe, Action::Receive];

    /// The action's name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Action::Connect => "iot:Connect",
            Action::Publish => "iot:Publish",
            Action::Subscribe => "iot:Subscribe",
            Action::Receive => "iot:Receive",
        }
    }

    /// The prefix of the name in the ARN of the action's resource.
    fn resource(self) -> &'static str {
        match self {
            Action::Connect => "client",
            Action::Publish | Action::Receive => "topic",
            Action::Subscribe => "topicfilter",
        }
    }
}

impl Account {
    /// Whether `principal`, connected as `client_id`, may do `action` with `name`: a client id, a topic or a filter.
    pub fn allows(&self, principal: &Principal, client_id: &str, action: Action, name: &str) -> bool {
        let arn = self.rules.arn(action.resource(), name);
        let id = match principal {
            Principal::Signer(access_key_id) => {
                let variable = |name: &str| (name == "iot:ClientId").then(|| client_id.to_owned());
                return self.rules.signer_may(access_key_id, action.name(), Some(&arn), &variable);
            }
            Principal::Certificate(id) => id,
        };
        let Some(certificate) = self.state.certificate(id) else { return false };
        if certificate.status != CertificateStatus::Active {
            return false;
        }
        let policies = certificate.policies.iter().filter_map(|name| self.state.policies.get(name));
        let documents: Vec<Document> =
            policies.filter_map(|policy| Document::parse(policy.documents.current()).ok()).collect();
        let variable = |name: &str| variable(name, client_id, certificate);
        let attempt = Attempt { action: action.name(), resource: Some(&arn), variable: &variable };
        decide(&documents, &attempt) == Decision::Allowed
    }

    /// Whether the owner of an access key may perform an action on the control plane: an IAM action such as
    /// `iot:CreateThing`.
    pub fn signer_allows(&self, access_key_id: &str, action: &str) -> bool {
        self.rules.signer_may(access_key_id, action, None, &|_| None)
    }

    /// Whether the certificate with this id may open a connection.
    pub fn is_active(&self, certificate_id: &str) -> bool {
        let certificate = self.state.certificate(certificate_id);
        certificate.is_some_and(|certificate| certificate.status == CertificateStatus::Active)
    }

    /// Starts recording touched certificates for [`Account::take_deactivated`].
    pub fn watch_certificates(&mut self) {
        self.touched.watch_certificates();
    }

    /// The certificates touched since the last call that are not active.
    pub fn take_deactivated(&mut self) -> Vec<String> {
        let touched = self.touched.take_certificates().into_iter().map(|id| id.to_string());
        touched.filter(|id| !self.is_active(id)).collect()
    }
}

impl Rules {
    /// A key without a policy of its own may do everything that is not denied to all.
    fn signer_may(
        &self,
        access_key_id: &str,
        action: &str,
        resource: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> bool {
        let document = self.access_keys.get(access_key_id);
        let attempt = Attempt { action, resource, variable };
        !self.denied.iter().any(|denied| denied == action)
            && document.is_none_or(|document| decide([document], &attempt) == Decision::Allowed)
    }
}

/// The value of a policy variable on a connection; `None` if it has no value. The thing is known if its name is the
/// client id and the certificate is attached to it.
fn variable(name: &str, client_id: &str, certificate: &Certificate) -> Option<String> {
    let is_attached = certificate.things.contains(client_id);
    match name {
        "iot:ClientId" => Some(client_id.to_owned()),
        "iot:Connection.Thing.ThingName" => is_attached.then(|| client_id.to_owned()),
        "iot:Connection.Thing.IsAttached" => Some(is_attached.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::super::scenario::Scenario;
    use super::super::{Fingerprint, Policy, State, Versions};
    use super::*;

    fn account(documents: &[&str], things: &[&str]) -> Account {
        let mut state = State::new(0);
        let mut certificate = Certificate::new("", CertificateStatus::Active, SystemTime::UNIX_EPOCH);
        for (number, document) in documents.iter().enumerate() {
            let documents = Versions::first(document, SystemTime::UNIX_EPOCH);
            state.policies.insert(format!("p{number}"), Policy { documents });
            certificate.policies.insert(&format!("p{number}"));
        }
        certificate.things = things.iter().copied().collect();
        state.certificates.insert(Fingerprint::of(b"c"), certificate);
        Account::resume(&Scenario::default(), state).unwrap()
    }

    fn allows(account: &Account, client_id: &str, action: Action, name: &str) -> bool {
        account.allows(&Principal::Certificate(Fingerprint::of(b"c").to_string()), client_id, action, name)
    }

    #[test]
    fn statements_allow_by_action_resource_and_variables() {
        let account = account(
            &[r#"{"Version":"2012-10-17","Statement":[
                {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:123456789012:client/${iot:ClientId}"},
                {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["arn:aws:iot:us-east-1:123456789012:topic/dt/${iot:Connection.Thing.ThingName}/*"]},
                {"Effect":"Allow","Action":"iot:subscribe","Resource":"arn:aws:iot:*:*:topicfilter/dt/?/cmd"}]}"#],
            &["a"],
        );
        assert!(allows(&account, "a", Action::Connect, "a"));
        assert!(allows(&account, "a", Action::Publish, "dt/a/x"));
        assert!(!allows(&account, "a", Action::Publish, "dt/b/x"));
        assert!(!allows(&account, "b", Action::Publish, "dt/b/x"), "not attached to b");
        assert!(allows(&account, "a", Action::Subscribe, "dt/a/cmd"));
        assert!(!allows(&account, "a", Action::Subscribe, "dt/aa/cmd"));
        assert!(!allows(&account, "*", Action::Publish, "dt/a/x"), "a client id is no pattern");
    }

    #[test]
    fn a_denial_wins_and_silence_is_one() {
        let all =
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;
        let none = r#"{"Statement":[{"Effect":"Deny","Action":"*","Resource":"*/secret"}]}"#;
        assert!(allows(&account(&[all], &[]), "a", Action::Publish, "secret"));
        assert!(!allows(&account(&[all, none], &[]), "a", Action::Publish, "secret"));
        assert!(!allows(&account(&[], &[]), "a", Action::Connect, "a"));
    }

    #[test]
    fn an_access_key_may_do_what_its_own_policy_says_less_what_all_are_denied() {
        let scenario = r#"
            deny = ["iot:DeleteThing"]
            [[credentials]]
            access_key_id = "narrow"
            secret_access_key = "s"
            document = '''{"Statement":[
                {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${iot:ClientId}-x"},
                {"Effect":"Allow","Action":"iot:*Thing","Resource":"arn:aws:iot:*:*:thing/a"}]}'''
        "#;
        let account = Account::new(&Scenario::from_toml(scenario).unwrap()).unwrap();
        let signer = |key: &str| Principal::Signer(key.to_owned());
        assert!(account.allows(&signer("wide"), "a", Action::Publish, "t"));
        assert!(!account.allows(&signer("narrow"), "a", Action::Publish, "t"));
        assert!(account.allows(&signer("narrow"), "a", Action::Connect, "a-x"));
        assert!(!account.allows(&signer("narrow"), "a", Action::Connect, "a"));
        assert!(account.signer_allows("narrow", "iot:CreateThing"), "whatever the resource");
        assert!(!account.signer_allows("narrow", "iot:ListThings"));
        assert!(account.signer_allows("wide", "iot:ListThings"));
        assert!(
            !account.signer_allows("wide", "iot:DeleteThing")
                && !account.signer_allows("narrow", "iot:DeleteThing")
        );

        let wrong = Scenario::from_toml(&scenario.replace("Allow", "Permit")).unwrap();
        let error = Account::new(&wrong).unwrap_err().to_string();
        assert!(error.starts_with("policy of access key narrow: policy document is malformed"), "{error}");
    }

    #[test]
    fn a_condition_on_the_thing_is_met_or_not() {
        let document = r#"{"Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*",
            "Condition":{"Bool":{"iot:Connection.Thing.IsAttached":["true"]}}}]}"#;
        let account = account(&[document], &["a"]);
        assert!(allows(&account, "a", Action::Connect, "a"));
        assert!(!allows(&account, "b", Action::Connect, "b"));
    }
}
