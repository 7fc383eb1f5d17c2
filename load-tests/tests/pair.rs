//! Two nodes on a virtual clock, thousands of seeds.

use load_tests::pair::{Profile, replay, run};

#[test]
fn nothing_goes_wrong_without_faults() {
    for seed in 0..20 {
        let verdict = run(seed, Profile::CALM);
        if let Some(failure) = verdict.failure {
            let trace = replay(seed, Profile::CALM).trace;
            panic!("{trace}\nseed {seed}: {failure}");
        }
    }
}
