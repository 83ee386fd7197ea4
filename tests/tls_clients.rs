//! Certificates of clients: who gets in, what backends learn of it, and that nobody else can say it.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, path::Path};

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client, Protocol},
    curl::shell,
    eventually,
    flow::frames,
    pki::{Authority, Leaf},
    process::Homing,
    setup::Setup,
};

/// Authorities and revocations of one test.
struct Office {
    directory: TempDir,
    authority: Authority,
}

const FIELDS: [&str; 3] = ["x-client-subject", "x-client-cert-sha256", "client-cert"];

// === impl Office ===

impl Office {
    fn open() -> Self {
        let office = Self {
            directory: tempfile::tempdir().expect("a directory"),
            authority: Authority::named("office"),
        };
        office.trust(&office.authority);
        office
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Whose certificates count from now on.
    fn trust(&self, authority: &Authority) {
        replace(&self.directory.path().join("ca.pem"), &authority.pem);
    }

    fn revoke(&self, serials: &[u64]) {
        replace(&self.directory.path().join("list.crl"), &self.authority.revoke(serials));
    }

    /// `[tls]` with this duty and these lines.
    fn section(&self, duty: &str, more: &str) -> String {
        format!("[tls]\nclient_ca = {:?}\nclient_auth = \"{duty}\"\n{more}\n", self.file("ca.pem"))
    }
}

#[tokio::test]
async fn a_certificate_is_required_and_its_subject_passed_on() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let homing = Setup::new([&backend]).section(&office.section("required", "")).start().await;
    let anna = office.authority.client("anna", 7);
    for protocol in BOTH {
        for version in [&TLS12, &TLS13] {
            let path = format!("/{protocol:?}/{:?}", version.version);
            let refused = Client::new(&homing, protocol).only(version).get(&path).try_send().await;
            assert!(refused.is_err(), "let in without a certificate: {refused:?}");
            let client = Client::new(&homing, protocol).showing(&anna).only(version);
            assert_eq!(client.get(&path).send().await.status, StatusCode::OK);
            let seen = backend.one_at(&path);
            assert_eq!(seen.one("x-client-subject"), "CN=anna,O=Homing");
            assert_eq!(seen.one("x-client-cert-sha256"), fingerprint(&anna).await);
            assert_eq!(seen.all("client-cert"), [""; 0], "not asked for");
        }
    }
    let refused = [("result", "client-certificate")];
    homing.wait_for_metric("homing_tls_handshakes_total", &refused, 4.0).await;
    let record = homing.process.access_record("a request", |record| record["status"] == 200).await;
    assert_eq!(record["client_subject"], "CN=anna,O=Homing");
}

#[tokio::test]
async fn certificates_that_nobody_vouches_for_or_whose_time_is_over_are_refused() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    for duty in ["required", "optional"] {
        let homing = Setup::new([&backend]).section(&office.section(duty, "")).start().await;
        for leaf in [Authority::named("office").client("eve", 1), office.authority.expired_client("old")] {
            for version in [&TLS12, &TLS13] {
                let client = Client::h1(&homing).showing(&leaf).only(version);
                assert!(client.get("/").try_send().await.is_err(), "{duty}");
            }
        }
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn an_optional_certificate_is_passed_on_if_there_is_one() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let homing = Setup::new([&backend]).section(&office.section("optional", "")).start().await;
    for protocol in BOTH {
        let path = format!("/{protocol:?}");
        Client::new(&homing, protocol).get(&path).header("x-client-subject", "CN=root").send().await;
        for field in FIELDS {
            assert_eq!(backend.one_at(&path).all(field), [""; 0], "{field}");
        }
        let anna = office.authority.client("anna", 7);
        let path = format!("/{protocol:?}/anna");
        let client = Client::new(&homing, protocol).showing(&anna);
        client
            .get(&path)
            .header("x-client-subject", "CN=root")
            .header("X_Client_Subject", "CN=root")
            .send()
            .await;
        let seen = backend.one_at(&path);
        assert_eq!(seen.one("x-client-subject"), "CN=anna,O=Homing");
        assert_eq!(seen.all("x_client_subject"), [""; 0]);
    }
}

#[tokio::test]
async fn nobody_can_say_who_they_are_even_if_nobody_is_asked() {
    let backend = Backend::plain("app-1");
    let top = "trusted_proxies = [\"127.0.0.0/8\"]";
    let homing = Setup::new([&backend]).top(top).section("[tls]\nclient_header = \"X-User\"").start().await;
    let fields =
        ["X-User", "x_user", "X-Client-Cert-Sha256", "Client-Cert", "CLIENT_CERT", "Client-Cert-Chain"];
    for protocol in BOTH {
        let path = format!("/{protocol:?}");
        let client = Client::new(&homing, protocol);
        let call = fields.iter().fold(client.get(&path), |call, field| call.header(field, "CN=root"));
        assert_eq!(call.send().await.status, StatusCode::OK);
        let seen = backend.one_at(&path);
        for field in fields {
            assert_eq!(seen.all(field), [""; 0], "{field}");
        }
    }
}

#[tokio::test]
async fn who_is_turned_away_is_told_why_even_if_a_request_came_along() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let homing = Setup::new([&backend]).section(&office.section("required", "")).start().await;
    let address = homing.https;
    // All of it is sent before the alert can come, as browsers do with TLS 1.3.
    let command = format!(
        "printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' | \
         openssl s_client -connect {address} -tls1_3 -ign_eof 2>&1"
    );
    for _ in 0..5 {
        let told = shell(&command).await.stdout;
        assert!(told.contains("alert certificate required"), "{told}");
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn connection_cannot_name_the_subject_away() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let homing = Setup::new([&backend]).section(&office.section("required", "")).start().await;
    let client = Client::h1(&homing).showing(&office.authority.client("anna", 7));
    let head = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close, X-Client-Subject\r\n\r\n";
    assert!(client.exchange(head).await.starts_with("HTTP/1.1 200"));
    assert_eq!(backend.one_at("/x").one("x-client-subject"), "CN=anna,O=Homing");
}

#[tokio::test]
async fn nobody_can_say_who_they_are_in_trailers() {
    let backend = Backend::start("app-1", |request| async move {
        let body = request.into_body().collect().await.expect("a whole body");
        let names =
            body.trailers().map(|trailers| trailers.keys().map(ToString::to_string).collect::<Vec<_>>());
        answer(StatusCode::OK, format!("{names:?}"))
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let mut trailers = HeaderMap::new();
        for name in ["x-client-subject", "x_client_subject", "client_cert", "x_forwarded_for", "x-kept"] {
            trailers.insert(name, HeaderValue::from_static("CN=root"));
        }
        let body = frames(vec![Frame::data("data".into()), Frame::trailers(trailers)]);
        let client = Client::new(&homing, protocol);
        let mut call = client.post("/").body(body);
        if protocol == Protocol::Http1 {
            call = call.header(
                "trailer",
                "x-client-subject, x_client_subject, client_cert, x_forwarded_for, x-kept",
            );
        }
        assert_eq!(call.send().await.text(), "Some([\"x-kept\"])", "{protocol:?}");
    }
}

#[tokio::test]
async fn the_certificate_itself_is_passed_on_if_wanted() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let section = office.section("required", "client_cert = true");
    let homing = Setup::new([&backend]).section(&section).start().await;
    let anna = office.authority.client("anna", 7);
    Client::h1(&homing).showing(&anna).get("/x").send().await;
    let body: String = anna.cert.lines().filter(|line| !line.starts_with("---")).collect();
    assert_eq!(backend.one_at("/x").one("client-cert"), format!(":{body}:"));
}

#[tokio::test]
async fn a_session_that_is_resumed_is_still_the_same_clients() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let homing = Setup::new([&backend]).section(&office.section("required", "")).start().await;
    for version in [&TLS12, &TLS13] {
        let client = Client::h1(&homing).showing(&office.authority.client("anna", 7)).only(version);
        for resumed in [false, true] {
            let connection = client.connect().await;
            let path = format!("/{:?}/{resumed}", version.version);
            assert_eq!(connection.get(&path).send().await.status, StatusCode::OK);
            assert_eq!(connection.handshake.resumed, resumed);
            assert_eq!(backend.one_at(&path).one("x-client-subject"), "CN=anna,O=Homing");
        }
    }
}

#[tokio::test]
async fn another_authority_ends_what_the_old_one_vouched_for() {
    for version in [&TLS12, &TLS13] {
        let (office, backend) = (Office::open(), Backend::plain("app-1"));
        let section = office.section("required", "");
        let homing = Setup::new([&backend]).top("watch = true").section(&section).start().await;
        let anna = Client::h1(&homing).showing(&office.authority.client("anna", 7)).only(version);
        let kept = anna.connect().await;
        assert_eq!(kept.get("/").send().await.status, StatusCode::OK);
        let next = Authority::named("next office");
        office.trust(&next);
        reloaded(&homing).await;
        let told = kept.get("/").send().await;
        assert_eq!(told.status, StatusCode::MISDIRECTED_REQUEST, "{}", told.text());
        assert_eq!(told.header("connection"), "close");
        assert!(anna.get("/").try_send().await.is_err(), "let in by a ticket ({:?})", version.version);
        let bob = Client::h1(&homing).showing(&next.client("bob", 8)).only(version);
        assert_eq!(bob.get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_ticket_from_before_certificates_were_required_lets_nobody_in() {
    for version in [&TLS12, &TLS13] {
        let (office, backend) = (Office::open(), Backend::plain("app-1"));
        let section = office.section("optional", "");
        let homing = Setup::new([&backend]).top("watch = true").section(&section).start().await;
        let client = Client::h1(&homing).only(version);
        assert_eq!(client.get("/").send().await.status, StatusCode::OK);
        let file = homing.directory().join("homing.toml");
        let text =
            fs::read_to_string(&file).expect("the configuration").replace("\"optional\"", "\"required\"");
        replace(&file, &text);
        reloaded(&homing).await;
        assert!(client.get("/").try_send().await.is_err(), "{:?}", version.version);
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_so_is_its_ticket() {
    for version in [&TLS12, &TLS13] {
        let (office, backend) = (Office::open(), Backend::plain("app-1"));
        office.revoke(&[1]);
        let section = office.section("required", &format!("client_crl = {:?}", office.file("list.crl")));
        let homing = Setup::new([&backend]).top("watch = true").section(&section).start().await;
        let client =
            |serial| Client::h1(&homing).showing(&office.authority.client("anna", serial)).only(version);
        assert!(client(1).get("/").try_send().await.is_err(), "revoked");
        let anna = client(7);
        assert_eq!(anna.get("/").send().await.status, StatusCode::OK);
        office.revoke(&[1, 7]);
        reloaded(&homing).await;
        assert!(anna.get("/").try_send().await.is_err(), "let in by a ticket ({:?})", version.version);
        assert_eq!(client(8).get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_keeps_the_old_one() {
    let (office, backend) = (Office::open(), Backend::plain("app-1"));
    let section = office.section("required", "");
    let homing = Setup::new([&backend]).top("watch = true").section(&section).start().await;
    replace(&office.directory.path().join("ca.pem"), "no PEM at all\n");
    homing.process.stderr.wait_for("ca.pem: no certificate").await;
    let anna = office.authority.client("anna", 7);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::new(&homing, protocol).showing(&anna);
        assert_eq!(client.get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_told_by_check_all_at_once() {
    let office = Office::open();
    let backend = Backend::plain("app-1");
    replace(&office.directory.path().join("list.crl"), &office.authority.pem);
    replace(&office.directory.path().join("ca.pem"), "");
    let section = office.section("required", &format!("client_crl = {:?}", office.file("list.crl")));
    let ended = Setup::new([&backend]).section(&section).run_to_end("check").await;
    assert!(!ended.status.success());
    for part in ["ca.pem: is empty", "list.crl: no revocation list in it"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

/// As openssl tells it.
async fn fingerprint(leaf: &Leaf) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("leaf.pem");
    fs::write(&file, &leaf.cert).expect("a file");
    let command = format!("openssl x509 -in {} -noout -fingerprint -sha256", file.display());
    let told = shell(&command).await.stdout;
    told.trim().rsplit_once('=').expect("a fingerprint").1.replace(':', "").to_lowercase()
}

/// Whole or not at all: the program may look at any moment.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(new, file).expect("the same directory");
}

async fn reloaded(homing: &Homing) {
    eventually("a reload", async || {
        homing.metric("homing_config_reloads_total", &[("result", "ok")]).await > 0.5
    })
    .await;
}
