//! Where Redis is: the URL of the configuration, parsed, its password never shown.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A parsed `redis` URL.
///
/// `redis://`, `redis+cluster://`, `redis+sentinel://`, and `rediss` for TLS in each of them.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether servers and sentinels are spoken to by TLS.
    pub tls: bool,
    /// What is at the other end.
    pub topology: Topology,
    /// The ACL user; the default one when none.
    pub user: Option<Box<str>>,
    /// Its password, unless a file has it.
    pub password: Option<Password>,
    /// Where to begin: the server, some nodes of the cluster, the sentinels. At least one.
    pub nodes: Vec<Node>,
    /// Which database of the server; 0 when none.
    pub database: Option<u16>,
}

/// What is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// A Redis Cluster.
    Cluster,
    /// Sentinels that know where the master of this name is.
    Sentinel {
        /// The name.
        master: Box<str>,
    },
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A name or an address; IPv6 without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
}

/// A password; shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

/// Why a URL is refused. Never repeats the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// No scheme that is known.
    #[error(
        "must begin with `redis://`, `redis+cluster://` or `redis+sentinel://` (`rediss` instead of `redis` for TLS)"
    )]
    Scheme,
    /// No host, or an empty one between commas.
    #[error("names no host: expected `redis://host:port`")]
    Host,
    /// Not a port.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// Several servers without a cluster or sentinels.
    #[error("names several hosts: use `redis+cluster://` or `redis+sentinel://`")]
    Several,
    /// More nodes than anybody writes down.
    #[error("names more than {MAX_NODES} hosts: a few are enough to find the others")]
    TooMany,
    /// Sentinels without the name of what they watch.
    #[error("does not say which master: expected `redis+sentinel://host:port/master`")]
    Master,
    /// Not a database.
    #[error("has a database that is not a number from 0 to 65535")]
    Database,
    /// A cluster has one database only.
    #[error("names a database, of which a cluster has only one: leave it out")]
    ClusterDatabase,
    /// `?` or `#`.
    #[error("has a `?` or `#`, which mean nothing here: write them as %3F and %23 in names and passwords")]
    Extra,
    /// A broken `%` sequence.
    #[error("has a `%` that is not followed by two hexadecimal digits of a UTF-8 text")]
    Escape,
}

const MAX_NODES: usize = 32;
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

// === impl RedisUrl ===

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(RedisUrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Extra);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
            Some((user, password)) => (unescape(user)?, unescape(password)?),
            None => (None, None),
        };
        let path = path.trim_end_matches('/');
        let (topology, port, database) = match kind {
            "" if !scheme.contains('+') => (Topology::Single, PORT, path),
            "cluster" if !path.is_empty() => return Err(RedisUrlError::ClusterDatabase),
            "cluster" => (Topology::Cluster, PORT, ""),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let master = unescape(master)?.ok_or(RedisUrlError::Master)?;
                (Topology::Sentinel { master }, SENTINEL_PORT, database)
            }
            _ => return Err(RedisUrlError::Scheme),
        };
        let nodes: Vec<_> = hosts.split(',').map(|host| Node::parse(host, port)).collect::<Result<_, _>>()?;
        if nodes.len() > 1 && topology == Topology::Single {
            return Err(RedisUrlError::Several);
        }
        if nodes.len() > MAX_NODES {
            return Err(RedisUrlError::TooMany);
        }
        let database = match database {
            "" => None,
            digits => Some(digits.parse().map_err(|_| RedisUrlError::Database)?),
        };
        Ok(Self { tls, topology, user, password: password.map(Password), nodes, database })
    }
}

impl fmt::Display for RedisUrl {
    /// As it was written, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.topology {
            Topology::Single => "://",
            Topology::Cluster => "+cluster://",
            Topology::Sentinel { .. } => "+sentinel://",
        })?;
        match (&self.user, &self.password) {
            (None, None) => {}
            (user, password) => {
                escape(f, user.as_deref().unwrap_or_default())?;
                f.write_str(if password.is_some() { ":…@" } else { "@" })?;
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{node}", if index > 0 { "," } else { "" })?;
        }
        if let Topology::Sentinel { master } = &self.topology {
            f.write_str("/")?;
            escape(f, master)?;
        }
        match self.database {
            None => Ok(()),
            Some(database) => write!(f, "/{database}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

// === impl Node ===

impl Node {
    fn parse(text: &str, port: u16) -> Result<Self, RedisUrlError> {
        let (host, digits) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(RedisUrlError::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| RedisUrlError::Host)?;
                let digits = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or(RedisUrlError::Host)?),
                };
                (host, digits)
            }
            None => match text.split_once(':') {
                Some((host, digits)) => (host, Some(digits)),
                None => (text, None),
            },
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(fits) {
            return Err(RedisUrlError::Host);
        }
        let port = match digits.map(str::parse) {
            None => port,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return Err(RedisUrlError::Port),
        };
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

// === impl Password ===

impl Password {
    /// A password.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the one who logs in with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Percent-decoding (RFC 3986 §2.1); none for an empty text.
fn unescape(text: &str) -> Result<Option<Box<str>>, RedisUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or(RedisUrlError::Escape)?;
        let digits = str::from_utf8(digits).map_err(|_| RedisUrlError::Escape)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(RedisUrlError::Escape);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| RedisUrlError::Escape)?);
        rest = tail;
    }
    let text = String::from_utf8(bytes).map_err(|_| RedisUrlError::Escape)?;
    Ok(Some(text.into_boxed_str()).filter(|text| !text.is_empty()))
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(f, "{}", char::from(byte))?;
            }
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn nodes(url: &RedisUrl) -> Vec<String> {
        url.nodes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_server_may_have_a_user_a_port_and_a_database() {
        let url = parse("redis://homing:p%40ss@cache.internal:6380/3");
        assert_eq!((url.tls, url.topology, url.database), (false, Topology::Single, Some(3)));
        assert_eq!(url.user.as_deref(), Some("homing"));
        assert_eq!(url.password.map(|password| password.reveal().to_owned()).as_deref(), Some("p@ss"));
        assert_eq!(url.nodes, [Node { host: "cache.internal".into(), port: 6380 }]);
    }

    #[test]
    fn ports_have_the_usual_defaults() {
        assert_eq!(nodes(&parse("redis://[::1]")), ["[::1]:6379"]);
        assert_eq!(nodes(&parse("redis+sentinel://a,b:1/m")), ["a:26379", "b:1"]);
        assert_eq!(nodes(&parse("rediss+cluster://a,b:7001")), ["a:6379", "b:7001"]);
    }

    #[test]
    fn sentinels_know_a_master_and_perhaps_a_database() {
        let url = parse("rediss+sentinel://a,b/my%2Fmaster/2");
        assert_eq!(url.topology, Topology::Sentinel { master: "my/master".into() });
        assert_eq!((url.tls, url.database), (true, Some(2)));
    }

    #[test]
    fn a_password_may_come_without_a_user() {
        let url = parse("redis://:secret@h");
        assert_eq!((url.user.as_deref(), url.password.is_some()), (None, true));
    }

    #[test]
    fn every_bad_url_is_refused_for_its_reason() {
        use RedisUrlError as E;
        let cases = [
            ("localhost:6379", E::Scheme),
            ("http://localhost", E::Scheme),
            ("redis+ring://localhost", E::Scheme),
            ("redis+://localhost", E::Scheme),
            ("redis://", E::Host),
            ("redis://user@", E::Host),
            ("redis+cluster://a,,b", E::Host),
            ("redis://[::1", E::Host),
            ("redis://a b", E::Host),
            ("redis://a:0", E::Port),
            ("redis://a:70000", E::Port),
            ("redis://a:", E::Port),
            ("redis://a,b", E::Several),
            ("redis+sentinel://a", E::Master),
            ("redis+sentinel://a/", E::Master),
            ("redis://a/x", E::Database),
            ("redis+cluster://a/1", E::ClusterDatabase),
            ("redis://a?db=1", E::Extra),
            ("redis://:a#b@h", E::Extra),
            ("redis://:%zz@h", E::Escape),
            ("redis://:%f@h", E::Escape),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<RedisUrl>(), Err(error), "{text}");
        }
        let many = format!("redis+cluster://{}", vec!["h"; 33].join(","));
        assert_eq!(many.parse::<RedisUrl>(), Err(E::TooMany));
    }

    #[test]
    fn no_way_of_printing_shows_a_password() {
        let url = parse("rediss+sentinel://us%3Aer:hunter2@a:1,[::1]:2/main/4");
        assert_eq!(url.to_string(), "rediss+sentinel://us%3Aer:…@a:1,[::1]:2/main/4");
        for shown in [format!("{url:?}"), format!("{url:#?}"), format!("{:?}", url.password)] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(parse("redis://u@h").to_string(), "redis://u@h:6379");
        assert_eq!(parse("redis://h/2").to_string(), "redis://h:6379/2");
        assert_eq!(parse("redis://h/0").to_string(), "redis://h:6379/0");
    }
}
