use std::{fs, os::unix::fs::PermissionsExt as _};

use http::Request;

use super::*;

const SECRET: &str = "0123456789abcdef";
const EVERYWHERE: [Via; 3] = [Via::Loopback, Via::Network, Via::Socket];

fn token() -> Token {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, SECRET).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Token::load(&file).unwrap()
}

fn rules(token: Option<&Token>) -> Rules<'_> {
    Rules { token, allow_changes: false, hosts: &[] }
}

fn head(fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().uri("/api/v1/status");
    if !fields.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:9090");
    }
    request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

fn with_token(token: &str) -> request::Parts {
    head(&[("authorization", &format!("Bearer {token}"))])
}

#[test]
fn only_loopback_addresses_are_loopback() {
    for (address, via) in [
        ("127.0.0.1:1", Via::Loopback),
        ("127.8.8.8:1", Via::Loopback),
        ("[::1]:1", Via::Loopback),
        ("[::ffff:127.0.0.1]:1", Via::Loopback),
        ("0.0.0.0:1", Via::Network),
        ("[::]:1", Via::Network),
        ("10.0.0.1:1", Via::Network),
        ("[fe80::1]:1", Via::Network),
    ] {
        assert_eq!(Via::tcp(address.parse().unwrap()), via, "{address}");
    }
}

#[test]
fn health_is_open_everywhere() {
    let token = token();
    for via in EVERYWHERE {
        assert_eq!(rules(None).check(via, Need::Health, &head(&[])), Ok(Right::Place));
        assert_eq!(rules(Some(&token)).check(via, Need::Health, &head(&[])), Ok(Right::Place));
    }
}

#[test]
fn health_over_the_network_may_be_asked_for_under_any_name() {
    let foreign = head(&[("host", "homing.monitoring.svc:9090")]);
    assert_eq!(rules(None).check(Via::Network, Need::Health, &foreign), Ok(Right::Place));
    assert_eq!(rules(None).check(Via::Loopback, Need::Health, &foreign), Err(Refusal::ForeignHost));
}

#[test]
fn reading_is_open_on_this_machine_with_and_without_a_token() {
    let token = token();
    for via in [Via::Loopback, Via::Socket] {
        for rules in [rules(None), rules(Some(&token))] {
            assert_eq!(rules.check(via, Need::Read, &head(&[])), Ok(Right::Place));
        }
    }
}

#[test]
fn a_network_listener_without_a_token_shows_nothing_but_health() {
    let open = Rules { allow_changes: true, ..rules(None) };
    for need in [Need::Page, Need::Read, Need::Change] {
        assert_eq!(open.check(Via::Network, need, &head(&[])), Err(Refusal::NetworkWithoutToken));
    }
}

#[test]
fn reading_over_the_network_needs_the_token() {
    let token = token();
    let rules = rules(Some(&token));
    assert_eq!(rules.check(Via::Network, Need::Read, &head(&[])), Err(Refusal::TokenNeeded));
    assert_eq!(rules.check(Via::Network, Need::Read, &with_token("wrong")), Err(Refusal::WrongToken));
    assert_eq!(rules.check(Via::Network, Need::Read, &with_token(SECRET)), Ok(Right::Token));
    assert_eq!(rules.check(Via::Network, Need::Page, &head(&[])), Ok(Right::Place));
}

#[test]
fn where_a_token_is_configured_every_change_needs_it() {
    let token = token();
    let rules = Rules { allow_changes: true, ..rules(Some(&token)) };
    for via in EVERYWHERE {
        assert_eq!(rules.changes(via), ChangesBy::Token);
        assert_eq!(rules.check(via, Need::Change, &head(&[])), Err(Refusal::TokenNeeded));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"] {
            assert_eq!(rules.check(via, Need::Change, &with_token(wrong)), Err(Refusal::WrongToken));
        }
        assert_eq!(rules.check(via, Need::Change, &with_token(SECRET)), Ok(Right::Token));
        let basic = head(&[("authorization", &format!("Basic {SECRET}"))]);
        assert_eq!(rules.check(via, Need::Change, &basic), Err(Refusal::TokenNeeded));
    }
}

#[test]
fn the_name_of_the_scheme_may_be_in_any_case() {
    let token = token();
    let lower = head(&[("authorization", &format!("bEARER  {SECRET}"))]);
    assert_eq!(rules(Some(&token)).check(Via::Socket, Need::Change, &lower), Ok(Right::Token));
}

#[test]
fn without_a_token_changes_come_from_the_socket_or_from_loopback_if_allowed() {
    let closed = rules(None);
    let open = Rules { allow_changes: true, ..closed };
    assert_eq!(closed.check(Via::Socket, Need::Change, &head(&[])), Ok(Right::Place));
    assert_eq!(closed.check(Via::Loopback, Need::Change, &head(&[])), Err(Refusal::ChangesOff));
    assert_eq!(open.check(Via::Loopback, Need::Change, &head(&[])), Ok(Right::Place));
    assert_eq!(closed.changes(Via::Loopback), ChangesBy::Refused);
    assert_eq!(open.changes(Via::Network), ChangesBy::Refused);
}

#[test]
fn a_wrong_token_is_told_even_where_none_is_needed() {
    let token = token();
    let wrong = with_token("not the token");
    assert_eq!(rules(Some(&token)).check(Via::Loopback, Need::Read, &wrong), Err(Refusal::WrongToken));
}

#[test]
fn names_that_may_be_rebound_are_refused() {
    let hosts = ["ops.example".into()];
    let rules = Rules { hosts: &hosts, ..rules(None) };
    for host in
        ["127.0.0.1", "127.0.0.1:9090", "[::1]:9090", "10.1.2.3", "localhost", "LocalHost:1", "OPS.example:9"]
    {
        let asked = head(&[("host", host)]);
        assert_eq!(rules.check(Via::Loopback, Need::Read, &asked), Ok(Right::Place), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x.ops.example",
        "",
        "a@127.0.0.1",
        "::1",
    ] {
        let asked = head(&[("host", host)]);
        for need in [Need::Health, Need::Page, Need::Read, Need::Change] {
            assert_eq!(rules.check(Via::Loopback, need, &asked), Err(Refusal::ForeignHost), "{host}");
        }
    }
}

#[test]
fn a_request_has_exactly_one_host() {
    let two = head(&[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
    assert_eq!(rules(None).check(Via::Loopback, Need::Read, &two), Err(Refusal::ForeignHost));
    let mut none = head(&[]);
    none.headers.remove(header::HOST);
    assert_eq!(rules(None).check(Via::Loopback, Need::Read, &none), Err(Refusal::ForeignHost));
    assert_eq!(rules(None).check(Via::Loopback, Need::Health, &none), Ok(Right::Place));
}

#[test]
fn a_target_that_names_a_host_of_its_own_is_refused() {
    let mut absolute = head(&[]);
    absolute.uri = "http://evil.example/api/v1/status".parse().unwrap();
    assert_eq!(rules(None).check(Via::Loopback, Need::Read, &absolute), Err(Refusal::NotAPath));
}

#[test]
fn pages_of_other_sites_are_refused() {
    let rules = Rules { allow_changes: true, ..rules(None) };
    for fields in [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("origin", "http://127.0.0.1:3000")],
        [("origin", "127.0.0.1:9090")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ] {
        for need in [Need::Read, Need::Change] {
            assert_eq!(
                rules.check(Via::Loopback, need, &head(&fields)),
                Err(Refusal::CrossSite),
                "{fields:?}"
            );
        }
    }
}

#[test]
fn our_own_page_is_let_in() {
    let rules = Rules { allow_changes: true, ..rules(None) };
    let own = head(&[("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")]);
    assert_eq!(rules.check(Via::Loopback, Need::Change, &own), Ok(Right::Place));
}

#[test]
fn a_link_to_the_page_may_be_followed_from_anywhere_but_not_embedded() {
    let link = |dest| {
        head(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", dest)])
    };
    for need in [Need::Page, Need::Health] {
        assert_eq!(rules(None).check(Via::Loopback, need, &link("document")), Ok(Right::Place));
        assert_eq!(rules(None).check(Via::Loopback, need, &link("iframe")), Err(Refusal::CrossSite));
    }
    assert_eq!(rules(None).check(Via::Loopback, Need::Read, &link("document")), Err(Refusal::CrossSite));
}
