//! Real keys and certificates: those that the emulated account hands out, and those that its server presents.
//!
//! Owns the device authority ([`Authority`]), the pool that makes certificates ahead ([`Mint`]), the mint of a
//! simulation ([`SeededMint`]) and the server's TLS identity ([`TlsIdentity`]). Who gets a certificate is decided by
//! [`super::account`].

mod authority;
mod csr;
mod pool;
mod seeded;
mod tls;

pub use authority::{Authority, CertifyError};
pub use csr::CsrError;
#[cfg(any(test, fuzzing))]
pub(super) use csr::key_of;
pub use pool::{MAX_STOCK, Mint};
pub use seeded::{READY_KEYS, SeededMint, ready_key};
pub use tls::{TlsAuthority, TlsIdentity};

/// Why a key or a certificate could not be made. It never contains a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step} failed: {detail}")]
pub struct MintError {
    /// The step that failed.
    pub step: &'static str,
    /// The library's error.
    pub detail: String,
}

impl MintError {
    fn in_step(step: &'static str) -> impl Fn(rcgen::Error) -> Self {
        move |error| Self { step, detail: error.to_string() }
    }
}
