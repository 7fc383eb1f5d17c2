//! The `tandem` binary.
fn main() -> anyhow::Result<std::process::ExitCode> {
    let a: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match a[1].as_str() {
        "serve" => {
            srm::daemon::run(srm::config::Config::load(std::path::Path::new(&a[3]))?)?;
            Ok(std::process::ExitCode::SUCCESS)
        }
        _ => srm::demo::run(
            &srm::demo::Options {
                users: a.get(2).map_or(200, |n| n.parse().unwrap()),
                plain: 0.1,
                seconds: None,
                seed: 1,
            },
            a.iter().any(|x| x == "--json"),
            a.iter().any(|x| x == "--keep"),
        ),
    }
}
