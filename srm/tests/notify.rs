//! Events as their receivers see them: rsyslogd, a mail server, snmptrapd and a web server, each a real one on 127.0.0.1.

mod receivers;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use srm::config::Config;
use srm::events::{Record, Severity};
use srm::notify::{Notifier, SIGNATURE};
use srm::setup::Plan;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use receivers::{LIMIT, Process, Rsyslog, Smtpd, Snmptrapd, free_port, until};

/// A node's folder, with a certificate for `localhost` and the authority that signed it.
struct Node {
    _dir: tempfile::TempDir,
    config: PathBuf,
    text: String,
    ca: PathBuf,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let made = Plan::local_single("localhost", dir.path()).unwrap().make().unwrap();
        let config = made.nodes[0].config.clone();
        let text = fs::read_to_string(&config).unwrap();
        Node { _dir: dir, config, text, ca: made.ca }
    }

    /// The folder of its certificate.
    fn folder(&self) -> &Path {
        self.config.parent().unwrap()
    }

    /// A file that only its owner reads, for a password.
    fn private(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A notifier by what stands in the file, read and checked as a node would.
    fn notifier(&self, tables: &str) -> Notifier {
        fs::write(&self.config, format!("{}\n{tables}", self.text)).unwrap();
        let config = Config::load(&self.config).unwrap();
        config.check_files().unwrap();
        Notifier::start(&config.notify, &config.node.name, &config.node.domains[0], None).unwrap()
    }
}

/// What happens when a node dies, in words that a careless receiver would take for more than words.
fn record(number: u64) -> Record {
    Record {
        number,
        node: "a".into(),
        at_ms: 1_795_727_049_120,
        severity: Severity::Critical,
        event: "failover-complete".into(),
        row: Some(12),
        cause: "node \"b\" crashed]".into(),
        text: "Grüße: b serves.\r\n<0>1 - evil - - - -\r\n.\r\nBcc: evil@example.org".into(),
        ..Record::default()
    }
}

const ON_ONE_LINE: &str = "Grüße: b serves.  <0>1 - evil - - - -  .  Bcc: evil@example.org";

#[tokio::test]
async fn rsyslogd_reads_every_part_of_a_message_over_udp_and_over_tcp() {
    let (node, rsyslog) = (Node::new(), Rsyslog::start().await);
    let port = rsyslog.port;
    let notifier = node.notifier(&format!(
        "[[notify]]\nby = \"syslog\"\nto = [\"udp://127.0.0.1:{port}\", \"tcp://localhost:{port}\"]\n\
         facility = \"local3\"\nbody = \"{{text}}\"\n"
    ));
    notifier.tell(&record(1));
    let structured = "[tandem@8072 id=\"a-1\" event=\"failover-complete\" row=\"12\" severity=\"critical\"]";
    for parts in rsyslog.wait(2).await {
        let head = ["154", "2026-11-26T21:04:09.120Z", "a", "tandem", "failover-complete", structured];
        assert_eq!(parts[..6], head);
        assert_eq!(parts[6].trim_start_matches([' ', '\u{feff}']), ON_ONE_LINE);
    }
    // Over one connection, one after the other and long ones too: the receiver counts octets.
    let long = Record { text: "ä".repeat(3000), ..record(2) };
    notifier.tell(&long);
    notifier.tell(&record(3));
    let messages = rsyslog.wait(6).await;
    let longest = messages.iter().map(|parts| parts[6].trim_end().len()).max().unwrap();
    assert!(longest >= 6000, "{longest}");
    assert!(notifier.settle(LIMIT).await);
    assert_eq!(notifier.troubles(), Vec::<String>::new());
    assert_eq!(notifier.counts().iter().map(|counts| counts.delivered).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test]
async fn what_rsyslogd_misses_while_it_is_down_comes_once_it_is_there_again() {
    let (node, mut rsyslog) = (Node::new(), Rsyslog::start().await);
    let port = rsyslog.port;
    let notifier = node.notifier(&format!(
        "[[notify]]\nby = \"syslog\"\nto = [\"udp://127.0.0.1:{port}\", \"tcp://127.0.0.1:{port}\"]\n"
    ));
    notifier.tell(&record(1));
    rsyslog.wait(2).await;
    // One that is still on its way when the receiver ends would come twice.
    assert!(notifier.settle(LIMIT).await);
    rsyslog.kill();
    notifier.tell(&record(2));
    let both = || notifier.troubles().len() == 2;
    until("trouble", both, || format!("{:?}", notifier.troubles())).await;
    let trouble = &notifier.troubles()[1];
    assert!(trouble.contains(&format!("tcp://127.0.0.1:{port}")) && trouble.contains("1 wait"), "{trouble}");
    rsyslog.again().await;
    let second = |parts: &&Vec<String>| parts[5].contains("id=\"a-2\"");
    let came = || rsyslog.messages().iter().filter(second).count() == 2;
    until("what was missed", came, || format!("{:?}", rsyslog.messages())).await;
    assert!(notifier.settle(LIMIT).await);
    assert_eq!(notifier.troubles(), Vec::<String>::new());
}

#[tokio::test]
async fn snmptrapd_takes_a_trap_of_its_community() {
    let (node, snmptrapd) = (Node::new(), Snmptrapd::start("s3cret"));
    let at = format!("by = \"snmp\"\nto = \"udp://127.0.0.1:{}\"\n", snmptrapd.port);
    let notifier = node.notifier(&format!(
        "[[notify]]\n{at}community = \"wrong\"\nbody = \"wrong\"\n\
         [[notify]]\n{at}community = \"s3cret\"\nbody = \"{{severity}} on {{source}}: {{text}}\"\n\
         [[notify]]\n{at}community = \"s3cret\"\noid = \"1.3.6.1.4.1.32473.7\"\n"
    ));
    notifier.tell(&record(1));
    let oid = ".1.3.6.1.4.1.8072.9999.9999.5222";
    snmptrapd.wait(".1.3.6.1.4.1.32473.7.1.8.0").await;
    let traps = snmptrapd.wait(&format!("{oid}.1.8.0")).await;
    for part in [
        format!(".1.3.6.1.6.3.1.1.4.1.0 = {oid}.0.1"),
        format!("{oid}.1.1.0 = \"a-1\""),
        format!("{oid}.1.2.0 = \"a\""),
        format!("{oid}.1.3.0 = \"2026-11-26T21:04:09.120Z\""),
        format!("{oid}.1.4.0 = 2"),
        format!("{oid}.1.5.0 = \"failover-complete\""),
        format!("{oid}.1.6.0 = 12"),
        format!("{oid}.1.7.0 = \"node \\\"b\\\" crashed]\""),
        format!("{oid}.1.8.0 = \"critical on a: Gr"),
    ] {
        assert!(traps.contains(&part), "{part} is not in {traps}");
    }
    assert!(notifier.settle(LIMIT).await);
    assert!(!snmptrapd.traps().contains("\"wrong\""));
}

#[tokio::test]
async fn a_mail_server_takes_mail_however_the_connection_is_protected() {
    let node = Node::new();
    node.private("password", "pa55 \"wörd\"\n");
    let login = ["tandem", "pa55 \"wörd\""];
    for (tls, login) in [("starttls", Some(login)), ("implicit", None), ("none", None)] {
        let smtpd = Smtpd::start(tls, login, node.folder());
        let mut more = String::new();
        if login.is_some() {
            more.push_str("user = \"tandem\"\npassword_file = \"password\"\n");
        }
        if tls != "none" {
            more.push_str(&format!("ca = {:?}\n", node.ca.canonicalize().unwrap()));
        }
        let notifier = node.notifier(&format!(
            "[[notify]]\nby = \"smtp\"\nto = [\"Ops <ops@example.org>\", \"nobody@example.org\"]\n\
             from = \"tandem@example.org\"\nserver = \"localhost:{}\"\ntls = \"{tls}\"\n{more}",
            smtpd.port
        ));
        notifier.tell(&record(1));
        let mail = smtpd.next().await;
        assert_eq!(
            (&mail["from"], &mail["to"][0]),
            (&"tandem@example.org".into(), &"ops@example.org".into())
        );
        assert_eq!(mail["to"].as_array().unwrap().len(), 1, "{mail}");
        assert_eq!(
            (mail["tls"] == true, mail["authenticated"] == true),
            (tls != "none", login.is_some()),
            "{mail}"
        );
        let message = mail["message"].as_str().unwrap();
        assert!(message.contains("Subject: [critical] localhost: failover-complete (a)\r\n"), "{message}");
        assert!(message.contains("Message-ID: <tandem.a-1.1795727049120@example.org>\r\n"), "{message}");
        assert!(!message.contains("\nBcc"), "{message}");
        // The recipient that the server does not know is given up, and told of.
        assert!(notifier.settle(LIMIT).await);
        let given_up: Vec<u64> = notifier.counts().iter().map(|counts| counts.given_up).collect();
        assert_eq!(given_up, [0, 1]);
        let troubles = notifier.troubles().join("\n");
        assert!(
            troubles.starts_with("events do not reach nobody@example.org by")
                && troubles.contains("No such user")
        );
        assert!(smtpd.took().is_empty());
    }
}

#[tokio::test]
async fn a_mail_server_that_is_not_trusted_or_does_not_trust_gets_nothing_and_no_secret_is_told() {
    let node = Node::new();
    node.private("password", "s3cret\n");
    let smtpd = Smtpd::start("starttls", Some(["tandem", "another"]), node.folder());
    let stranger = Node::new();
    let table = |ca: &Path| {
        format!(
            "[[notify]]\nby = \"smtp\"\nto = \"ops@example.org\"\nfrom = \"tandem@example.org\"\n\
             server = \"localhost:{}\"\nuser = \"tandem\"\npassword_file = \"password\"\nca = {:?}\n",
            smtpd.port,
            ca.canonicalize().unwrap()
        )
    };
    // One trusts another authority, one has another password, one finds no TLS where it must be.
    let clear = Smtpd::start("none", None, node.folder());
    let no_tls = table(&node.ca).replace(&smtpd.port.to_string(), &clear.port.to_string());
    let notifier = node.notifier(&[table(&stranger.ca), table(&node.ca), no_tls].concat());
    notifier.tell(&record(1));
    let all = || notifier.troubles().len() == 3;
    until("trouble", all, || format!("{:?}", notifier.troubles())).await;
    let troubles = notifier.troubles();
    for (trouble, why) in
        troubles.iter().zip(["invalid peer certificate", "Wrong password", "STARTTLS is not supported"])
    {
        assert!(trouble.contains(why) && trouble.contains("1 wait"), "{trouble}");
        assert!(!trouble.contains("s3cret") && !trouble.contains("czNjcmV0"), "{trouble}");
    }
    assert!(smtpd.took().is_empty() && clear.took().is_empty());
}

/// What a web server was asked, and what it answers next.
#[derive(Clone, Default)]
struct Web {
    asked: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl Web {
    fn router(&self) -> Router {
        let hook = |State(web): State<Web>, headers: HeaderMap, body: Bytes| async move {
            web.asked.lock().unwrap().push((headers, body));
            let answer = web.answers.lock().unwrap().pop().unwrap_or(StatusCode::NO_CONTENT);
            (answer, [(header::LOCATION, "/elsewhere")])
        };
        Router::new().route("/hook/{secret}", post(hook)).with_state(self.clone())
    }

    async fn http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn https(&self, folder: &Path) -> u16 {
        let certificates = CertificateDer::pem_file_iter(folder.join("c2s.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("c2s.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(certificates.map(Result::unwrap).collect(), key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = self.router();
        let listener = Https { listener, acceptor: Arc::new(config).into() };
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    fn ids(&self) -> Vec<String> {
        let id = |body: &Bytes| serde_json::from_slice::<serde_json::Value>(body).unwrap()["id"].clone();
        self.asked.lock().unwrap().iter().map(|(_, body)| id(body).as_str().unwrap().to_owned()).collect()
    }
}

struct Https {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for Https {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn a_web_server_gets_the_event_as_json_with_its_signature() {
    let (node, web) = (Node::new(), Web::default());
    node.private("secret", "0123456789abcdef\n");
    let (http, https) = (web.http().await, web.https(node.folder()).await);
    let notifier = node.notifier(&format!(
        "[[notify]]\nby = \"webhook\"\nto = [\"http://{http}/hook/t0ken\", \"https://localhost:{https}/hook/t0ken\"]\n\
         secret_file = \"secret\"\nca = {:?}\n",
        node.ca.canonicalize().unwrap()
    ));
    notifier.tell(&record(1));
    assert!(notifier.settle(LIMIT).await);
    assert_eq!((notifier.troubles(), web.ids()), (Vec::new(), vec!["a-1".to_owned(); 2]));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
    for (headers, body) in web.asked.lock().unwrap().iter() {
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        let digits = headers[SIGNATURE].to_str().unwrap().strip_prefix("sha256=").unwrap();
        let tag: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect();
        hmac::verify(&key, body, &tag).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(body).unwrap(), record(1));
    }
}

#[tokio::test]
async fn a_web_server_is_asked_again_until_it_takes_or_refuses_the_event() {
    let (node, web) = (Node::new(), Web::default());
    // The last comes first.
    *web.answers.lock().unwrap() = vec![
        StatusCode::NO_CONTENT,
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::NO_CONTENT,
        StatusCode::FOUND,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    let notifier = node.notifier(&format!(
        "[[notify]]\nby = \"webhook\"\nto = \"http://{}/hook/t0ken\"\n",
        web.http().await
    ));
    notifier.tell(&record(1));
    until("trouble", || !notifier.troubles().is_empty(), String::new).await;
    let trouble = notifier.troubles().concat();
    assert!(trouble.contains("the status 503; 1 wait") && !trouble.contains("t0ken"), "{trouble}");
    notifier.tell(&record(2));
    notifier.tell(&record(3));
    assert!(notifier.settle(LIMIT).await);
    assert_eq!(web.ids(), ["a-1", "a-1", "a-1", "a-2", "a-3"]);
    let counts = &notifier.counts()[0];
    assert_eq!((counts.delivered, counts.given_up, notifier.troubles()), (2, 1, Vec::new()));
}

#[tokio::test]
async fn a_dead_receiver_is_told_of_and_holds_up_no_other() {
    let (node, web) = (Node::new(), Web::default());
    let (http, dead, stuck) =
        (web.http().await, free_port(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let stuck = stuck.local_addr().map(|address| (stuck, address.port())).unwrap();
    let notifier = node.notifier(&format!(
        "[[notify]]\nby = \"smtp\"\nto = \"ops@example.org\"\nfrom = \"a@example.org\"\ntls = \"none\"\n\
         server = \"127.0.0.1:{}\"\n\
         [[notify]]\nby = \"webhook\"\nto = [\"http://127.0.0.1:{dead}/\", \"http://127.0.0.1:{}/\", \"http://{http}/hook/x\"]\n",
        stuck.1, stuck.1
    ));
    for number in 1..=20 {
        notifier.tell(&record(number));
    }
    let all = || notifier.counts()[3].delivered == 20;
    until("all events", all, || format!("{:?}", notifier.counts())).await;
    let dead_one =
        || notifier.troubles().iter().any(|trouble| trouble.contains(&format!("127.0.0.1:{dead}: ")));
    until("trouble", dead_one, || format!("{:?}", notifier.troubles())).await;
    let waiting: Vec<usize> = notifier.counts().iter().map(|counts| counts.waiting).collect();
    assert_eq!((waiting, web.ids().len()), (vec![20, 20, 20, 0], 20));
}

/// Not a notifier alone: a whole node, of what happens to it.
#[tokio::test]
async fn a_node_that_runs_tells_every_kind_of_receiver_of_its_start_and_of_a_service_that_is_stopped() {
    let (node, web) = (Node::new(), Web::default());
    let (rsyslog, snmptrapd) = (Rsyslog::start().await, Snmptrapd::start("s3cret"));
    let smtpd = Smtpd::start("none", None, node.folder());
    let all = "severity = \"info\"\n";
    let tables = format!(
        "[[notify]]\nby = \"syslog\"\nto = \"tcp://127.0.0.1:{}\"\n{all}\
         [[notify]]\nby = \"snmp\"\nto = \"udp://127.0.0.1:{}\"\ncommunity = \"s3cret\"\n{all}\
         [[notify]]\nby = \"smtp\"\nto = \"ops@example.org\"\nfrom = \"tandem@example.org\"\ntls = \"none\"\n\
         server = \"localhost:{}\"\n{all}\
         [[notify]]\nby = \"webhook\"\nto = \"http://{}/hook/t0ken\"\n{all}",
        rsyslog.port,
        snmptrapd.port,
        smtpd.port,
        web.http().await
    );
    fs::write(&node.config, format!("{}\n{tables}", node.text)).unwrap();
    let log = node.folder().join("said");
    let tandem = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(args).arg("-c").arg(&node.config).stdin(Stdio::null());
        command
    };
    let out = fs::File::create(&log).unwrap();
    let serve = tandem(&["serve"]).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    let _serve = Process(serve);
    let said = || fs::read_to_string(&log).unwrap();
    let mut mail = String::new();
    for (kind, text) in [("started", "a has started"), ("service-down", "router")] {
        let syslog = || rsyslog.messages().iter().any(|parts| parts[4] == kind && parts[6].contains(text));
        until(kind, syslog, || format!("{:?}\n{}", rsyslog.messages(), said())).await;
        let mailed = || {
            mail.extend(smtpd.took().iter().map(ToString::to_string));
            mail.contains(&format!("localhost: {kind} (a)")) && mail.contains(text)
        };
        until(kind, mailed, said).await;
        let traps = snmptrapd.wait(&format!(".1.5.0 = \"{kind}\"")).await;
        assert!(traps.contains(text), "{traps}");
        let event = |body: &Bytes| serde_json::from_slice::<Record>(body).unwrap();
        let asked = || {
            let asked = web.asked.lock().unwrap();
            asked.iter().map(|(_, body)| event(body)).any(|e| e.event == kind && e.text.contains(text))
        };
        until(kind, asked, said).await;
        if kind == "started" {
            let mut stopped = || tandem(&["service", "stop", "router"]).status().unwrap().success();
            until("an answer", &mut stopped, said).await;
        }
    }
}
