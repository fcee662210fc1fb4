//! A target that is ready to be dialled and queried.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::reach::Reach;
use super::{claim_error, is_loopback};
use crate::aftercare::connect::Door;
use crate::cli::exit::Fatal;
use crate::cli::recording;
use crate::cli::settings::usage;
use crate::control_plane::{AskError, AwsSettings, ControlPlane, DescribedTemplate, Settler};
use crate::emulator::Emulator;
use crate::endpoint::Endpoint;
use crate::provisioning::Topics;
use crate::results;
use crate::transport::wss::{Authentication, SettingsError, WssConnector, WssSettings};

/// A target that is ready to be dialled.
pub(in crate::cli) struct Site {
    /// The emulator, if it runs in this process; to be shut down at the end.
    pub(in crate::cli) emulator: Option<Emulator>,
    pub(in crate::cli) endpoint: Endpoint,
    pub(super) reach: Reach,
    pub(super) client_id_prefix: String,
    pub(super) authentication: Authentication,
    /// Whether the account can be queried: with a claim there may be no credentials for it.
    pub(super) can_ask: bool,
}

impl Site {
    /// Shuts down the emulator, if it runs in this process.
    pub(in crate::cli) async fn close(self) {
        if let Some(emulator) = self.emulator {
            emulator.shutdown().await;
        }
    }

    /// The AWS region.
    pub(in crate::cli) fn region(&self) -> &str {
        &self.reach.region
    }

    /// A client of the control plane.
    pub(in crate::cli) fn control_plane(&self) -> ControlPlane {
        ControlPlane::new(self.settings(self.reach.services.iot.as_deref()))
    }

    /// Settings for Service Quotas.
    pub(in crate::cli) fn service_quotas(&self) -> AwsSettings {
        self.settings(self.reach.services.service_quotas.as_deref())
    }

    /// Settings for STS.
    pub(in crate::cli) fn sts(&self) -> AwsSettings {
        self.settings(self.reach.services.sts.as_deref())
    }

    fn settings(&self, configured: Option<&str>) -> AwsSettings {
        self.reach.settings(configured, Some(&self.endpoint))
    }

    /// Whether it is dialled with a claim certificate.
    pub(in crate::cli) fn has_claim(&self) -> bool {
        matches!(self.authentication, Authentication::Claim(_))
    }

    /// Whether the account can be queried.
    pub(in crate::cli) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Queries a provisioning template.
    pub(in crate::cli) async fn template(&self, name: &str) -> Result<DescribedTemplate, AskError> {
        self.control_plane().template(name).await
    }

    /// Where devices connect.
    pub(in crate::cli) fn door(&self, timeout: Duration) -> Door {
        Door {
            endpoint: self.endpoint.clone(),
            region: self.reach.region.clone(),
            extra_roots: self.reach.extra_roots.clone(),
            proxies: self.reach.proxies.clone(),
            timeout,
        }
    }

    /// Whether it is an emulator, in this process or elsewhere on this machine.
    pub(in crate::cli) fn is_emulated(&self) -> bool {
        is_loopback(&self.endpoint)
    }

    /// What reports say about it.
    pub(in crate::cli) fn told(&self) -> results::Site {
        results::Site {
            endpoint: self.endpoint.host_header(),
            region: self.reach.region.clone(),
            host: recording::host(),
            is_emulator: self.is_emulated(),
        }
    }

    /// Finds out whether a registration happened whose answer was lost; `None` if the account cannot be queried.
    pub(in crate::cli) fn settler(&self) -> Option<Arc<dyn Settler>> {
        self.can_ask.then(|| Arc::new(self.control_plane()) as Arc<dyn Settler>)
    }

    /// A connector for these topics. A dial may take `timeout`.
    pub(in crate::cli) fn connector(&self, topics: Topics, timeout: Duration) -> Result<WssConnector, Fatal> {
        let (region, authentication) = (self.reach.region.clone(), self.authentication.clone());
        let settings = WssSettings {
            client_id_prefix: self.client_id_prefix.clone(),
            connect_timeout: timeout,
            extra_roots: self.reach.extra_roots.clone(),
            proxies: self.reach.proxies.clone(),
            ..WssSettings::new(self.endpoint.clone(), region, topics, authentication)
        };
        WssConnector::new(settings).map_err(|error| match error {
            SettingsError::Trust(error) => usage("--ca-file", error),
            SettingsError::Claim(error) => claim_error(error),
            SettingsError::ClientIdPrefix { .. } => usage("--client-id-prefix", error),
        })
    }

    /// A remark about the target for measured figures.
    pub(in crate::cli) fn sharing(&self) -> &'static str {
        match &self.emulator {
            Some(_) => ", which shares this machine's cores: the figures are of both",
            None => "",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.emulator {
            Some(_) => f.write_str("the built-in emulator"),
            None if self.has_claim() => write!(f, "mqtts://{}", self.endpoint.authority()),
            None => self.endpoint.fmt(f),
        }
    }
}
