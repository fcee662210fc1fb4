//! Connects this crate's own clients to an emulator.

use std::sync::Arc;

use super::scenario::Scenario;
use super::server::Emulator;
use crate::certificate::Secret;
use crate::provisioning::Topics;
use crate::sigv4::Credentials;
use crate::transport::wss::{Authentication, WssSettings};

impl Scenario {
    /// The credentials of the access key that the emulator tells its clients.
    pub fn client_credentials(&self) -> Credentials {
        Credentials {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: Secret::new(self.secret_access_key.clone()),
            session_token: self.session_token.clone().map(Secret::new),
        }
    }
}

impl Emulator {
    /// Settings to dial the emulator over signed WebSockets with these topics: its address, region, access key and CA.
    pub fn client_settings(&self, topics: Topics) -> WssSettings {
        let scenario = self.scenario();
        let endpoint = self.endpoint().parse().expect("the emulator's own endpoint is one");
        let authentication = Authentication::Signature(Arc::new(scenario.client_credentials()));
        WssSettings {
            extra_roots: self.ca_pem().as_bytes().to_vec(),
            ..WssSettings::new(endpoint, scenario.region.clone(), topics, authentication)
        }
    }
}
