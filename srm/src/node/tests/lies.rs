//! What clients say of the peer (R9). A word alone is none: a liar can neither kill the peer nor keep it alive.

use super::*;

/// Clients that are asked.
const ASKED: usize = 3;
/// Ticks after which those who were asked have had the time to vouch, and the last in which their answers count.
const HAD_TIME: u32 = 5;
const NEXT: u32 = 8;

/// A question: its number, and what the peer is to sign.
struct Question {
    id: String,
    nonce: String,
}

impl Question {
    /// What a node makes of it that has the secret of the cluster.
    fn signed(&self, by: NodeIx) -> Option<String> {
        Some(Secret::new(b"s").vouch(by, &self.nonce))
    }
}

/// Node b puts a question. It goes to three clients, of which no more than the number of their connection matters here.
fn ask(node: &mut Node) -> Question {
    node.ask_clients();
    let nonce = node.evidence.question().expect("it has just been put").to_owned();
    node.evidence.begin(nonce.clone(), ASKED);
    Question { id: node.nonce.to_string(), nonce }
}

/// A client answers.
fn says(node: &mut Node, client: u64, id: &str, mac: Option<String>) {
    let conn = Conn { node: NodeIx::B, number: client };
    node.released(Output::Report { conn, id: id.into(), mac: mac.map(Into::into) });
}

fn pass(node: &mut Node, disk: &mut Memory, ticks: u32) {
    (0..ticks).for_each(|_| node.handle(0, In::Ticks(1), disk));
}

/// Node b has not heard its peer for ten seconds. A question of then, and the present one.
fn of_a_silent_peer() -> (Node, Memory, [Question; 2]) {
    let (mut node, mut disk) = started(true);
    pass(&mut node, &mut disk, 40);
    let asked = [ask(&mut node), ask(&mut node)];
    assert_ne!(asked[0].nonce, asked[1].nonce);
    (node, disk, asked)
}

/// What is no proof: under which number, and with what.
fn lies(before: &Question, now: &Question) -> [(&'static str, String, Option<String>); 7] {
    let other = Secret::new(b"of another cluster").vouch(NodeIx::A, &now.nonce);
    [
        ("no proof", now.id.clone(), None),
        ("an empty one", now.id.clone(), Some(String::new())),
        ("one that is made up", now.id.clone(), Some("0".repeat(now.signed(NodeIx::A).unwrap().len()))),
        ("one for an older question", now.id.clone(), before.signed(NodeIx::A)),
        ("one of the asking node itself", now.id.clone(), now.signed(NodeIx::B)),
        ("one by another secret", now.id.clone(), Some(other)),
        ("an older question with its proof", before.id.clone(), before.signed(NodeIx::A)),
    ]
}

/// What a client answers to the last of two questions: an id, and a proof.
type Answer<'a> = dyn Fn(&Question, &Question) -> (String, Option<String>) + 'a;

#[test]
fn a_lie_keeps_no_dead_peer_alive_whose_ports_refuse() {
    let refused = [Probe { life_refused: true, beacon_refused: true }; 2];
    let gone = |answer: &Answer<'_>| {
        let (mut node, mut disk) = started(true);
        node.evidence.link_ended();
        let before = ask(&mut node);
        let now = ask(&mut node);
        let (id, mac) = answer(&before, &now);
        says(&mut node, 1, &id, mac);
        node.handle(0, In::Probed(refused), &mut disk);
        node.evidence.gone()
    };
    for lie in 0..7 {
        let answer = |before: &Question, now: &Question| {
            let (_, id, mac) = lies(before, now)[lie].clone();
            (id, mac)
        };
        assert_eq!(gone(&answer), Some(Gone::Dead), "lie {lie}");
    }
    let truth = |_: &Question, now: &Question| (now.id.clone(), now.signed(NodeIx::A));
    assert_eq!(gone(&truth), None, "a proof saves it");
}

#[test]
fn a_lie_keeps_no_silent_peer_alive() {
    for lie in 0..7 {
        let (mut node, mut disk, [before, now]) = of_a_silent_peer();
        let (what, id, mac) = lies(&before, &now)[lie].clone();
        says(&mut node, 1, &id, mac);
        // Those who are honest have lost it.
        (2..=4).for_each(|client| says(&mut node, client, &now.id, None));
        pass(&mut node, &mut disk, HAD_TIME);
        assert_eq!(node.evidence.gone(), Some(Gone::Silent), "{what}");
    }
    let (mut node, mut disk, [_, now]) = of_a_silent_peer();
    says(&mut node, 1, &now.id, now.signed(NodeIx::A));
    (2..=4).for_each(|client| says(&mut node, client, &now.id, None));
    pass(&mut node, &mut disk, NEXT);
    assert_eq!(node.evidence.gone(), None, "a proof outweighs what the others say");
}

/// The others may be about to vouch for it.
#[test]
fn an_answer_to_another_question_counts_for_nobody() {
    let (mut node, mut disk, [before, now]) = of_a_silent_peer();
    let next = (now.id.parse::<u64>().unwrap() + 1).to_string();
    for (client, id) in [before.id.as_str(), next.as_str(), "0", "", "none"].into_iter().enumerate() {
        says(&mut node, client as u64 + 1, id, None);
    }
    pass(&mut node, &mut disk, NEXT);
    assert_eq!(node.evidence.gone(), None, "nobody has answered this question");
    let (mut node, mut disk, [_, now]) = of_a_silent_peer();
    (1..=3).for_each(|client| says(&mut node, client, &now.id, None));
    pass(&mut node, &mut disk, HAD_TIME);
    assert_eq!(node.evidence.gone(), Some(Gone::Silent), "three have");
}

#[test]
fn a_client_that_answers_twice_is_one_and_takes_no_proof_back() {
    let (mut node, mut disk, [_, now]) = of_a_silent_peer();
    (0..ASKED).for_each(|_| says(&mut node, 1, &now.id, None));
    pass(&mut node, &mut disk, NEXT);
    assert_eq!(node.evidence.gone(), None, "two of three have not answered");
    let (mut node, mut disk, [_, now]) = of_a_silent_peer();
    says(&mut node, 1, &now.id, now.signed(NodeIx::A));
    says(&mut node, 1, &now.id, None);
    (2..=4).for_each(|client| says(&mut node, client, &now.id, None));
    pass(&mut node, &mut disk, NEXT);
    assert_eq!(node.evidence.gone(), None, "it was proved");
}

/// What was signed once is said ever again, under the number of its own question and of the present one.
#[test]
fn a_proof_that_is_repeated_is_as_old_as_it_was() {
    let ticks_until_it_lapses = |repeats: bool| {
        let (mut node, mut disk, [_, then]) = of_a_silent_peer();
        let proof = then.signed(NodeIx::A);
        says(&mut node, 1, &then.id, proof.clone());
        assert!(node.evidence.only_path_down(), "it vouches");
        (1..=100).find(|tick| {
            pass(&mut node, &mut disk, 1);
            // For a second after the question it would be no repetition.
            if repeats && *tick >= HAD_TIME {
                let now = node.nonce.to_string();
                says(&mut node, 1, &then.id, proof.clone());
                says(&mut node, 1, &now, proof.clone());
            }
            !node.evidence.only_path_down()
        })
    };
    let once = ticks_until_it_lapses(false);
    assert!(once.is_some_and(|ticks| ticks > NEXT), "{once:?}: not before the next question");
    assert_eq!(ticks_until_it_lapses(true), once);
}
