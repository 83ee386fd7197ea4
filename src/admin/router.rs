//! Which path is what, and what it needs.

use std::borrow::Cow;

use http::Method;

use super::{access::Need, dashboard, reply::Failure};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Metrics,
    Alive,
    Ready,
    Page(&'a str),
    Status,
    Cluster,
    Events,
    Sessions(Target<'a>),
    Explain,
    Forget,
    Move,
    Drain(Target<'a>),
    DrainProgress(Target<'a>),
    Undrain(Target<'a>),
    Maintenance(Target<'a>),
    Weight(Target<'a>),
    Reload,
    Log,
    SetLog,
}

/// A backend of a pool, by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) pool: Cow<'a, str>,
    pub(super) backend: Cow<'a, str>,
}

/// Where the API begins.
pub(super) const API: &str = "/api/";

// === impl Route ===

impl<'a> Route<'a> {
    /// Reads method and path.
    ///
    /// # Errors
    ///
    /// When there is nothing at the path, or not for this method.
    pub(super) fn of(method: &Method, path: &'a str) -> Result<Self, Failure> {
        match path {
            "/metrics" => get(method, Self::Metrics),
            "/livez" => get(method, Self::Alive),
            "/readyz" => get(method, Self::Ready),
            _ => match path.strip_prefix("/api/v1/") {
                Some(rest) => Self::api(method, rest),
                None if dashboard::asset(path).is_some() => get(method, Self::Page(path)),
                None => Err(Failure::NoSuchPath),
            },
        }
    }

    fn api(method: &Method, path: &'a str) -> Result<Self, Failure> {
        let segments: Vec<&str> = path.split('/').collect();
        match segments[..] {
            ["status"] => get(method, Self::Status),
            ["cluster"] => get(method, Self::Cluster),
            ["events"] => get(method, Self::Events),
            ["explain"] => post(method, Self::Explain),
            ["sessions", "forget"] => post(method, Self::Forget),
            ["sessions", "move"] => post(method, Self::Move),
            ["reload"] => post(method, Self::Reload),
            ["log"] => match *method {
                Method::GET | Method::HEAD => Ok(Self::Log),
                Method::PUT => Ok(Self::SetLog),
                _ => Err(Failure::Method("GET, HEAD, PUT")),
            },
            ["pools", pool, "backends", backend, action] => {
                let target = Target { pool: decoded(pool), backend: decoded(backend) };
                match action {
                    "sessions" => get(method, Self::Sessions(target)),
                    "drain" => match *method {
                        Method::GET | Method::HEAD => Ok(Self::DrainProgress(target)),
                        Method::POST => Ok(Self::Drain(target)),
                        _ => Err(Failure::Method("GET, HEAD, POST")),
                    },
                    "undrain" => post(method, Self::Undrain(target)),
                    "maintenance" => post(method, Self::Maintenance(target)),
                    "weight" => post(method, Self::Weight(target)),
                    _ => Err(Failure::NoSuchPath),
                }
            }
            _ => Err(Failure::NoSuchPath),
        }
    }

    /// What a request for this needs.
    pub(super) const fn need(&self) -> Need {
        match self {
            Self::Metrics | Self::Alive | Self::Ready => Need::Health,
            Self::Page(_) => Need::Page,
            Self::Status
            | Self::Cluster
            | Self::Events
            | Self::Sessions(_)
            | Self::Explain
            | Self::DrainProgress(_)
            | Self::Log => Need::Read,
            Self::Forget
            | Self::Move
            | Self::Drain(_)
            | Self::Undrain(_)
            | Self::Maintenance(_)
            | Self::Weight(_)
            | Self::Reload
            | Self::SetLog => Need::Change,
        }
    }
}

fn get<'a>(method: &Method, route: Route<'a>) -> Result<Route<'a>, Failure> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(route) } else { Err(Failure::Method("GET, HEAD")) }
}

fn post<'a>(method: &Method, route: Route<'a>) -> Result<Route<'a>, Failure> {
    if *method == Method::POST { Ok(route) } else { Err(Failure::Method("POST")) }
}

/// A path segment without percent-encoding (RFC 3986 §2.1). Names are ASCII: what does not decode to that
/// names nothing.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut text = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(backend: &str) -> Target<'_> {
        Target { pool: "shop".into(), backend: backend.into() }
    }

    #[test]
    fn names_may_be_percent_encoded() {
        for (path, backend) in [
            ("/api/v1/pools/shop/backends/127.0.0.1:3001/undrain", "127.0.0.1:3001"),
            ("/api/v1/pools/shop/backends/127.0.0.1%3a3001/undrain", "127.0.0.1:3001"),
            ("/api/v1/pools/shop/backends/a%2Fb/undrain", "a/b"),
            ("/api/v1/pools/shop/backends/a%zz%e4%/undrain", "a%zz%e4%"),
        ] {
            let route = Route::of(&Method::POST, path);
            assert_eq!(route.unwrap(), Route::Undrain(target(backend)), "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_one() {
        for (method, path, allow) in [
            (Method::POST, "/metrics", "GET, HEAD"),
            (Method::GET, "/api/v1/reload", "POST"),
            (Method::DELETE, "/api/v1/log", "GET, HEAD, PUT"),
            (Method::PUT, "/api/v1/pools/shop/backends/app-1/drain", "GET, HEAD, POST"),
        ] {
            let Err(Failure::Method(allowed)) = Route::of(&method, path) else { panic!("{method} {path}") };
            assert_eq!(allowed, allow, "{method} {path}");
        }
    }

    #[test]
    fn unknown_paths_are_nothing() {
        for path in
            ["/api/v1/", "/api/v1/statuses", "/api/v2/status", "/api/v1/pools/a/backends/b/c", "/x", "//"]
        {
            assert!(matches!(Route::of(&Method::GET, path), Err(Failure::NoSuchPath)), "{path}");
        }
    }

    #[test]
    fn what_changes_something_needs_the_right_to() {
        for path in ["/api/v1/reload", "/api/v1/sessions/move", "/api/v1/pools/a/backends/b/drain"] {
            assert_eq!(Route::of(&Method::POST, path).unwrap().need(), Need::Change, "{path}");
        }
        assert_eq!(Route::of(&Method::POST, "/api/v1/explain").unwrap().need(), Need::Read);
        assert_eq!(Route::of(&Method::GET, "/api/v1/pools/a/backends/b/drain").unwrap().need(), Need::Read);
    }
}
