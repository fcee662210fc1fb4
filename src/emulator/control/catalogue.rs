//! The operations that AWS IoT has, so that a refusal can name the one that the emulator lacks.

/// Method, path and name of each, from botocore's service model `iot` 2015-05-28: `scripts/coverage --catalogue`.
const OPERATIONS: &str = include_str!("iot-operations.txt");

/// The operation of this method whose path is chosen by `matches`.
pub(super) fn name(method: &str, matches: impl Fn(&str) -> bool) -> Option<&'static str> {
    rows().find(|(of, path, _)| *of == method && matches(path)).map(|(_, _, name)| name)
}

/// Method, path and name of each.
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    OPERATIONS.lines().filter_map(|line| {
        let mut parts = line.split(' ');
        Some((parts.next()?, parts.next()?, parts.next()?))
    })
}
