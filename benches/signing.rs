//! What one presigned URL costs: ours, aws-sigv4 called plainly, and the floor: the hashing that no signer can avoid once
//! the day's key is known.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as AwsCredentials;
use aws_lc_rs::{digest, hmac};
use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use criterion::{Criterion, criterion_group, criterion_main};
use fleetmint::certificate::Secret;
use fleetmint::sigv4::{Credentials, Signer};

const HOST: &str = "a1b2c3d4e5f6g7-ats.iot.ap-northeast-1.amazonaws.com";
const REGION: &str = "ap-northeast-1";
const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn presigning(c: &mut Criterion) {
    let mut group = c.benchmark_group("presign one URL");
    group.bench_function("floor", floor());
    group.bench_function("fleetmint", ours());
    group.bench_function("aws-sigv4", plain());
    group.finish();
}

fn ours() -> impl FnMut(&mut criterion::Bencher<'_>) {
    let signer = Signer::new(REGION);
    let credentials = Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: Secret::new(SECRET_ACCESS_KEY.to_owned()),
        session_token: None,
    };
    let now = SystemTime::now();
    move |bencher| {
        bencher.iter(|| {
            signer.presign(&credentials, black_box(HOST), "/mqtt", now, None).expect("valid settings")
        });
    }
}

fn plain() -> impl FnMut(&mut criterion::Bencher<'_>) {
    let identity = AwsCredentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "bench").into();
    let now = SystemTime::now();
    let url = format!("https://{HOST}/mqtt");
    move |bencher| {
        bencher.iter(|| {
            let mut settings = SigningSettings::default();
            settings.signature_location = SignatureLocation::QueryParams;
            settings.session_token_mode = SessionTokenMode::Exclude;
            settings.expires_in = Some(Duration::from_secs(300));
            let params = SigningParams::builder()
                .identity(&identity)
                .region(REGION)
                .name("iotdevicegateway")
                .time(now)
                .settings(settings)
                .build()
                .expect("all parameters are given");
            let request =
                SignableRequest::new("GET", black_box(&url), std::iter::empty(), SignableBody::Bytes(&[]));
            sign(request.expect("a valid request"), &params.into()).expect("a request that can be signed")
        });
    }
}

/// One SHA-256 over a canonical request of the usual length and one HMAC over a string to sign, with the day's key known.
fn floor() -> impl FnMut(&mut criterion::Bencher<'_>) {
    let canonical = vec![b'c'; 386];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    move |bencher| {
        bencher.iter(|| {
            let hashed = digest::digest(&digest::SHA256, black_box(&canonical));
            let mut string_to_sign = [b's'; 142];
            string_to_sign[..32].copy_from_slice(hashed.as_ref());
            hmac::sign(&key, &string_to_sign)
        });
    }
}

criterion_group!(benches, presigning);
criterion_main!(benches);
