//! The whole way in, with real SCRAM: direct TLS, SASL, a new stream, elements both ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use super::tests::{HEADER, listener, tls, tls_client, until};
use super::*;
use crate::ns;
use crate::sasl::{ClientBinding, Exporter, ScramClient, ScramCredentials, TLS_EXPORTER_LABEL};

/// Knows one account, `alice` with the password `pencil`.
struct OneAccount {
    seen: mpsc::UnboundedSender<String>,
    tx: std::sync::Mutex<Option<ConnSender>>,
}

impl Host for OneAccount {
    fn lookup(&self, user: &str, _: Option<TokenName>, hash: ScramHash) -> Lookup {
        match user {
            "alice" => Lookup::Found(ScramCredentials::derive(hash, "pencil", &[1; 16], 4096).unwrap()),
            // Made so that "pencil" would fit: an unknown account must not get in even then.
            _ => Lookup::Unknown(ScramCredentials::derive(hash, "pencil", &[1; 16], 4096).unwrap()),
        }
    }
    fn features(&self) -> Bytes {
        Bytes::from_static(crate::dual::FEATURE.as_bytes())
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(9);
    }
    fn opened(&self, proved: Proved, _: SocketAddr, tx: ConnSender) -> ConnId {
        assert_eq!(proved.salt[..], [1; 16]);
        self.seen.send(proved.user.to_string()).unwrap();
        *self.tx.lock().unwrap() = Some(tx);
        ConnId(3)
    }
    fn element(&self, conn: ConnId, stanza: Stanza) {
        self.seen.send(format!("{conn} {}", stanza.head.name)).unwrap();
        let tx = self.tx.lock().unwrap();
        let tx = tx.as_ref().unwrap();
        tx.credit(1);
        tx.send(ToConn::Write(Bytes::from_static(b"<answer/>")));
    }
    fn closed(&self, conn: ConnId, clean: bool) {
        self.seen.send(format!("{conn} closed {clean}")).unwrap();
        self.tx.lock().unwrap().take();
    }
}

const UNBOUND: ClientBinding = ClientBinding::Unsupported;

struct Client {
    stream: TlsStream<TcpStream>,
    seen: mpsc::UnboundedReceiver<String>,
}

impl Client {
    async fn connect() -> Client {
        Client::connect_to(|config| config).await
    }

    async fn connect_to(change: impl FnOnce(ServerConfig) -> ServerConfig) -> Client {
        let (server_tls, cert) = tls();
        let config = change(ServerConfig::new(server_tls, negotiate::Config::new("d.example")));
        let (seen, receiver) = mpsc::unbounded_channel();
        let host = OneAccount { seen, tx: std::sync::Mutex::default() };
        let addr = listener(config, Entry::DirectTls, Arc::new(host)).await;
        let tcp = TcpStream::connect(addr).await.unwrap();
        let mut stream = tls_client(cert).connect("d.example".try_into().unwrap(), tcp).await.unwrap();
        stream.write_all(HEADER.as_bytes()).await.unwrap();
        until(&mut stream, "</stream:features>").await;
        Client { stream, seen: receiver }
    }

    /// What this end of the connection binds to.
    fn exporter(&self) -> Exporter {
        self.stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(b"")).unwrap()
    }

    /// One exchange; the last element of the server, `<success>` checked.
    async fn authenticate(
        &mut self,
        hash: ScramHash,
        binding: ClientBinding,
        user: &str,
        password: &str,
        authzid: &str,
    ) -> String {
        let mut scram = ScramClient::new(hash, binding, user, password, [4; 18]).unwrap();
        let first = String::from_utf8(scram.first()).unwrap().replacen(",,", &format!(",{authzid},"), 1);
        let name = scram.mechanism().name();
        self.say(&format!("auth xmlns='{}' mechanism='{name}'", ns::SASL), "auth", first.as_bytes()).await;
        let challenge = until(&mut self.stream, "</").await;
        if challenge.starts_with("<failure") {
            return challenge;
        }
        let response = scram.respond(&payload(&challenge)).unwrap();
        self.say(&format!("response xmlns='{}'", ns::SASL), "response", &response).await;
        let last = until(&mut self.stream, "</").await;
        if last.starts_with("<success") {
            scram.verify(&payload(&last)).unwrap();
        }
        last
    }

    async fn say(&mut self, open: &str, close: &str, data: &[u8]) {
        let text = format!("<{open}>{}</{close}>", STANDARD.encode(data));
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }
}

fn payload(element: &str) -> Vec<u8> {
    STANDARD.decode(Stanza::parse(element.as_bytes()).unwrap().text()).unwrap()
}

#[tokio::test]
async fn the_right_password_opens_the_stream_and_elements_go_both_ways() {
    for (hash, bind) in ScramHash::ALL.into_iter().flat_map(|hash| [(hash, true), (hash, false)]) {
        let mut client = Client::connect().await;
        let binding =
            if bind { ClientBinding::Exporter(client.exporter()) } else { ClientBinding::Unsupported };
        let last = client.authenticate(hash, binding, "Alice", "pencil", "").await;
        assert!(last.starts_with("<success"), "{last}");
        // Pipelined with the header: what comes behind it belongs to the authenticated stream.
        client.stream.write_all(format!("{HEADER}<iq type='set' id='b'/>").as_bytes()).await.unwrap();
        let features = until(&mut client.stream, "<answer/>").await;
        assert!(
            features.contains("<dual xmlns='urn:tandem:dual:0'/>") && features.contains("<bind "),
            "{features}"
        );
        client.stream.write_all(b"</stream:stream>").await.unwrap();
        until(&mut client.stream, "</stream:stream>").await;
        let mut seen = Vec::new();
        while let Some(line) = client.seen.recv().await {
            let last = line.contains("closed");
            seen.push(line);
            if last {
                break;
            }
        }
        assert_eq!(seen, ["alice@d.example", "3 iq", "3 closed true"]);
    }
}

#[tokio::test]
async fn who_stands_between_with_a_connection_to_each_gets_nowhere() {
    let mut client = Client::connect().await;
    let elsewhere = Client::connect().await.exporter();
    assert_ne!(client.exporter(), elsewhere);
    let passed_on = ClientBinding::Exporter(elsewhere);
    let last = client.authenticate(ScramHash::Sha512, passed_on, "alice", "pencil", "").await;
    assert!(last.contains("<not-authorized/>"), "{last}");
    // Nor does it help to take the offer out of the features: the client that could bind says so.
    let last = client.authenticate(ScramHash::Sha512, ClientBinding::NotOffered, "alice", "pencil", "").await;
    assert!(last.contains("<not-authorized/>"), "{last}");
}

#[tokio::test]
async fn plain_lets_in_where_it_is_configured() {
    let plain = |password: &str| STANDARD.encode(format!("\0alice\0{password}"));
    let open = format!("<auth xmlns='{}' mechanism='PLAIN'>", ns::SASL);
    let mut client = Client::connect_to(|mut config| {
        config.negotiation.plain = true;
        config
    })
    .await;
    for (password, wanted) in [("eraser", "<not-authorized/>"), ("pencil", "<success ")] {
        let auth = format!("{open}{}</auth>", plain(password));
        client.stream.write_all(auth.as_bytes()).await.unwrap();
        until(&mut client.stream, wanted).await;
    }
    client.stream.write_all(HEADER.as_bytes()).await.unwrap();
    until(&mut client.stream, "</stream:features>").await;
    assert_eq!(client.seen.recv().await.unwrap(), "alice@d.example");
}

/// Overload is ours: the password is not called wrong, and the same client gets in when there is room again.
#[tokio::test]
async fn where_too_many_passwords_are_being_checked_a_good_one_is_put_off() {
    let mut checks = None;
    let mut client = Client::connect_to(|mut config| {
        config.negotiation.plain = true;
        config.check_wait = Duration::from_millis(50);
        let all = u32::try_from(config.checks.available_permits()).unwrap();
        checks = Some(config.checks.clone().try_acquire_many_owned(all).unwrap());
        config
    })
    .await;
    let data = STANDARD.encode("\0alice\0pencil");
    let auth = format!("<auth xmlns='{}' mechanism='PLAIN'>{data}</auth>", ns::SASL);
    for _ in 0..4 {
        client.stream.write_all(auth.as_bytes()).await.unwrap();
        until(&mut client.stream, "<temporary-auth-failure/>").await;
    }
    drop(checks);
    client.stream.write_all(auth.as_bytes()).await.unwrap();
    until(&mut client.stream, "<success ").await;
}

#[tokio::test]
async fn who_guesses_too_much_is_put_off_and_so_is_the_right_password_from_there() {
    let rates = Rates { failed_logins_per_minute: 2, ..Rates::default() };
    let mut client = Client::connect_to(|mut config| {
        config.negotiation.auth_attempts = 10;
        config.rates(rates)
    })
    .await;
    for _ in 0..2 {
        let last = client.authenticate(ScramHash::Sha1, UNBOUND, "alice", "eraser", "").await;
        assert!(last.contains("<not-authorized/>"), "{last}");
    }
    for password in ["eraser", "pencil"] {
        let last = client.authenticate(ScramHash::Sha1, UNBOUND, "alice", password, "").await;
        assert!(last.contains("<temporary-auth-failure/>"), "{last}");
    }
}

#[tokio::test]
async fn wrong_passwords_unknown_accounts_and_foreign_identities_fail_alike() {
    let mut client = Client::connect().await;
    let wrong = client.authenticate(ScramHash::Sha256, UNBOUND, "alice", "eraser", "").await;
    assert!(wrong.contains("<not-authorized/>"), "{wrong}");
    assert_eq!(client.authenticate(ScramHash::Sha256, UNBOUND, "bob", "pencil", "").await, wrong);
    // One attempt is left, and it is good although two were not.
    let good = client.authenticate(ScramHash::Sha256, UNBOUND, "alice", "pencil", "").await;
    assert!(good.starts_with("<success"), "{good}");
    let mut client = Client::connect().await;
    let foreign = client.authenticate(ScramHash::Sha256, UNBOUND, "alice", "pencil", "a=bob@d.example").await;
    assert!(foreign.contains("<invalid-authzid/>"), "{foreign}");
}
