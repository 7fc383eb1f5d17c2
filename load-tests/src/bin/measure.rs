//! What a message, a login and an idle session cost Tandem, other servers, and a program that only moves the bytes. See
//! `measure --help` and docs/performance.md.

fn main() -> std::process::ExitCode {
    load_tests::measure::main()
}
