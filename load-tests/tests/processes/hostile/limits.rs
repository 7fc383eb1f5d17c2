//! One client that floods, and one that does not read: what others feel of it, in milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, MALLORY, Siege};
use tokio::task::JoinHandle;

/// Round trips that are measured each time.
const ROUNDS: usize = 400;

/// Times of messages from one session to another of the victim, through the log and back.
async fn round_trips(siege: &Siege, name: &str) -> Vec<Duration> {
    let mut one = siege.session_of("victim", name).await;
    let mut times = Vec::with_capacity(ROUNDS);
    for n in 0..ROUNDS {
        let begun = Instant::now();
        one.say(&format!("<message to='victim@demo.example/{name}' id='m{n}'><body>x</body></message>"))
            .await;
        one.until("</message>").await;
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    one.say("</stream:stream>").await;
    times.sort_unstable();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// A client that sends as fast as the server takes it, until it is told to stop.
struct Attack {
    taken: Arc<AtomicUsize>,
    begun: Instant,
    task: JoinHandle<()>,
}

impl Attack {
    /// Sends `stanza` over and over; no answer is ever read.
    fn begin(mut one: Attacker, stanza: &str) -> Attack {
        let (batch, taken) = (stanza.repeat(100), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            one.flood(batch.as_bytes(), &counter, Duration::from_secs(600)).await;
            std::future::pending().await
        });
        Attack { taken, begun: Instant::now(), task }
    }

    fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the kernel holds at most of one connection: 4 MiB to be sent and 6 MiB received.
const KERNEL: usize = 10 << 20;
/// What others wait at most where the calm server is so fast that twice its time is nothing:
/// less than a person notices.
const UNNOTICED: Duration = Duration::from_millis(25);

/// A flood is read at the rate that the limits allow, one who does not read is soon not read either,
/// and the others' p99 stays within twice of what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_a_flood_and_a_slow_reader_leave_others_alone() {
    let siege = Siege::begin_alone(1, &[]).await;
    let (mut tries, mut unharmed) = (Vec::new(), false);
    let stanza =
        format!("<message to='{MALLORY}@demo.example/nobody'><body>{}</body></message>", "x".repeat(200));
    let question = "<iq type='get' id='never-read'><query xmlns='jabber:iq:roster'/></iq>";
    // Other builds may be running: what was disturbed by them is measured again, calm and flooded alike.
    for round in 0..4 {
        let calm = p99(&round_trips(&siege, &format!("calm{round}")).await);
        let flood = Attack::begin(siege.session("flood").await, &stanza);
        let slow = Attack::begin(siege.session("slow").await, question);
        let flooded = p99(&round_trips(&siege, &format!("flooded{round}")).await);
        println!("p99 {calm:?} calm, {flooded:?} with a flood and a slow reader");
        // 1,000 stanzas per second are the default, and as much again may come at once.
        let seconds = flood.begun.elapsed().as_secs() as usize + 2;
        let (flood, slow) = (flood.taken(), slow.taken());
        println!("{flood} bytes of the flood and {slow} of the slow reader in {seconds} s");
        assert!(flood > 100 * stanza.len(), "the flood was no flood: {flood} bytes");
        assert!(flood < seconds * 1000 * stanza.len() + KERNEL, "{flood} bytes in {seconds} s");
        assert!(slow < seconds * 1000 * question.len() + KERNEL, "{slow} bytes in {seconds} s");
        tries.push((calm, flooded));
        if flooded <= (2 * calm).max(UNNOTICED) {
            unharmed = true;
            break;
        }
    }
    assert!(unharmed, "the others' p99 more than doubles: {tries:?}");
    siege.end().await;
}
