#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homing_fuzz::proxy_header::run(data));
