//! The head of a request (RFC 9112 §3, §5), found in a buffer that grows.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, EXPECT},
    uri::PathAndQuery,
};
use memchr::{memchr, memchr2};

use super::{
    fields::{Malformed, collect, is_plain, strict_lines},
    framing::{Length, request_length},
};

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes from the first of the request line to the end of the empty line.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// Looks for the end of one head. What it finds does not depend on how the bytes were cut.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes that hold no line end that has not been seen.
    scanned: usize,
    /// Where the line begins that has not ended yet.
    line: usize,
    /// Whether the empty line before the head has been taken off.
    skipped: bool,
}

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    /// Its method, target, version and fields, as they were received.
    pub request: Request<()>,
    /// How long its body is.
    pub length: Length,
    /// Whether the client is willing to send another one on the connection (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for a word before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

/// A head that is not served, after which nothing on the connection can be trusted.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// As much of it as could be understood: method, target and version, no fields.
    pub line: Option<Box<Request<()>>>,
}

/// Why a head is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It breaks a rule.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// More bytes or fields than allowed.
    #[error("the head is too large")]
    HeadTooLarge,
    /// A longer target than allowed.
    #[error("the request target is too long")]
    TargetTooLong,
}

/// Bytes that a request line may have beside its target: the method, two spaces, the version.
const LINE_SLACK: usize = 64;
/// Fields that are parsed without allocating.
const FEW_FIELDS: usize = 96;

// === impl Parser ===

impl Parser {
    /// Takes a whole head out of `buffer`; none while it is not whole.
    ///
    /// # Errors
    ///
    /// When it will not be served, whatever follows.
    pub fn parse(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Head>, Refused> {
        if !self.skipped && self.scanned == 0 {
            // RFC 9112 §2.2: clients are known to send one after a body.
            if buffer.starts_with(b"\r\n") {
                buffer.advance(2);
                self.skipped = true;
            } else if **buffer == *b"\r" {
                return Ok(None);
            }
        }
        match buffer.first() {
            Some(0x16) => return Err(refused("the client speaks TLS, which is not spoken here")),
            // Nothing that follows makes it a request.
            Some(0x80.. | 0..b'\t' | 0x0e..0x20) => return Err(refused("the request begins with no method")),
            _ => {}
        }
        let end = match self.end(buffer, limits) {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(None),
            Err(why) => return Err(Refused { why, line: request_line(buffer) }),
        };
        let bytes = buffer.split_to(end).freeze();
        head(&bytes, limits).map(Some).map_err(|why| Refused { why, line: request_line(&bytes) })
    }

    /// Where the head ends, if it does.
    fn end(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let window = &buffer[..buffer.len().min(limits.head)];
        let longest = limits.target + LINE_SLACK;
        while let Some(at) = memchr(b'\n', &window[self.scanned..]) {
            let end = self.scanned + at;
            if self.line == 0 && end > longest {
                return Err(Refusal::TargetTooLong);
            }
            if end == self.line || window[end - 1] != b'\r' {
                return Err(Malformed("a bare LF").into());
            }
            self.scanned = end + 1;
            if end - 1 == self.line {
                return match self.line {
                    0 => Err(Malformed("the request line is empty").into()),
                    _ => Ok(Some(end + 1)),
                };
            }
            self.line = end + 1;
        }
        self.scanned = window.len();
        if self.line == 0 && window.len() > longest {
            return Err(Refusal::TargetTooLong);
        }
        if buffer.len() >= limits.head { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }
}

// === impl Head ===

impl Head {
    fn new(request: Request<()>) -> Result<Self, Malformed> {
        let version = request.version();
        let fields = request.headers();
        let length = request_length(version, fields)?;
        let latest = version >= Version::HTTP_11;
        let close = tokens(fields, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"close"));
        let keep = || tokens(fields, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"keep-alive"));
        // What follows a CONNECT is not HTTP.
        let keep_alive = !close && (latest || keep()) && request.method() != Method::CONNECT;
        let expects_continue =
            latest && tokens(fields, &EXPECT).any(|token| token.eq_ignore_ascii_case(b"100-continue"));
        Ok(Self { request, length, keep_alive, expects_continue })
    }
}

fn refused(rule: &'static str) -> Refused {
    Refused { why: Malformed(rule).into(), line: None }
}

fn head(bytes: &Bytes, limits: &Limits) -> Result<Head, Refusal> {
    if is_plain(bytes)
        && let Ok(head) = parse(bytes, limits)
    {
        debug_assert_eq!(strict_lines(bytes), Ok(()));
        return Ok(head);
    }
    strict_lines(bytes)?;
    parse(bytes, limits)
}

fn parse(bytes: &Bytes, limits: &Limits) -> Result<Head, Refusal> {
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    if limits.fields <= FEW_FIELDS {
        return read(bytes, &mut few[..limits.fields], limits);
    }
    match read(bytes, &mut few, limits) {
        Err(Refusal::HeadTooLarge) => read(bytes, &mut vec![MaybeUninit::uninit(); limits.fields], limits),
        read => read,
    }
}

fn read<'h>(
    bytes: &'h Bytes,
    fields: &mut [MaybeUninit<httparse::Header<'h>>],
    limits: &Limits,
) -> Result<Head, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        // The lines have been checked, so it must be the first one.
        Err(httparse::Error::Version) => {
            return Err(Malformed("the version is neither 1.1 nor 1.0").into());
        }
        _ => return Err(LINE.into()),
    }
    let (Some(method), Some(text), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(LINE.into());
    };
    if text.len() > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| LINE)?;
    let mut request = Request::new(());
    *request.uri_mut() = target(&method, bytes.slice_ref(text.as_bytes()))?;
    *request.method_mut() = method;
    *request.version_mut() = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = collect(parsed.headers, bytes)?;
    Ok(Head::new(request)?)
}

const LINE: Malformed = Malformed("the request line is malformed");

/// The request target in one of the forms that fit the method (RFC 9112 §3.2).
fn target(method: &Method, text: Bytes) -> Result<Uri, Malformed> {
    let begins =
        |scheme: &[u8]| text.len() > scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme);
    let absolute = begins(b"http://") || begins(b"https://");
    let fits = match &*text {
        [b'/', ..] => true,
        b"*" => method == Method::OPTIONS,
        _ => absolute || method == Method::CONNECT,
    };
    if !fits {
        return Err(Malformed("the request target is not a path"));
    }
    // It would be cut off here, and not elsewhere.
    if memchr(b'#', &text).is_some() {
        return Err(Malformed("the request target has a fragment"));
    }
    let whole_server = absolute
        && method == Method::OPTIONS
        && memchr::memmem::find(&text, b"://")
            .is_some_and(|at| memchr2(b'/', b'?', &text[at + 3..]).is_none());
    let target = Uri::from_maybe_shared(text).map_err(|_| Malformed("the request target is malformed"))?;
    if target.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Malformed("the request target has userinfo"));
    }
    if whole_server {
        // §3.2.4: the last proxy says so in the form of its own.
        let mut parts = target.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*"));
        return Uri::from_parts(parts).map_err(|_| Malformed("the request target is malformed"));
    }
    Ok(target)
}

/// What the first line of a refused head says, if that can be told: for whoever reads the log.
fn request_line(bytes: &[u8]) -> Option<Box<Request<()>>> {
    let line = &bytes[..memchr(b'\n', bytes)?];
    let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let mut parts = line.split(' ');
    let (method, path, version) = (parts.next()?, parts.next()?, parts.next()?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = path.parse().ok()?;
    *request.version_mut() = if version == "HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
    Some(Box::new(request))
}

/// The elements of a comma-separated field.
fn tokens<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = fields.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
