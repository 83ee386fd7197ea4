//! Who may do what: decided from the listener, the head of the request and the configuration alone.
//!
//! Three things are kept apart. *Where* a request comes in: loopback, any other address, or the Unix socket,
//! whose file only its owner may open. *What* it needs: health and metrics are for everybody, reading for
//! whoever is on this machine or has the token, changing for whoever has the token (without one configured:
//! the Unix socket, or loopback if that was allowed). And *whose browser* may send it: no page of another
//! site, whatever name it has given our address (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, StatusCode, Uri, header, request};

use super::api::ChangesBy;
use crate::{config::Token, world::Snapshot};

/// Where a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// A listener on a loopback address.
    Loopback,
    /// A listener on any other address.
    Network,
    /// The Unix socket.
    Socket,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Metrics and health.
    Health,
    /// The dashboard's files, which hold no data.
    Page,
    /// Any reading of state.
    Read,
    /// A change.
    Change,
}

/// What the configuration says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) token: Option<&'a Token>,
    pub(super) allow_changes: bool,
    pub(super) hosts: &'a [Box<str>],
}

/// By what right a request was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It had the token.
    Token,
    /// It came in where none is needed.
    Place,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this needs the token: Authorization: Bearer …")]
    TokenNeeded,
    #[error("this is not the token")]
    WrongToken,
    #[error("changes need a token: configure [admin] token_file, or use the Unix socket ([admin] socket)")]
    ChangesOff,
    #[error(
        "this listener is not on a loopback address and no token is configured ([admin] token_file): \
         it shows /metrics, /livez and /readyz only"
    )]
    NetworkWithoutToken,
    #[error("the Host of this request is neither an address, nor localhost, nor in [admin] hosts")]
    ForeignHost,
    #[error("the request comes from a page of another site")]
    CrossSite,
    #[error("the request target must be a path")]
    NotAPath,
}

// === impl Via ===

impl Via {
    /// What a listener at this address is.
    pub(super) fn tcp(listener: SocketAddr) -> Self {
        if listener.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

// === impl Rules ===

impl<'a> Rules<'a> {
    /// What this snapshot says.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let admin = &snapshot.config.admin;
        Self { token: snapshot.token.as_ref(), allow_changes: admin.allow_changes, hosts: &admin.hosts }
    }

    /// How a change has to prove itself here.
    pub(super) fn changes(&self, via: Via) -> ChangesBy {
        match (self.token, via) {
            (Some(_), _) => ChangesBy::Token,
            (None, Via::Socket) => ChangesBy::Open,
            (None, Via::Loopback) if self.allow_changes => ChangesBy::Open,
            (None, Via::Loopback | Via::Network) => ChangesBy::Refused,
        }
    }

    /// Whether a request may have what it needs.
    ///
    /// # Errors
    ///
    /// When not, and why.
    pub(super) fn check(&self, via: Via, need: Need, head: &request::Parts) -> Result<Right, Refusal> {
        // Whoever reaches a network listener may read these anyway: no page learns more by a trick.
        if !(need == Need::Health && via == Via::Network) {
            self.check_site(need, head)?;
        }
        let presented = match (self.token, bearer(&head.headers)) {
            (Some(token), Some(presented)) if token.matches(presented) => Some(Right::Token),
            // Told at once, also where none is needed: whoever presents one believes in it.
            (Some(_), Some(_)) => return Err(Refusal::WrongToken),
            _ => None,
        };
        match need {
            Need::Health => Ok(Right::Place),
            Need::Page if via == Via::Network && self.token.is_none() => Err(Refusal::NetworkWithoutToken),
            Need::Page => Ok(Right::Place),
            Need::Read => match (via, self.token) {
                (Via::Loopback | Via::Socket, _) => Ok(presented.unwrap_or(Right::Place)),
                (Via::Network, None) => Err(Refusal::NetworkWithoutToken),
                (Via::Network, Some(_)) => presented.ok_or(Refusal::TokenNeeded),
            },
            Need::Change => match self.changes(via) {
                ChangesBy::Open => Ok(Right::Place),
                ChangesBy::Token => presented.ok_or(Refusal::TokenNeeded),
                ChangesBy::Refused if via == Via::Network => Err(Refusal::NetworkWithoutToken),
                ChangesBy::Refused => Err(Refusal::ChangesOff),
            },
        }
    }

    /// Refuses what the page of another site sends, or has a browser send.
    fn check_site(&self, need: Need, head: &request::Parts) -> Result<(), Refusal> {
        if !is_path(&head.uri) {
            return Err(Refusal::NotAPath);
        }
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_| Refusal::ForeignHost)?,
            // HTTP/1.0 health checks have none; every browser sends one.
            (None, _) if need == Need::Health => return Ok(()),
            _ => return Err(Refusal::ForeignHost),
        };
        if !self.is_ours(host) {
            return Err(Refusal::ForeignHost);
        }
        // A link to a page or to metrics may be followed from anywhere: what it leads to is shown to
        // nobody but the person who follows it.
        let followed = matches!(need, Need::Health | Need::Page)
            && matches!(head.method, Method::GET | Method::HEAD)
            && field(&head.headers, "sec-fetch-mode") == Some(b"navigate")
            && field(&head.headers, "sec-fetch-dest") == Some(b"document");
        // "same-site" is any other port of this machine.
        let site = field(&head.headers, "sec-fetch-site");
        if !followed && !matches!(site, None | Some(b"same-origin" | b"none")) {
            return Err(Refusal::CrossSite);
        }
        match field(&head.headers, "origin") {
            None => Ok(()),
            Some(origin) if same_authority(origin, host) => Ok(()),
            Some(_) => Err(Refusal::CrossSite),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
        if host.contains('@') {
            return false;
        }
        let name = authority.host();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let name = literal.strip_suffix('.').unwrap_or(literal);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| name.eq_ignore_ascii_case(known))
    }
}

// === impl Refusal ===

impl Refusal {
    /// The status that says so.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TokenNeeded | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NotAPath => StatusCode::BAD_REQUEST,
            Self::ChangesOff | Self::NetworkWithoutToken | Self::ForeignHost | Self::CrossSite => {
                StatusCode::FORBIDDEN
            }
        }
    }
}

/// The token of RFC 6750 §2.1 credentials; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// The absolute form of a target names a host of its own, which Host checks would not see.
fn is_path(uri: &Uri) -> bool {
    uri.authority().is_none() && uri.path().starts_with('/')
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

/// Whether an origin (`scheme://host:port`, RFC 6454 §6.2, or `null`) is the one that Host names.
fn same_authority(origin: &[u8], host: &str) -> bool {
    let scheme = |prefix: &[u8]| origin.get(prefix.len()..).filter(|_| origin.starts_with(prefix));
    scheme(b"http://")
        .or_else(|| scheme(b"https://"))
        .is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
}

const SCHEME: &[u8] = b"bearer ";

#[cfg(test)]
mod tests;
