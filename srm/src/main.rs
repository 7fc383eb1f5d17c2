//! The `tandem` binary.

fn main() -> std::process::ExitCode {
    srm::cli::main()
}
