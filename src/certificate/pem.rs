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
        // White space other than at the ends of lines is rare, and takes long to look for.
        let der = decode(body.len(), body.split('\n').map(str::trim_ascii))
            .or_else(|| decode(body.len(), body.split_ascii_whitespace()));
        let der = der.filter(|der| !der.is_empty()).ok_or(NotOnePemBlock::Malformed)?;
        Ok(Self { label, der })
    }
}

/// What the base 64 in `parts`, of at most `length` bytes, stands for.
fn decode<'t>(length: usize, parts: impl Iterator<Item = &'t str>) -> Option<Zeroizing<Vec<u8>>> {
    let mut base64 = Zeroizing::new(Vec::with_capacity(length));
    parts.for_each(|part| base64.extend_from_slice(part.as_bytes()));
    let mut der = Zeroizing::new(vec![0; base64.len() / 4 * 3]);
    let decoded = STANDARD.decode_slice(&*base64, &mut der).ok()?;
    der.truncate(decoded);
    Some(der)
}

/// The label of the first block, its body, and what follows it.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (label, rest) = text.trim_start().strip_prefix("-----BEGIN ")?.split_once("-----")?;
    // Base 64 has no dash.
    let (body, end) = rest.split_at(rest.find('-')?);
    Some((label, body, end.strip_prefix("-----END ")?.strip_prefix(label)?.strip_prefix("-----")?))
}
