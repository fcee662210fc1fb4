//! Claim certificates: what devices are shipped with to provision themselves.
//!
//! Owns what a claim may do: fleet provisioning, and nothing else. Source: AWS IoT Developer Guide, "Provisioning by claim".

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::change::Key;
use super::{Account, Certificate, CertificateStatus, Certified, Policy};

/// The name of the policy of every claim.
const CLAIM_POLICY: &str = "fleetmint-provisioning-claim";
const CLAIM_DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["arn:aws:iot:*:*:topic/$aws/certificates/create/*",
"arn:aws:iot:*:*:topic/$aws/certificates/create-from-csr/*","arn:aws:iot:*:*:topic/$aws/provisioning-templates/*/provision/*"]},
{"Effect":"Allow","Action":"iot:Subscribe","Resource":["arn:aws:iot:*:*:topicfilter/$aws/certificates/create/*",
"arn:aws:iot:*:*:topicfilter/$aws/certificates/create-from-csr/*",
"arn:aws:iot:*:*:topicfilter/$aws/provisioning-templates/*/provision/*"]}]}"#;

impl Account {
    /// Registers a claim certificate: active, and allowed fleet provisioning.
    pub fn register_claim(&mut self, now: SystemTime, certified: Certified) {
        let policy = Policy { document: Some(CLAIM_DOCUMENT.to_owned()) };
        self.state.policies.entry(CLAIM_POLICY.to_owned()).or_insert(policy);
        let certificate = Certificate {
            pem: certified.certificate_pem,
            status: CertificateStatus::Active,
            created: now,
            things: BTreeSet::new(),
            policies: BTreeSet::from([CLAIM_POLICY.to_owned()]),
        };
        self.touched.add(Key::Policy, CLAIM_POLICY);
        self.touched.add(Key::Certificate, &certified.certificate_id);
        self.state.certificates.insert(certified.certificate_id, certificate);
    }
}
