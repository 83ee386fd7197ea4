//! How names, hosts, paths and addresses are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::{
    excerpt::shown,
    model::{Discover, HostPattern},
    suggest::instead,
};
use crate::path::Path;

/// Where a backend is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackendUrl {
    /// Whether it is spoken to over TLS.
    pub(super) secure: bool,
    /// Host name or address literal (IPv6 without brackets), lower-case.
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

/// Reads the address of a listener: `[::]:8443`, `127.0.0.1:8443`; `:8443` and `8443` mean all
/// addresses of both families.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Some(port) = parse_port(port) {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    text.parse().map_err(|_| {
        format!("`{}` is not an address such as \"[::]:8443\", \"127.0.0.1:8443\" or \":8443\"", shown(text))
    })
}

/// Reads a name of a pool or backend, which becomes a label value.
pub(super) fn parse_name(text: &str) -> Result<Box<str>, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(known) {
        Ok(text.into())
    } else {
        Err(format!(
            "`{}` is no name: use 1 to {NAME_MAX} of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`",
            shown(text)
        ))
    }
}

/// Reads `10.0.0.0/8` or a single address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| single())
        .map(canonical_network)
        .map_err(|_| format!("`{}` is not a network such as \"10.0.0.0/8\" or an address", shown(text)))
}

/// IPv4 addresses are compared as such, however they or their network are written.
fn canonical_network(network: IpNet) -> IpNet {
    let (IpAddr::V4(address), Some(prefix)) =
        (network.addr().to_canonical(), network.prefix_len().checked_sub(96))
    else {
        return network;
    };
    match network {
        IpNet::V6(_) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        IpNet::V4(_) => network,
    }
}

/// Reads `*`, `shop.example` or `*.shop.example`.
pub(super) fn parse_host_pattern(text: &str) -> Result<HostPattern, String> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("`{}` is not a host: leave out the scheme and the path", shown(text)));
    }
    if let Some(name) = text.strip_prefix("*.") {
        let name = parse_host_name(name)?;
        return Ok(HostPattern::Wildcard(format!(".{name}").into()));
    }
    if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6: Ipv6Addr = v6.parse().map_err(|_| format!("`{}` is not an IPv6 address", shown(text)))?;
        return Ok(HostPattern::Exact(format!("[{v6}]").into()));
    }
    if text.contains(':') {
        return Err(format!("`{}`: leave out the port, a route serves all of them", shown(text)));
    }
    parse_host_name(text).map(HostPattern::Exact)
}

/// Writes a host pattern so that [`parse_host_pattern`] reads the same one.
pub(super) fn format_host_pattern(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

/// Reads a path prefix, into its normal form; a slash at its end changes nothing, since prefixes end at segments
/// anyhow.
pub(super) fn parse_path_prefix(text: &str) -> Result<Box<str>, String> {
    let path = parse_target(text)?;
    if let Some(c) = path.chars().find(|c| matches!(c, '*' | '?')) {
        return Err(format!("`{}`: a path prefix has no `{c}`", shown(text)));
    }
    let path = normal_path(&path)?;
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

/// The normal form of a path that requests are compared with.
pub(super) fn normal_path(text: &str) -> Result<Box<str>, String> {
    // Two slashes have one meaning here: what comes after them is no host.
    let path = format!("/{}", text.trim_start_matches('/'));
    let one = (!path.contains([';', '\\'])).then(|| Path::of(&path).only_reading()).flatten();
    one.map(|path| (&*path).into()).ok_or_else(|| {
        format!(
            "`{}`: a path with `;`, `\\`, or one of `/?#%;\\` percent-encoded can be read in several ways",
            shown(text)
        )
    })
}

/// Reads a path with or without a query, fit for a request line.
pub(super) fn parse_target(text: &str) -> Result<Box<str>, String> {
    if !text.starts_with('/') {
        return Err(format!("`{}` does not begin with `/`", shown(text)));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        None => Ok(text.into()),
        Some(c) => {
            Err(format!("`{}`: `{}` must be percent-encoded in a path", shown(text), shown(&c.to_string())))
        }
    }
}

/// Reads the value of a Host field: a host name or address, with or without a port.
pub(super) fn parse_authority(text: &str) -> Result<Box<str>, String> {
    let (host, port) = split_port(text)?;
    let host = parse_host(host)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.into() };
    Ok(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")).into())
}

/// Reads a host name under which the admin listener is reached, without a port.
pub(super) fn parse_admin_host(text: &str) -> Result<Box<str>, String> {
    if text.contains(':') {
        let text = shown(text);
        return Err(format!("`{text}`: write a host name without a port; addresses need not be listed"));
    }
    parse_host_name(text)
}

/// Reads `http://host:port` or `https://host:port`.
pub(super) fn parse_backend_url(text: &str) -> Result<BackendUrl, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("`{}` is not a URL: write \"http://host:port\"", shown(text)));
    };
    let secure = match &*scheme.to_ascii_lowercase() {
        "http" => false,
        "https" => true,
        _ => return Err(format!("unknown scheme `{}`: use `http://` or `https://`", shown(scheme))),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if !matches!(target, "" | "/") {
        let part = if target.starts_with('/') { "path" } else { "query" };
        return Err(format!("a backend has no {part}: leave out `{}`", shown(target)));
    }
    if authority.contains('@') {
        return Err("a backend's URL has no user and password: leave out what stands before `@`".to_owned());
    }
    let (host, port) = split_port(authority)?;
    let default = if secure { 443 } else { 80 };
    Ok(BackendUrl { secure, host: parse_host(host)?, port: port.unwrap_or(default) })
}

/// Writes the URL of a backend so that [`parse_backend_url`] reads the same one.
pub fn format_backend_url(secure: bool, host: &str, port: u16) -> String {
    let scheme = if secure { "https" } else { "http" };
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

/// Reads how the addresses behind a host name are found.
pub(super) fn parse_discover(text: &str) -> Result<Discover, String> {
    let all = [Discover::Dns];
    all.into_iter()
        .find(|discover| format_discover(*discover) == text)
        .ok_or_else(|| format!("unknown value `{}`{}", shown(text), instead(text, &all.map(format_discover))))
}

/// Writes what [`parse_discover`] reads.
pub(super) const fn format_discover(discover: Discover) -> &'static str {
    match discover {
        Discover::Dns => "dns",
    }
}

/// Reads the address of a DNS server: `127.0.0.1:53`, or without the port, which is 53 then.
pub(super) fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    text.parse().or_else(|_| alone()).ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(
        || format!("`{}` is not the address of a DNS server, such as \"127.0.0.1:53\"", shown(text)),
    )
}

/// Reads a host name or an address literal, IPv6 in brackets; the brackets are dropped.
fn parse_host(text: &str) -> Result<Box<str>, String> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        None => parse_host_name(text),
        Some(v6) => match v6.parse::<Ipv6Addr>() {
            Ok(v6) => Ok(v6.to_string().into()),
            Err(_) => Err(format!("`{}` is not an IPv6 address", shown(v6))),
        },
    }
}

/// Reads a DNS name or an IPv4 address, in lower case and without a dot at its end.
fn parse_host_name(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() {
        return Err("a host name is missing".to_owned());
    }
    if !text.is_ascii() {
        return Err(format!("`{}`: write the host in its ASCII form (`xn--...`)", shown(text)));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let labels = name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(known));
    // A name whose last label is a number is an address to everyone who looks it up (WHATWG URL, 3.5).
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let address = name.rsplit('.').next().is_some_and(number);
    if labels && name.len() <= 253 && (!address || name.parse::<Ipv4Addr>().is_ok()) {
        Ok(name.into())
    } else {
        Err(format!("`{}` is not a host name or address", shown(text)))
    }
}

/// Splits `host:port`; an IPv6 address must be in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Ok((text, None)),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!("`{}`: write an IPv6 address in brackets", shown(text)));
    }
    match parse_port(port) {
        Some(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(format!("`{}` is not a port: use 1 to 65535", shown(port))),
    }
}

/// Digits only: `str::parse` would take a `+`.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The longest name of a pool or backend.
const NAME_MAX: usize = 64;
/// The longest name of an entry that discovers its backends, whose names are this, a dash, and an address.
pub(super) const PREFIX_MAX: usize = NAME_MAX - ADDRESS_MAX - 1;
/// `ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff`
const ADDRESS_MAX: usize = 39;
const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_listens_on_both_families() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8443));
        assert_eq!(parse_listen(":8443"), Ok(all));
        assert_eq!(parse_listen("8443"), Ok(all));
        assert_eq!(parse_listen("127.0.0.1:0"), Ok("127.0.0.1:0".parse().unwrap()));
        for wrong in ["", ":", "localhost:8443", "::", "+80", "127.0.0.1", "70000"] {
            assert!(parse_listen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn backend_urls_are_read_and_written() {
        for (text, secure, host, port, written) in [
            ("http://127.0.0.1:3001", false, "127.0.0.1", 3001, "http://127.0.0.1:3001"),
            ("HTTP://App_1.Example./", false, "app_1.example", 80, "http://app_1.example:80"),
            ("http://[0:0::1]:3001", false, "::1", 3001, "http://[::1]:3001"),
            ("HTTPS://app", true, "app", 443, "https://app:443"),
            ("https://[::1]:8443", true, "::1", 8443, "https://[::1]:8443"),
        ] {
            assert_eq!(parse_backend_url(text), Ok(BackendUrl { secure, host: host.into(), port }), "{text}");
            assert_eq!(format_backend_url(secure, host, port), written);
        }
    }

    #[test]
    fn wrong_backend_urls_say_what_is_wrong() {
        for (text, said) in [
            ("127.0.0.1:3001", "is not a URL"),
            ("ftp://app", "unknown scheme"),
            ("http://app/x", "has no path"),
            ("http://app?x", "has no query"),
            ("http://u:p@app", "user and password"),
            ("http://app:0", "not a port"),
            ("http://app:+1", "not a port"),
            ("http://::1:80", "brackets"),
            ("http://", "host name is missing"),
            ("http://a b", "not a host name"),
            ("http://300.1.1.1", "not a host name"),
            ("http://[fe80::1%25eth0]:80", "not an IPv6 address"),
        ] {
            let error = parse_backend_url(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_resolver_is_an_address_whose_port_may_be_left_out() {
        assert_eq!(parse_resolver("127.0.0.1:5353"), Ok("127.0.0.1:5353".parse().unwrap()));
        assert_eq!(parse_resolver("::1"), Ok("[::1]:53".parse().unwrap()));
        for wrong in ["", "dns.example", "127.0.0.1:0", "127.0.0.1:x"] {
            assert!(parse_resolver(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_patterns_are_read_and_written() {
        for (text, written) in
            [("*", "*"), ("Shop.Example.", "shop.example"), ("*.x.org", "*.x.org"), ("[::1]", "[::1]")]
        {
            assert_eq!(format_host_pattern(&parse_host_pattern(text).unwrap()), written);
        }
        for wrong in ["", "*.", "*x", "a.*.b", "http://a", "a/b", "a:80", "müller.de", "a..b", "[::1]:80"] {
            assert!(parse_host_pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_that_could_split_a_request_line_is_a_path() {
        for wrong in ["x", "", "/a b", "/a\r\nX: y", "/ä", "/#x"] {
            assert!(parse_target(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_path_prefix("/api/").as_deref(), Ok("/api"));
        assert_eq!(parse_path_prefix("//").as_deref(), Ok("/"));
        assert!(parse_path_prefix("/a*").is_err());
    }
}
