//! UUIDs in their text form (RFC 9562).

use rand::RngExt as _;

/// A random UUID, version 4 (RFC 9562 section 5.4).
pub(super) fn random_uuid() -> String {
    uuid(rand::rng().random())
}

/// A UUID of version 4 whose other bits are `bits`.
pub(super) fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4_and_differ() {
        let uuid = random_uuid();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        assert_ne!(uuid, random_uuid());
    }
}
