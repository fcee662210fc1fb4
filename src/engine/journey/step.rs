//! The steps of a device's way, each once: a request, its answer, and what the ledger is told of it.
//!
//! Owns the checkpoint after which a key cannot be lost, and the proofs of it that requests are made from. Retries
//! nothing.

use std::time::SystemTime;

use bytes::Bytes;

use crate::call::Call;
use crate::certificate::{IssuedCertificate, RegisteredThing, SigningRequest, StoredKey};
use crate::engine::context::{Context, Halt};
use crate::engine::line::{Attempt, Line};
use crate::event::{Change, DeviceId, Registration, Timing};
use crate::failure::{Cause, Failure};
use crate::identity::{Identity, ParameterPlan};
use crate::keys;
use crate::ledger::{Receipt, Recorded};
use crate::provisioning::{self, Request};
use crate::transport::Connector;

/// How long a step took, and what came of it.
pub(in crate::engine) type Outcome<T> = (Timing, Result<T, Failure>);

/// A durable certificate, and what is known of its registration.
pub(in crate::engine) struct Issued {
    pub(in crate::engine) certificate: Recorded<IssuedCertificate>,
    pub(in crate::engine) issued_at: SystemTime,
    pub(in crate::engine) registration: Registration,
    pub(in crate::engine) origin: Origin,
}

/// Which run a certificate was issued in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Origin {
    ThisRun,
    EarlierRun,
}

/// Who has the private key of a certification request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Holder {
    /// The ledger.
    Ledger,
    /// The device alone.
    Device,
}

/// Publishes one message to the connection's own topic, and waits until it comes back.
pub(in crate::engine) async fn publish<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    message: Bytes,
) -> Result<Outcome<()>, Halt> {
    let request = provisioning::publish_request(message);
    let Attempt { timing, answer } = line.exchange(&request, &run.limits.publish).await?;
    let outcome = match answer {
        Ok(came) if came == request.payload => Ok(()),
        Ok(_) => Err(line.anomaly(Call::Publish, String::from("another message came back")).await),
        Err(failure) => Err(failure),
    };
    Ok((timing, outcome))
}

/// Makes one request for a certificate: CreateCertificateFromCsr if there is a signing request, else
/// CreateKeysAndCertificate. If it is accepted, the certificate is durable on return.
pub(in crate::engine) async fn obtain<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    device: DeviceId,
    request: Option<(&Recorded<SigningRequest>, Holder)>,
) -> Result<Outcome<Issued>, Halt> {
    match request {
        Some((request, holder)) => certify(run, line, device, request, holder).await,
        None => create_keys(run, line, device).await,
    }
}

/// Makes a CreateKeysAndCertificate request. The key is sealed before anything else gets it.
async fn create_keys<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    device: DeviceId,
) -> Result<Outcome<Issued>, Halt> {
    let request = provisioning::create_request();
    let Attempt { timing, answer } = line.exchange(&request, &run.limits.create).await?;
    let issued_at = run.clock.now();
    let certificate = match answer {
        Ok(certificate) => certificate,
        Err(failure) => return Ok((timing, Err(failure))),
    };
    let certificate = match run.device.keys.seal_to {
        None => certificate.map_key(StoredKey::Plain),
        Some(_) => run.compute(line, move |policy| certificate.map_key(|key| policy.keep(key))).await,
    };
    let change = Change::Issued { device, certificate };
    Ok((timing, record_issued(run, line, request.call, change, issued_at).await?))
}

/// Makes a CreateCertificateFromCsr request. A certificate for another key is an anomaly.
async fn certify<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    device: DeviceId,
    request: &Recorded<SigningRequest>,
    holder: Holder,
) -> Result<Outcome<Issued>, Halt> {
    let asked = csr_request(request);
    let Attempt { timing, answer } = line.exchange(&asked, &run.limits.create).await?;
    let issued_at = run.clock.now();
    let certificate = match answer {
        Ok(certificate) => certificate,
        Err(failure) => return Ok((timing, Err(failure))),
    };
    if let Err(mismatch) = keys::check_certificate(request, &certificate.certificate_pem) {
        return Ok((timing, Err(line.anomaly(asked.call, mismatch.to_string()).await)));
    }
    let change = match holder {
        Holder::Ledger => Change::Certified { device, certificate },
        Holder::Device => {
            Change::Issued { device, certificate: certificate.map_key(|()| StoredKey::Elsewhere) }
        }
    };
    Ok((timing, record_issued(run, line, asked.call, change, issued_at).await?))
}

/// The checkpoint: after it the key cannot be lost.
async fn record_issued<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    call: Call,
    change: Change,
    issued_at: SystemTime,
) -> Result<Result<Issued, Failure>, Halt> {
    match run.commit(line, change).await? {
        Receipt::Issued(certificate) => {
            let (registration, origin) = (Registration::NotSent, Origin::ThisRun);
            Ok(Ok(Issued { certificate, issued_at, registration, origin }))
        }
        Receipt::Conflict(conflict) => Ok(Err(line.anomaly(call, conflict.to_string()).await)),
        Receipt::Done | Receipt::KeyPrepared(_) => {
            unreachable!("the ledger answers a certificate with itself or a conflict")
        }
    }
}

/// Makes one RegisterThing request; `None` if the token got too old before it could be sent. If it is accepted, the
/// registration is durable on return. `issued` is updated with what is known of it.
pub(in crate::engine) async fn register<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    device: DeviceId,
    issued: &mut Issued,
    request: &Request<RegisteredThing>,
) -> Result<Option<Outcome<()>>, Halt> {
    let Some((timing, answer)) = ask_to_register(run, line, issued, request).await? else { return Ok(None) };
    let registered = match answer {
        Ok(thing) => record_registered(run, line, device, thing).await?,
        Err(failure) => Err(failure),
    };
    Ok(Some((timing, registered)))
}

/// Makes the exchange of [`register`] alone: an accepted registration is not in the ledger yet.
pub(super) async fn ask_to_register<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    issued: &mut Issued,
    request: &Request<RegisteredThing>,
) -> Result<Option<Outcome<RegisteredThing>>, Halt> {
    let within = run.fresh_for(issued.issued_at);
    let attempt = line.exchange_within(request, &run.limits.register, within).await?;
    let Some(Attempt { timing, answer }) = attempt else { return Ok(None) };
    if answer.as_ref().map_or_else(Failure::may_have_acted, |_| true) {
        issued.registration = Registration::MaySent;
    }
    // Where the template has no thing, the answers of all devices are alike: on the same connection, the next one's could
    // not be told from this one's, delivered again.
    if answer.as_ref().is_ok_and(|thing| thing.thing_name.is_empty()) {
        line.retire();
    }
    Ok(Some((timing, answer)))
}

pub(super) async fn record_registered<C: Connector>(
    run: &Context<C>,
    line: &mut Line<C>,
    device: DeviceId,
    thing: RegisteredThing,
) -> Result<Result<(), Failure>, Halt> {
    match run.commit(line, Change::Registered { device, thing }).await? {
        Receipt::Conflict(conflict) => Ok(Err(line.anomaly(Call::RegisterThing, conflict.to_string()).await)),
        Receipt::Done | Receipt::Issued(_) | Receipt::KeyPrepared(_) => Ok(Ok(())),
    }
}

/// The ledger's entry for a device that got no certificate.
pub(in crate::engine) fn not_issued(device: DeviceId, failure: Failure) -> Change {
    if is_final(&failure) && !failure.may_have_acted() {
        Change::Rejected { device, failure }
    } else {
        Change::Left { device, registration: Registration::NotSent, failure: Some(failure) }
    }
}

/// The ledger's entry for a device that was not registered, if only its last failure is known.
pub(in crate::engine) fn not_registered(
    device: DeviceId,
    registration: Registration,
    failure: Failure,
) -> Change {
    if is_refused(&failure) && registration == Registration::NotSent {
        Change::Rejected { device, failure }
    } else {
        Change::Left { device, registration, failure: Some(failure) }
    }
}

/// Whether the service has refused, for a reason other than the rate.
fn is_final(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Rejected { .. }) && !failure.is_throttle()
}

/// Whether the service refused a registration because of its content.
pub(super) fn is_refused(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Rejected { status_code: 400..=499, .. }) && !failure.is_throttle()
}

/// The CreateCertificateFromCsr request. Takes the proof that the key is durable: requesting a certificate for a key
/// that could be lost does not compile.
fn csr_request(request: &Recorded<SigningRequest>) -> Request<IssuedCertificate<()>> {
    provisioning::csr_request(request)
}

/// The RegisterThing request. Takes the proof that the key is durable: registering a certificate whose key could be
/// lost does not compile.
pub(in crate::engine) fn register_request(
    parameters: &ParameterPlan,
    identity: &Identity,
    certificate: &Recorded<IssuedCertificate>,
) -> Request<RegisteredThing> {
    let parameters = parameters.expand(identity, certificate.certificate_id.as_str());
    let parameters: Vec<_> = parameters.into_iter().collect();
    let pairs = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
    provisioning::register_request(&certificate.ownership_token, pairs)
}
