#![no_main]

use std::sync::Once;

/// Over a damaged file redb may panic, which costs the file and not the process; libFuzzer would end it.
static HOOK: Once = Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    homing_fuzz::state_file::run(data);
});
