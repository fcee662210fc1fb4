//! PEM (RFC 7468) as devices' certificates and keys use it: one block, with nothing after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A PEM block.
#[derive(Debug)]
pub struct PemBlock<'t> {
    /// The label, such as `CERTIFICATE`.
    pub label: &'t str,
    /// The content, never empty.
    pub der: Zeroizing<Vec<u8>>,
}

/// Why a text is not exactly one PEM block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOnePemBlock {
    /// It does not begin with a block, or the block is malformed, empty or encrypted.
    Malformed,
    /// Something follows the block.
    TextAfterEnd,
    /// Another block follows.
    SecondBlock,
}

impl<'t> PemBlock<'t> {
    /// Reads `text`, which must be one block; white space around it is ignored.
    ///
    /// # Errors
    /// [`NotOnePemBlock`] if it is anything else.
    pub fn read(text: &'t str) -> Result<Self, NotOnePemBlock> {
        let (label, body, after) = parts(text).ok_or(NotOnePemBlock::Malformed)?;
        if after.contains("-----BEGIN ") {
            return Err(NotOnePemBlock::SecondBlock);
        }
        if !after.trim().is_empty() {
            return Err(NotOnePemBlock::TextAfterEnd);
        }
        let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
        base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; base64.len() / 4 * 3]);
        let decoded = STANDARD.decode_slice(&*base64, &mut der);
        der.truncate(decoded.map_err(|_| NotOnePemBlock::Malformed)?);
        if der.is_empty() { Err(NotOnePemBlock::Malformed) } else { Ok(Self { label, der }) }
    }
}

/// The label of the first block, its body, and what follows it.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (label, rest) = text.trim_start().strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let (body, end) = rest.split_once("-----END ")?;
    Some((label, body, end.strip_prefix(label)?.strip_prefix("-----")?))
}
