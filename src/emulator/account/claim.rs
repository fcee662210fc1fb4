//! Claim certificates, which devices are shipped with to provision themselves.
//!
//! Owns what a claim may do: fleet provisioning, and nothing else. Source: AWS IoT Developer Guide, "Provisioning by
//! claim".

use std::time::SystemTime;

use super::{Account, Certificate, CertificateStatus, Certified, Fingerprint, Policy, Versions};

/// The name of the policy that every claim has.
const CLAIM_POLICY: &str = "fleetmint-provisioning-claim";
const CLAIM_DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["arn:aws:iot:*:*:topic/$aws/certificates/create/*",
"arn:aws:iot:*:*:topic/$aws/certificates/create-from-csr/*","arn:aws:iot:*:*:topic/$aws/provisioning-templates/*/provision/*"]},
{"Effect":"Allow","Action":"iot:Subscribe","Resource":["arn:aws:iot:*:*:topicfilter/$aws/certificates/create/*",
"arn:aws:iot:*:*:topicfilter/$aws/certificates/create-from-csr/*",
"arn:aws:iot:*:*:topicfilter/$aws/provisioning-templates/*/provision/*"]}]}"#;

impl Account {
    /// Registers a claim certificate, active and permitted to do fleet provisioning only.
    pub fn register_claim(&mut self, now: SystemTime, certified: Certified) {
        let Ok(id) = certified.certificate_id.parse::<Fingerprint>() else { return };
        if !self.state.policies.contains_key(CLAIM_POLICY) {
            let policy = Policy { documents: Versions::first(CLAIM_DOCUMENT, now) };
            self.put(CLAIM_POLICY.to_owned(), policy);
        }
        let mut certificate = Certificate::new(&certified.certificate_pem, CertificateStatus::Active, now);
        certificate.policies.insert(CLAIM_POLICY);
        self.put(id, certificate);
    }
}
