//! One request of a test and its answer.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{COOKIE, HOST, SET_COOKIE},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    BoxError,
    client::{Client, Connection, Protocol},
    flow::{Body, full},
    within,
};

/// A request in the making.
#[must_use = "a call does nothing until it is sent"]
pub(crate) struct Call<'a> {
    via: Via<'a>,
    method: Method,
    path: String,
    authority: Option<String>,
    headers: HeaderMap,
    body: Option<Body>,
}

/// On which connection a request goes.
pub(crate) enum Via<'a> {
    /// One of its own.
    Fresh(&'a Client),
    /// This one.
    Kept(&'a Connection),
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// An answer whose body is still to be read.
pub(crate) struct Opened {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// Keeps the connection while the body is read.
    _connection: Option<Connection>,
}

/// The cookies of one user: names and values, nothing else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar(Vec<(String, String)>);

// === impl Call ===

impl<'a> Call<'a> {
    /// A request without fields and body.
    pub(crate) fn new(via: Via<'a>, method: Method, path: &str) -> Self {
        Self { via, method, path: path.to_owned(), authority: None, headers: HeaderMap::new(), body: None }
    }

    /// Adds a header field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a valid field name");
        self.headers.append(name, value.parse().expect("a valid field value"));
        self
    }

    /// Adds a Cookie field of one cookie.
    pub(crate) fn cookie(self, name: &str, value: &str) -> Self {
        self.header("cookie", &format!("{name}={value}"))
    }

    /// Adds the Cookie field of this user, unless they have none.
    pub(crate) fn jar(mut self, jar: &Jar) -> Self {
        if let Some(cookies) = jar.field() {
            self.headers.append(COOKIE, cookies);
        }
        self
    }

    /// Names another host than the connection's.
    pub(crate) fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Brings this body.
    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// Sends it and reads the whole answer; panics when there is none.
    pub(crate) async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        let sent = within(&what, self.try_send()).await;
        sent.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn try_send(self) -> Result<Answer, BoxError> {
        let (response, _connection) = self.exchange().await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Answer {
            status: head.status,
            version: head.version,
            headers: head.headers,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }

    /// Sends it and reads the answer's head; panics when there is none.
    pub(crate) async fn open(self) -> Opened {
        let what = format!("the head of {} {}", self.method, self.path);
        let opened = within(&what, self.exchange()).await;
        let (response, connection) = opened.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (head, body) = response.into_parts();
        Opened { status: head.status, headers: head.headers, body, _connection: connection }
    }

    async fn exchange(self) -> Result<(Response<Incoming>, Option<Connection>), BoxError> {
        let Self { via, method, path, authority, headers, body } = self;
        let fresh = match via {
            Via::Fresh(client) => Some(client.try_connect().await?),
            Via::Kept(_) => None,
        };
        let connection = match (&fresh, via) {
            (Some(fresh), _) | (None, Via::Kept(fresh)) => fresh,
            (None, Via::Fresh(_)) => unreachable!("just connected"),
        };
        let authority = authority.as_deref().unwrap_or_else(|| connection.authority());
        let uri = match connection.protocol() {
            Protocol::Http1 => path.clone(),
            Protocol::Http2 => format!("https://{authority}{path}"),
        };
        let body = body.unwrap_or_else(|| full(Bytes::new()));
        let mut request = Request::builder().method(method).uri(uri).body(body)?;
        *request.headers_mut() = headers;
        if connection.protocol() == Protocol::Http1 && !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, authority.parse()?);
        }
        let response = connection.send(request).await?;
        Ok((response, fresh))
    }
}

// === impl Answer ===

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    /// The value of a header field; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The value of a cookie that it sets.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        cookies(&self.headers).filter(|(set, _)| *set == name).map(|(_, value)| value).last()
    }
}

// === impl Jar ===

impl Jar {
    /// Takes up what an answer sets; an empty value deletes.
    pub(crate) fn store(&mut self, headers: &HeaderMap) {
        for (name, value) in cookies(headers) {
            self.0.retain(|(kept, _)| kept != name);
            if !value.is_empty() {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The value of a cookie.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(kept, _)| kept == name).map(|(_, value)| &**value)
    }

    fn field(&self) -> Option<HeaderValue> {
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!cookies.is_empty()).then(|| cookies.join("; ").parse().expect("as the server set them"))
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let fields = headers.get_all(SET_COOKIE).iter().filter_map(|field| field.to_str().ok());
    fields.filter_map(|field| field.split(';').next()?.trim().split_once('='))
}
