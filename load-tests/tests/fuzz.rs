//! The fuzz targets for a moment: every seed, and some thousands of mutations of seeds. `FUZZ_CASE=xml:17` plays that one
//! again, `FUZZ_CASE=xml:FILE` a file. Longer runs, with coverage: `load-tests/fuzz/run`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use load_tests::fuzz::{Target, mutate, seeds, target};

/// Most bytes of a failing input that are printed.
const SHOWN: usize = 4_096;

fn all_seeds(target: Target) -> Vec<(String, Vec<u8>)> {
    let seeds = seeds::read(target.name).expect("the folder of the seeds");
    assert!(seeds.len() >= 5, "{} seeds for {}", seeds.len(), target.name);
    seeds
}

/// Plays an input; if it fails, says how to play it again.
fn play(target: Target, case: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
        let shown = &bytes[..bytes.len().min(SHOWN)];
        println!("FUZZ_CASE={}:{case} fails, {} bytes: {}", target.name, bytes.len(), shown.escape_ascii());
        resume_unwind(panic);
    }
}

fn short_run(name: &str) {
    let target = target(name).expect("a target of this name");
    let seeds = all_seeds(target);
    let bytes: Vec<Vec<u8>> = seeds.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mutated = |number| mutate::case(&bytes, number, target.longest);
    if let Ok(wanted) = std::env::var("FUZZ_CASE") {
        let Some(case) = wanted.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')) else { return };
        match case.parse() {
            Ok(number) => play(target, case, &mutated(number)),
            Err(_) => play(target, case, &std::fs::read(case).expect("a number or a file")),
        }
        return;
    }
    for (name, bytes) in &seeds {
        let path = seeds::folder(target.name).join(name);
        play(target, &path.display().to_string(), bytes);
    }
    for number in 0..target.cases {
        play(target, &number.to_string(), &mutated(number));
    }
}

#[test]
fn streams_of_xml() {
    short_run("xml");
}

#[test]
fn addresses() {
    short_run("jid");
}

#[test]
fn logins() {
    short_run("sasl");
}

#[test]
fn stanzas_between_people() {
    short_run("route");
}

#[test]
fn messages_between_nodes() {
    short_run("link");
}

#[test]
fn records_and_logs() {
    short_run("log");
}

/// Seeds of an older format would all be refused at their first bytes, and nothing would be fuzzed.
#[test]
fn every_kind_of_message_and_record_is_among_the_seeds() {
    use presence_engine::record::{Cursor, Record};
    use session_mover::msg::Msg;

    let bytes = |name| all_seeds(target(name).expect("a target")).into_iter().map(|(_, bytes)| bytes);
    let mut kinds = BTreeSet::new();
    for seed in bytes("link").filter(|seed| seed.first().is_some_and(|choice| choice % 3 == 0)) {
        if Msg::decode(bytes::Bytes::copy_from_slice(&seed[1..])).is_ok() {
            kinds.insert(seed[1]);
        }
    }
    assert_eq!(kinds, (1..=16).collect());
    let mut kinds = BTreeSet::new();
    for seed in bytes("log").filter(|seed| seed.first().is_some_and(|choice| choice % 3 == 0)) {
        let mut cursor = Cursor::new(bytes::Bytes::copy_from_slice(&seed[1..]));
        while let Ok(record) = Record::decode(&mut cursor) {
            kinds.insert(record.type_number());
        }
    }
    assert_eq!(kinds, (1..=16).chain([20, 21, 30, 31, 32, 33, 34, 35]).collect());
}

/// The same number is the same case for ever, and the mutator is no identity.
#[test]
fn a_case_is_its_number() {
    let seeds = [b"<message to='romeo@example.org' id='12'/>".to_vec(), vec![0; 40]];
    let cases: BTreeSet<Vec<u8>> = (0..1_000).map(|n| mutate::case(&seeds, n, 64)).collect();
    assert!(cases.len() > 800 && cases.iter().all(|case| case.len() <= 64), "{}", cases.len());
    assert_eq!(mutate::case(&seeds, 7, 64), mutate::case(&seeds, 7, 64));
}
