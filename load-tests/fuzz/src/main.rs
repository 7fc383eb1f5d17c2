//! Drives one target of `load_tests::fuzz` by libFuzzer. Which one, the environment variable `FUZZ_TARGET` says.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use load_tests::fuzz::{Target, target};

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let chosen = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name}: there is no such target"))
    });
    (chosen.run)(data);
});
