//! A node's connection to the witness: kept up, and what is asked goes out on it. It decides nothing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use presence_engine::ids::{Group, Reg};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::lines;
use super::words::{Ask, FromWitness, ToWitness, VERSION, Verdict};

/// Pause between two attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Time for name, TCP, TLS and greeting.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether other certificates hold.
const LOOK: Duration = Duration::from_secs(1);
/// How long the witness may leave a report unanswered: they go out each second.
const SILENCE: Duration = Duration::from_secs(3);

const RENEWED: &str = "this node has other certificates, and connects to it anew";

/// What is dialled, and who this is.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `HOST:PORT`; the host is looked up each time.
    pub address: String,
    /// Name in the certificate of the witness.
    pub name: ServerName<'static>,
    /// With this node's certificate of the link.
    pub tls: Arc<ArcSwap<ClientConfig>>,
    /// Identity of the cluster.
    pub cluster: u64,
    /// This node's name.
    pub node: String,
    /// The other's.
    pub peer: String,
}

/// What a node is told of its witness.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It is there. What keeps it from deciding about each group, in words.
    Here([Option<String>; 2]),
    /// It cannot be reached, for this reason.
    Away(String),
    /// Both registers as it holds them; `None`: it has none yet.
    Holds([Option<Reg>; 2]),
    /// It answers.
    Answer(Group, u32, Verdict),
}

/// A question, and the last connection to the witness that the node had heard of when it put it, counted from 1.
pub type Asked = (u64, Ask);

/// Keeps a connection to the witness and puts questions to it; what is told bears the number of the connection. What is asked
/// while there is none is dropped: the safety core asks again. So is what was asked before the node knew of this connection: an
/// answer of the last one may be on its way to it still, and a witness that came back empty must not be told the state
/// before. Dropping the future ends the connection.
pub async fn keep(
    dial: Dial,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    tell: impl Fn(u64, Said),
) -> Infallible {
    let mut pause = PAUSE.0;
    let mut number = 0;
    loop {
        let tls = dial.tls.load_full();
        let why = match timeout(CONNECT_LIMIT, connect(&dial, tls.clone())).await {
            Ok(Ok(stream)) => {
                pause = PAUSE.0;
                number += 1;
                let tell = |said| tell(number, said);
                tell(Said::Here([None, None]));
                tokio::select! {
                    why = talk(stream, &mut asked, number, &tell) => why,
                    () = replaced(&dial.tls, &tls) => RENEWED.to_owned(),
                }
            }
            Ok(Err(why)) => why,
            Err(_) => "it does not answer".to_owned(),
        };
        tell(number, Said::Away(why));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Other certificates hold: whether the witness and this node still trust each other is to be seen now, and not when it is needed.
async fn replaced(now: &ArcSwap<ClientConfig>, then: &Arc<ClientConfig>) {
    while Arc::ptr_eq(&now.load(), then) {
        sleep(LOOK).await;
    }
}

async fn connect(dial: &Dial, tls: Arc<ClientConfig>) -> Result<BufReader<TlsStream<TcpStream>>, String> {
    let socket = TcpStream::connect(&dial.address).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(tls);
    let shaken = tls.connect(dial.name.clone(), socket).await;
    let mut stream = BufReader::new(shaken.map_err(|error| format!("TLS fails: {error}"))?);
    let hello = ToWitness::Hello {
        version: VERSION,
        cluster: format!("{:016x}", dial.cluster),
        node: dial.node.clone(),
        peer: dial.peer.clone(),
    };
    let greeted = async {
        lines::write(&mut stream, &hello).await?;
        lines::read::<FromWitness>(&mut stream).await
    };
    match greeted.await {
        Ok(Some(FromWitness::Welcome { version: VERSION })) => Ok(stream),
        Ok(Some(FromWitness::Refused { why })) => Err(format!("it refuses this node: {why}")),
        Ok(Some(FromWitness::Welcome { version })) => {
            Err(format!("it speaks version {version}: upgrade the older"))
        }
        Ok(_) => Err("it speaks something else; is witness.address right?".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Until the connection ends; why it did.
async fn talk(
    stream: impl AsyncRead + AsyncWrite,
    asked: &mut mpsc::UnboundedReceiver<Asked>,
    number: u64,
    tell: &impl Fn(Said),
) -> String {
    let (reader, mut writer) = split(stream);
    let read = async {
        let mut reader = BufReader::new(reader);
        loop {
            match timeout(SILENCE, lines::read::<FromWitness>(&mut reader)).await {
                Ok(Ok(Some(FromWitness::Answer { group, request, verdict }))) => {
                    tell(Said::Answer(group, request, verdict));
                }
                Ok(Ok(Some(FromWitness::Held { regs, undecided }))) => {
                    tell(Said::Here(undecided));
                    tell(Said::Holds(regs));
                }
                Ok(Ok(Some(_))) => return "it greeted twice".to_owned(),
                Ok(Ok(None)) => return "it closed the connection".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it does not answer".to_owned(),
            }
        }
    };
    let write = async {
        while let Some((knows, ask)) = asked.recv().await {
            if knows != number {
                continue;
            }
            let written = timeout(SILENCE, lines::write(&mut writer, &ToWitness::Ask(ask))).await;
            match written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => {}
                Err(error) => return error.to_string(),
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        why = read => why,
        why = write => why,
    }
}
