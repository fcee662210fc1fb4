#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleetmint::fuzzing::run("grammars", data));
