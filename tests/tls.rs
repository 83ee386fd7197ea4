//! The TLS side: versions, ALPN, certificates by name, resumption, deadlines, and errors that help.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::fs;

use http::{StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};

use self::support::{
    backend::Backend,
    client::{BOTH, Client},
    curl::{curl, shell},
    pki::{Authority, Leaf},
    port::Port,
    process::Ended,
    setup::Setup,
    within,
};

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        for (offered, agreed) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let connection = Client::new(&homing, protocol).only(offered).connect().await;
            assert_eq!(connection.handshake.version, agreed);
            assert_eq!(connection.get("/").send().await.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn older_versions_of_tls_are_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let arguments = ["--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"];
    let refused = curl(&homing, &arguments, "/").await;
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_prefers_http2() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for (offered, agreed) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let client = if agreed == Some(b"h2") { Client::h2(&homing) } else { Client::h1(&homing) };
        let connection = client.alpn(offered).connect().await;
        assert_eq!(connection.handshake.alpn.as_deref(), agreed, "{offered:?}");
        let version = connection.get("/").send().await.version;
        assert_eq!(version == Version::HTTP_2, agreed == Some(b"h2"));
    }
}

#[tokio::test]
async fn a_client_that_offers_only_unknown_protocols_is_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing).alpn(&[b"spdy/3"]);
    assert!(within("an end", client.try_connect()).await.is_err());
}

#[tokio::test]
async fn sni_picks_the_certificate() {
    let authority = Authority::get();
    let leaves = [&["localhost"][..], &["shop.example", "www.shop.example"], &["*.forum.example"]]
        .map(|names| authority.leaf(names));
    let backend = Backend::plain("app-1");
    let setup = leaves.iter().fold(Setup::new([&backend]), Setup::certificate);
    let homing = setup.start().await;
    for (name, leaf) in [
        ("localhost", &leaves[0]),
        ("shop.example", &leaves[1]),
        ("WWW.shop.example", &leaves[1]),
        ("de.forum.example", &leaves[2]),
    ] {
        let connection = Client::h1(&homing).host(name).connect().await;
        assert!(connection.handshake.leaf == leaf.der, "another certificate for {name}");
    }
}

#[tokio::test]
async fn a_name_that_no_certificate_has_gets_the_first() {
    let leaves = [&["one.example"], &["two.example"]].map(|names| Authority::get().leaf(names));
    let backend = Backend::plain("app-1");
    let homing = leaves.iter().fold(Setup::new([&backend]), Setup::certificate).start().await;
    let command = format!(
        "openssl s_client -connect {} -servername three.example </dev/null 2>/dev/null | openssl x509 -noout -subject",
        homing.https
    );
    assert!(shell(&command).await.stdout.contains("one.example"));
}

#[tokio::test]
async fn sessions_are_resumed_whichever_worker_is_met() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).workers(4).start().await;
    for version in [&TLS12, &TLS13] {
        let client = Client::h1(&homing).only(version);
        let mut resumed = Vec::new();
        for _ in 0..12 {
            let connection = client.connect().await;
            // In TLS 1.3 the tickets come with the first bytes that are read.
            connection.get("/").send().await;
            resumed.push(connection.handshake.resumed);
        }
        assert!(!resumed[0] && resumed[1..].iter().all(|resumed| *resumed), "{version:?}: {resumed:?}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_at_the_handshake_deadline() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nhandshake = \"200ms\"").start().await;
    let mut silent = TcpStream::connect(homing.https).await.expect("it listens");
    let mut buffer = Vec::new();
    let _ = within("the close", silent.read_to_end(&mut buffer)).await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_closed_and_counted() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let before = homing.metric("homing_tls_handshakes_total", &[]).await;
    let mut plain = TcpStream::connect(homing.https).await.expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("room");
    let mut buffer = Vec::new();
    let _ = within("the close", plain.read_to_end(&mut buffer)).await;
    assert!(!String::from_utf8_lossy(&buffer).contains("200 OK"));
    homing.wait_for_metric("homing_tls_handshakes_total", &[], before + 1.0).await;
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_an_error_that_names_both_files() {
    let (one, other) = (Authority::get().leaf(&["localhost"]), Authority::get().leaf(&["localhost"]));
    let ended = serve(Leaf { key: other.key, ..one }).await;
    failed(&ended, &["cert-0.pem", "key-0.pem"]);
}

#[tokio::test]
async fn an_encrypted_key_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plain = directory.path().join("plain.pem");
    fs::write(&plain, &Leaf::localhost().key).expect("a file");
    let command =
        format!("openssl pkcs8 -topk8 -v2 aes-256-cbc -passout pass:secret -in {}", plain.display());
    let key = shell(&command).await.stdout;
    assert!(key.contains("ENCRYPTED"), "{key}");
    failed(&serve(Leaf { key, ..Leaf::localhost().clone() }).await, &["key-0.pem", "encrypted"]);
}

#[tokio::test]
async fn files_without_their_content_are_errors_that_name_them() {
    let good = Leaf::localhost();
    for (leaf, file) in [
        (Leaf { cert: String::new(), ..good.clone() }, "cert-0.pem"),
        (Leaf { key: String::new(), ..good.clone() }, "key-0.pem"),
        (Leaf { cert: "no PEM at all\n".to_owned(), ..good.clone() }, "cert-0.pem"),
        (Leaf { key: good.cert.clone(), ..good.clone() }, "key-0.pem"),
        (Leaf { cert: good.cert.replacen("MII", "!!!", 1), ..good.clone() }, "cert-0.pem"),
    ] {
        failed(&serve(leaf).await, &[file]);
    }
}

#[tokio::test]
async fn a_certificate_file_that_is_not_there_is_an_error_that_names_it() {
    let backend = Backend::plain("app-1");
    let missing = "[[certificate]]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"";
    failed(&Setup::new([&backend]).section(missing).run_to_end("serve").await, &["/nowhere/cert.pem"]);
}

#[tokio::test]
async fn an_expired_certificate_is_served_with_a_loud_warning() {
    let leaf = Authority::get().expired_leaf(&["localhost"]);
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).certificate(&leaf).start().await;
    let line = homing.process.stderr.wait_for("cert-0.pem").await;
    assert!(line.to_lowercase().contains("expired") && line.contains("WARN"), "{line}");
    let got = curl(&homing, &["--insecure"], "/").await;
    assert_eq!(got.stdout, "app-1", "{}", got.stderr);
}

#[tokio::test]
async fn certificates_glued_together_are_all_served() {
    let leaf = Authority::get().leaf(&["localhost"]);
    let glued = format!("{}{}", leaf.cert.trim_end(), Authority::get().pem);
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).certificate(&Leaf { cert: glued, ..leaf }).start().await;
    let shown = s_client(homing.https, "-servername localhost -showcerts").await;
    assert_eq!(shown.matches("BEGIN CERTIFICATE").count(), 2, "{shown}");
}

#[tokio::test]
async fn a_chain_in_the_wrong_order_is_served_in_the_right_one() {
    let leaf = Authority::get().leaf(&["localhost"]);
    let turned = Leaf { cert: format!("{}{}", Authority::get().pem, leaf.cert), ..leaf.clone() };
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).certificate(&turned).start().await;
    homing.process.stderr.wait_for("not in the order of a chain").await;
    assert!(Client::h1(&homing).connect().await.handshake.leaf == leaf.der);
}

#[tokio::test]
async fn clients_that_only_know_rsa_get_the_rsa_certificate_of_a_name() {
    let leaves = [Authority::get().leaf(&["localhost"]), Authority::get().rsa_leaf(&["localhost"])];
    let backend = Backend::plain("app-1");
    let homing = leaves.iter().fold(Setup::new([&backend]), Setup::certificate).start().await;
    for name in ["-servername localhost", "-noservername"] {
        for (flags, signature) in [
            ("", "ECDSA"),
            ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
            ("-tls1_3 -sigalgs RSA-PSS+SHA256", "RSA-PSS"),
        ] {
            let shown = s_client(homing.https, &format!("{name} {flags}")).await;
            let line = shown.lines().find(|line| line.starts_with("Peer signature type:"));
            let line = line.unwrap_or_default().to_ascii_uppercase();
            assert!(line.contains(if signature == "ECDSA" { "ECDSA" } else { "RSA" }), "{flags}: {shown}");
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_gives_way_to_another_of_its_name() {
    let names = ["localhost", "127.0.0.1"];
    let leaves = [Authority::get().expired_leaf(&names), Authority::get().leaf(&names)];
    let backend = Backend::plain("app-1");
    let homing = leaves.iter().fold(Setup::new([&backend]), Setup::certificate).start().await;
    assert!(Client::h1(&homing).connect().await.handshake.leaf == leaves[1].der);
    let line = homing.process.stderr.wait_for("certificate is never chosen").await;
    assert!(line.contains("cert-0.pem") && line.contains("cert-1.pem"), "{line}");
}

#[tokio::test]
async fn a_certificate_that_no_client_gets_is_named_by_check() {
    let leaf = Authority::get().leaf(&["localhost"]);
    let backend = Backend::plain("app-1");
    let two = |second: &Leaf| Setup::new([&backend]).certificate(&leaf).certificate(second);
    let ended = two(&Authority::get().leaf(&["localhost"])).run_to_end("check").await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("cert-1.pem") && ended.stderr.contains("never chosen"), "{ended:?}");
    let ended = two(&Authority::get().rsa_leaf(&["localhost"])).run_to_end("check").await;
    assert!(!ended.stderr.contains("never chosen"), "{ended:?}");
}

#[tokio::test]
async fn files_of_other_formats_are_errors_with_the_command_that_converts_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (backend, base) = (Backend::plain("app-1"), directory.path().display());
    let good = Leaf::localhost();
    fs::write(directory.path().join("c.pem"), &good.cert).expect("a file");
    fs::write(directory.path().join("k.pem"), &good.key).expect("a file");
    for (make, words) in [
        ("openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:x -out bad", "openssl pkcs12 -in"),
        ("openssl crl2pkcs7 -nocrl -certfile c.pem -outform DER -out bad", "openssl pkcs7 -inform DER -in"),
        ("openssl crl2pkcs7 -nocrl -certfile c.pem -out bad", "openssl pkcs7 -in"),
        ("openssl x509 -in c.pem -trustout -out bad", "openssl x509 -in"),
        ("openssl pkcs8 -topk8 -in k.pem -passout pass:x -outform DER -out bad", "encrypted private key"),
        ("base64 -w0 c.pem > bad", "base64 -d"),
        ("cp k.pem bad", "swapped"),
        ("rm -f bad && mkdir bad", "is a folder"),
    ] {
        let made = shell(&format!("cd {base} && {make}")).await;
        assert_eq!(made.code, 0, "{make}: {}", made.stderr);
        let pair = format!("[[certificate]]\ncert = \"{base}/bad\"\nkey = \"{base}/k.pem\"");
        failed(&Setup::new([&backend]).section(&pair).run_to_end("check").await, &["/bad", words]);
    }
}

#[tokio::test]
async fn der_and_other_keys_are_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (backend, base) = (Backend::plain("app-1"), directory.path().display());
    let leaf = Leaf::localhost();
    fs::write(directory.path().join("c.pem"), &leaf.cert).expect("a file");
    fs::write(directory.path().join("k.pem"), &leaf.key).expect("a file");
    for (cert, key) in [
        ("openssl x509 -in c.pem -outform DER", "openssl pkey -in k.pem -outform DER"),
        ("openssl x509 -in c.pem -text", "openssl ec -in k.pem"),
        ("cat k.pem c.pem", "cat c.pem k.pem"),
        ("iconv -f ascii -t utf-16 c.pem", "sed s/$/\\\\r/ k.pem"),
    ] {
        let made = shell(&format!("cd {base} && {cert} > cert && {key} > key")).await;
        assert_eq!(made.code, 0, "{cert}: {}", made.stderr);
        let pair = format!("[[certificate]]\ncert = \"{base}/cert\"\nkey = \"{base}/key\"");
        let ended = Setup::new([&backend]).section(&pair).run_to_end("check").await;
        assert_eq!(ended.status.code(), Some(0), "{cert}, {key}: {ended:?}");
    }
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_names_it_and_the_flag() {
    let backend = Backend::plain("app-1");
    let port = Port::reserve();
    let _listener = port.listen();
    let ended = Setup::new([&backend]).https(port.address).run_to_end("serve").await;
    failed(&ended, &[&port.address.to_string(), "--https"]);
}

/// What openssl's client shows of a handshake.
async fn s_client(address: std::net::SocketAddr, flags: &str) -> String {
    shell(&format!("openssl s_client -connect {address} {flags} </dev/null 2>/dev/null")).await.stdout
}

/// Serves one certificate, to the bad end.
async fn serve(leaf: Leaf) -> Ended {
    let backend = Backend::plain("app-1");
    Setup::new([&backend]).certificate(&leaf).run_to_end("serve").await
}

/// It ended with an error that has all these parts, and is no panic.
fn failed(ended: &Ended, parts: &[&str]) {
    assert!(!ended.status.success());
    assert!(ended.status.code().is_some_and(|code| code != 101), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}
