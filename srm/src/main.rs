//! The `tandem` binary.

/// A stanza is allocated on the thread of its socket and given back on the node's: the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    srm::cli::main()
}
