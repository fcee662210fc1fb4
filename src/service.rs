//! The documented behaviour of AWS IoT Core: each fact once, with its source and how reliable it is.
//!
//! The tags state the reliability: **\[V\]** read in AWS's documentation, API model or SDK source; **\[V-old\]** read
//! there, but in an edition that may be out of date; **\[R\]** reported by users. Quotas are those of a new account;
//! [`crate::control_plane::account_quotas`] queries an account's own. The emulator keeps a separate list, so that it
//! can serve as a check on this one.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::rate::Rate;

/// How long an ownership token is valid. An unregistered certificate is deleted when its token expires.
///
/// \[V\] Developer Guide, "Device provisioning MQTT API".
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// The age at which the service closes a WebSocket.
///
/// \[V-old\] AWS IoT Core quotas, "WebSocket connection duration".
pub const WEBSOCKET_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// The MQTT keep-alives that the service accepts unchanged, in seconds; it raises or lowers others to the nearest of
/// these.
///
/// \[V-old\] AWS IoT Core quotas, "keep-alive interval".
pub const KEEP_ALIVE_S: RangeInclusive<u64> = 30..=1_200;

/// How many messages per second one connection may carry, in and out together. The service discards the rest; no
/// account can raise this quota.
///
/// \[V-old\] General Reference, "publish requests per second per connection".
pub const PUBLISHES_PER_CONNECTION: Rate = per_second(100.0);

/// The largest MQTT payload, in bytes.
///
/// \[V-old\] AWS IoT Core quotas, "message size".
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// The longest topic, in bytes.
///
/// \[V-old\] AWS IoT Core quotas, "topic size".
pub const MAX_TOPIC: usize = 256;

/// The most slashes in a topic.
///
/// \[V-old\] AWS IoT Core quotas, "maximum number of slashes in topic and topic filter".
pub const MAX_TOPIC_SLASHES: usize = 7;

/// The longest client id, in bytes. A leading `$` is reserved.
///
/// \[V-old\] AWS IoT Core quotas, "client ID size".
pub const MAX_CLIENT_ID: usize = 128;

/// The longest name of a provisioning template, in characters.
///
/// \[V\] API Reference, `TemplateName`.
pub const MAX_TEMPLATE_NAME: usize = 36;

/// The longest body of a provisioning template, in characters.
///
/// \[V\] API Reference, `TemplateBody`.
pub const MAX_TEMPLATE_BODY: usize = 10_240;

/// The longest name of a template parameter, in characters.
///
/// \[V\] API Reference, RegisterThing, `parameters`.
pub const MAX_PARAMETER_NAME: usize = 2_048;

/// The longest value of a template parameter, in characters.
///
/// \[V\] API Reference, RegisterThing, `parameters`.
pub const MAX_PARAMETER_VALUE: usize = 4_096;

/// The most attributes of a thing without a thing type.
///
/// \[V\] Developer Guide, "Thing types".
pub const MAX_ATTRIBUTES_WITHOUT_TYPE: usize = 3;

/// The most attributes of a thing with a thing type.
///
/// \[V\] Developer Guide, "Thing types".
pub const MAX_ATTRIBUTES_WITH_TYPE: usize = 50;

/// The most groups that a thing can be in.
///
/// \[V\] Developer Guide, "Static thing groups".
pub const MAX_GROUPS: usize = 10;

/// The most policies that can be attached to a certificate.
///
/// \[V-old\] AWS IoT Core quotas, "policies attached to a certificate".
pub const MAX_POLICIES: usize = 10;

/// The longest policy document, in characters other than white space.
///
/// \[V-old\] AWS IoT Core quotas, "policy document size".
pub const MAX_POLICY_DOCUMENT: usize = 2_048;

/// The longest certificate signing request, in characters of PEM.
///
/// \[V\] API Reference, CreateCertificateFromCsr.
pub const MAX_SIGNING_REQUEST: usize = 4_096;

/// The smallest RSA key that the service certifies, in bits.
///
/// \[V\] API Reference, CreateCertificateFromCsr.
pub const MIN_RSA_BITS: usize = 2_048;

/// The number of hexadecimal digits in a certificate id.
///
/// \[V\] API Reference, `CertificateId`.
pub const CERTIFICATE_ID_DIGITS: usize = 64;

/// The service name that WebSocket URLs are signed for.
///
/// \[V\] Developer Guide, "MQTT over WebSocket".
pub const SIGNING_NAME: &str = "iotdevicegateway";

/// The path of WebSocket connections that carry MQTT.
///
/// \[V\] Developer Guide, "MQTT over WebSocket".
pub const MQTT_PATH: &str = "/mqtt";

/// The port of MQTT over mutual TLS without ALPN.
///
/// \[V\] Developer Guide, "Device communication protocols".
pub const MQTT_PORT: u16 = 8_883;

/// The ALPN protocol of MQTT over mutual TLS on any other port.
///
/// \[V\] Developer Guide, "Device communication protocols".
pub const MQTT_ALPN: &[u8] = b"x-amzn-mqtt-ca";

/// The type of the endpoint that devices connect to, for DescribeEndpoint.
///
/// \[V\] API Reference, DescribeEndpoint.
pub const ENDPOINT_TYPE: &str = "iot:Data-ATS";

/// AWS IoT Core's name in Service Quotas.
///
/// \[V-old\] Service Quotas, as of February 2024.
pub const QUOTA_SERVICE: &str = "iotcore";

/// A quota that limits provisioning: requests per second, per account and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// MQTT CONNECT.
    Connect,
    /// CreateKeysAndCertificate over MQTT.
    CreateKeysAndCertificate,
    /// CreateCertificateFromCsr over MQTT.
    CreateCertificateFromCsr,
    /// RegisterThing over MQTT.
    RegisterThing,
}

impl Quota {
    /// The quota's code in Service Quotas.
    ///
    /// \[V-old\] Service Quotas, as of February 2024.
    pub fn code(self) -> &'static str {
        match self {
            Quota::Connect => "L-AEA1E176",
            Quota::CreateKeysAndCertificate => "L-CAFFCA46",
            Quota::CreateCertificateFromCsr => "L-83161BB8",
            Quota::RegisterThing => "L-B2BBBD8C",
        }
    }

    /// The value for a new account.
    ///
    /// \[V-old\] Service Quotas, as of February 2024.
    pub const fn aws_default(self) -> Rate {
        match self {
            Quota::Connect => per_second(500.0),
            Quota::CreateKeysAndCertificate | Quota::RegisterThing => per_second(10.0),
            Quota::CreateCertificateFromCsr => per_second(20.0),
        }
    }
}

const fn per_second(n: f64) -> Rate {
    Rate::per_second(n).expect("a constant that is a rate")
}
