//! Connections that come and go before they have logged in (S41): `connects [MILLIONS]`, by default one. Some only
//! connect, some read the features, some send garbage, some stop in the middle of TLS or of SASL. Prints the memory of
//! the server as it goes on, while others chat, and for comparison how it grows in a quarter of that time by the chat
//! alone; ends with 1 if the connections left something behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, HEADER, Siege};
use tokio::net::TcpStream;

/// Connections at a time.
const AT_A_TIME: usize = 64;
/// One of so many makes TLS, which costs both ends a thousand times what a connection costs.
const TLS_EVERY: u64 = 256;
/// Connections before the memory is called the server's own: buffers and tables have grown by then.
const WARM: u64 = 50_000;
/// More than this above the warm server, the chat's share taken off, is a leak, in bytes.
const LEAK: u64 = 8 << 20;

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1048576.0
}

/// One visit.
async fn visit(siege: &Siege, number: u64) {
    if number.is_multiple_of(TLS_EVERY) {
        let mut one = siege.open(0).await;
        if (number / TLS_EVERY).is_multiple_of(2) {
            one.auth("SCRAM-SHA-1", b"n,,n=nobody,r=abcdefgh").await;
        }
        return one.reset();
    }
    let port = if number.is_multiple_of(2) { siege.starttls(0) } else { siege.direct(0) };
    if !number.is_multiple_of(4) {
        // Closed by a reset: a million of them would use up the machine's ports otherwise.
        if let Ok(tcp) = TcpStream::connect(port).await {
            let _ = tcp.set_zero_linger();
        }
        return;
    }
    let mut one = Attacker::clear(port).await;
    match number % 16 {
        0 => _ = one.say("\0\u{1}garbage<<<<&&&").await,
        4 => _ = one.say(&HEADER[..40]).await,
        _ => {
            one.say(HEADER).await;
            one.end_or("</stream:features>").await;
        }
    }
    one.reset();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let millions: f64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let total = (millions * 1e6) as u64;
    let settings = [
        ("limits.connections_per_minute", "100000000"),
        ("limits.unauthenticated", "20000"),
        ("limits.unauthenticated_per_address", "20000"),
    ];
    let siege = Arc::new(Siege::begin(1, &settings).await);
    let (next, begun) = (Arc::new(AtomicU64::new(1)), Instant::now());
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (siege, next) = (siege.clone(), next.clone());
        visitors.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > total {
                    break;
                }
                visit(&siege, number).await;
            }
        });
    }
    let (mut shown, mut warm, mut most) = (0, None, 0);
    while !visitors.is_empty() {
        tokio::select! {
            done = visitors.join_next() => done.expect("not empty").expect("a visitor does not panic"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let (number, rss) = (next.load(Ordering::Relaxed).min(total), siege.rss(0));
        if number >= WARM {
            warm.get_or_insert(rss);
            most = most.max(rss);
        }
        if number - shown >= total / 20 {
            shown = number;
            let rate = number as f64 / begun.elapsed().as_secs_f64();
            println!("{number:>9} connections, {rate:>6.0} a second, {:>7.1} MiB", mib(rss));
        }
    }
    let (time, last) = (begun.elapsed(), siege.rss(0));
    let grown = most.max(last).saturating_sub(warm.unwrap_or(last));
    println!("{total} connections in {:.0} s: {:.1} MiB more since {WARM}", time.as_secs_f64(), mib(grown));
    tokio::time::sleep(time / 4).await;
    let chat = siege.rss(0).saturating_sub(last) * 4;
    println!("the chat alone takes {:.1} MiB in that time", mib(chat));
    Arc::into_inner(siege).expect("the visitors are gone").end().await;
    println!("the bystanders noticed nothing");
    std::process::exit(i32::from(grown.saturating_sub(chat) > LEAK));
}
