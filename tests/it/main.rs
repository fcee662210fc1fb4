//! The integration tests, one binary: compile time is paid once.

mod transport;
