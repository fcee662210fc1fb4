//! The operations that AWS IoT has, so that a refusal can name one that the emulator lacks.

/// The method, path and name of each operation, from botocore's service model `iot` 2015-05-28: `scripts/coverage
/// --catalogue`.
const OPERATIONS: &str = include_str!("iot-operations.txt");

/// The name of the operation with this method whose path satisfies `matches`.
pub(super) fn name(method: &str, matches: impl Fn(&str) -> bool) -> Option<&'static str> {
    rows().find(|(of, path, _)| *of == method && matches(path)).map(|(_, _, name)| name)
}

/// The method, path and name of each operation.
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    OPERATIONS.lines().filter_map(|line| {
        let mut parts = line.split(' ');
        Some((parts.next()?, parts.next()?, parts.next()?))
    })
}
