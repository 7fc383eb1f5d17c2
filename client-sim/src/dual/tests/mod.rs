//! Every transition of the machine, by what a server can say and what can break.

mod parking;
mod trouble;

use std::time::Duration;

use xmpp_core::StanzaCondition;
use xmpp_core::dual::{Dual, Epoch, Failure, MainStream, Peer, Told};

use super::{
    ANSWER_TIMEOUT, DualClient, FlipCause, Input, LOST_AGAIN, MAX_QUERIES, Output, Timer, VOUCH_TIMEOUT,
};

const LOWER: Duration = Duration::from_secs(1);
const UPPER: Duration = Duration::from_secs(3);

/// A client and the clock it is told.
struct Client {
    machine: DualClient,
    now: Duration,
}

fn peer(node: &str) -> Peer {
    Peer { node: node.into(), host: format!("{node}.example").into(), port: 5223, direct_tls: true }
}

fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn offer(at: &str, node: &str) -> Input {
    let (epoch, peer) = (epoch(at), peer(node));
    Input::Main(Dual::Offer { epoch, lower_s: 1, upper_s: 3, peer, token: None })
}

/// The same on the second stream.
fn early(at: &str, node: &str) -> Input {
    let Input::Main(said) = offer(at, node) else { unreachable!("made above") };
    Input::Parked(said)
}

fn take() -> Input {
    Input::Parked(Dual::Take { epoch: epoch("9.0") })
}

fn wait() -> Input {
    Input::Parked(Dual::Wait { ms: 500 })
}

fn stay() -> Input {
    Input::Parked(Dual::Stay)
}

fn moving(to: &str) -> Input {
    Input::Main(Dual::Moving { epoch: epoch("7.1"), to: to.into() })
}

fn query(n: usize) -> Input {
    Input::Parked(Dual::Query { id: format!("q{n}").into(), nonce: format!("n{n}").into() })
}

fn main_up(node: &str, anew: bool) -> Input {
    Input::MainUp { at: peer(node), sm_id: Some("sm-1".into()), anew, dual: true }
}

fn lost() -> Output {
    Output::Parked(Dual::Lost)
}

fn resume(at: &str) -> Output {
    Output::Resume { previd: "sm-1".into(), told: Some(epoch(at).into()) }
}

fn reconnect(first: Option<&str>) -> Output {
    Output::Reconnect { first: first.map(str::to_owned), anew: false }
}

fn flip(cause: FlipCause, keep_old: bool) -> Output {
    Output::Flip { cause, keep_old }
}

fn report(n: usize, main: MainStream, mac: Option<&str>, heard_ms: u64) -> Output {
    let (id, mac) = (format!("q{n}").into(), mac.map(Into::into));
    Output::Parked(Dual::Report { id, main, mac, heard_ms: Some(heard_ms) })
}

const ANSWER: Output = Output::SetTimer(Timer::Answer, ANSWER_TIMEOUT);
const ANSWERED: Output = Output::CancelTimer(Timer::Answer);
const PARK: Output = Output::SetRandomTimer(Timer::Park, LOWER, UPPER);
const MUTE: Output = Output::MainMode { read: false, write: false };
const READ_ONLY: Output = Output::MainMode { read: true, write: false };
const OPEN: Output = Output::MainMode { read: true, write: true };

impl Client {
    fn new() -> Self {
        Client { machine: DualClient::new(), now: Duration::from_secs(100) }
    }

    fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.on(self.now, input, &mut out);
        out
    }

    /// Bound at a, offered b, not yet parked.
    fn up() -> Self {
        let mut client = Client::new();
        assert_eq!(client.on(main_up("a", true)), [ANSWERED, Output::Main(Dual::Request)]);
        assert_eq!(client.on(offer("7.0", "b")), [PARK]);
        client
    }

    fn park(&mut self, node: &str) {
        assert_eq!(self.on(Input::Timer(Timer::Park)), [Output::ConnectParked(peer(node))]);
        assert_eq!(self.on(Input::ParkedOpen), [Output::Parked(Dual::Standby { sm_id: "sm-1".into() })]);
        assert!(!self.machine.is_parked());
        assert_eq!(self.on(Input::Parked(Dual::Parked { epoch: epoch("7.0"), token: None })), []);
        assert!(self.machine.is_parked());
        assert_eq!(self.machine.parked_node(), Some(node));
    }

    /// Main at a, parked at b.
    fn parked() -> Self {
        let mut client = Client::up();
        client.park("b");
        client
    }

    /// Main died, b told.
    fn asking() -> Self {
        let mut client = Client::parked();
        assert_eq!(client.on(Input::MainDied), [lost(), ANSWER]);
        client
    }

    /// Resume out on the parked stream, main alive but not read.
    fn resuming() -> Self {
        let mut client = Client::parked();
        assert_eq!(client.on(take()), [MUTE, resume("7.0"), ANSWER]);
        client
    }
}
