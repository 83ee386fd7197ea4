//! HTTP/1.1 in front (RFC 9112): our own engine, for the TLS listener and for the one that redirects.
//!
//! A connection is one future, which does all reading and writing; nothing is spawned for a request. It reads
//! a head (the codec in [`crate::http1`] refuses what could be read in two ways), asks its [`Service`] for an
//! answer, and reads the body meanwhile when somebody asks for it. One request at a time: what is pipelined
//! waits in a buffer of bounded size, and then in the socket.
//!
//! Invariants: an answer that is not whole ends in a cut, never in what looks like an end; an idle connection
//! holds no buffer; what a client sends and nobody wants is read for a while and for so many bytes only.

mod body;
mod connection;
mod input;
mod output;
mod rewound;

use std::{cell::Cell, pin::pin, rc::Rc};

use bytes::BytesMut;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

pub(super) use self::body::{Body, Channel};
use self::{connection::Connection, rewound::Rewound};
use super::{
    Client,
    activity::Activity,
    answer_body::AnswerBody,
    gate::Gate,
    guard::{End, Guard},
    mistaken, redirect,
    request_body::Incoming,
    service::{self, Outcome},
    socket::Socket,
};
use crate::{
    config::{self, Timeouts},
    error::Fault,
    http1::request::{Limits, Refusal, Refused},
    world::World,
};

/// What answers the requests of a connection.
pub(super) trait Service {
    /// How large the next head may be.
    fn limits(&self) -> Limits;

    /// Answers a request.
    fn call(&self, request: Request<Incoming>) -> impl Future<Output = Outcome>;

    /// Answers what is no request that can be served.
    fn refuse(&self, refused: Refused) -> Response<AnswerBody>;
}

/// Serves the applications.
struct Applications<'a>(&'a Rc<Client>);

/// Sends everybody to HTTPS.
struct Redirect<'a> {
    world: &'a World,
    activity: &'a Rc<Activity>,
}

/// Tells everybody to use HTTPS.
struct Mistaken<'a>(Redirect<'a>);

/// Serves a client that has chosen HTTP/1.1, or nothing.
pub(super) async fn serve_http1(client: &Rc<Client>, stream: Box<TlsStream<Socket>>, timeouts: &Timeouts) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, Some(timeouts.head), timeouts);
    serve(stream, &Applications(client), &client.activity, guard).await;
}

/// Serves a client of the listener that redirects.
pub(super) async fn serve_redirect(
    world: &World,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    activity: &Rc<Activity>,
    guard: Guard,
) {
    serve(stream, &Redirect { world, activity }, activity, guard).await;
}

/// Serves a client that has sent these bytes without TLS to the listener that needs it.
pub(super) async fn serve_mistaken(
    world: &World,
    stream: TcpStream,
    bytes: BytesMut,
    activity: &Rc<Activity>,
    guard: Guard,
) {
    serve(Rewound::new(stream, bytes), &Mistaken(Redirect { world, activity }), activity, guard).await;
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    service: &impl Service,
    activity: &Rc<Activity>,
    mut guard: Guard,
) {
    let ending = Cell::new(false);
    let tunnel = {
        let mut connection = pin!(Connection::new(io, service, activity, &ending).run());
        loop {
            let watched = pin!(guard.next());
            let next = Gate::new(watched);
            let end = tokio::select! {
                biased;
                tunnel = connection.as_mut() => break tunnel,
                end = next => end,
            };
            match end {
                End::Graceful => ending.set(true),
                End::Now => return,
            }
        }
    };
    // It has deadlines of its own, and last words to say.
    if let Some((near, tunnel)) = tunnel {
        Box::pin(tunnel.run(near)).await;
    }
}

// === impl Applications ===

impl Service for Applications<'_> {
    fn limits(&self) -> Limits {
        limits(&self.0.worker.world)
    }

    fn call(&self, request: Request<Incoming>) -> impl Future<Output = Outcome> {
        service::serve(Rc::clone(self.0), request)
    }

    fn refuse(&self, refused: Refused) -> Response<AnswerBody> {
        service::refuse(self.0, fault(refused.why), refused.line)
    }
}

// === impl Redirect ===

impl Service for Redirect<'_> {
    fn limits(&self) -> Limits {
        limits(self.world)
    }

    async fn call(&self, request: Request<Incoming>) -> Outcome {
        let _busy = self.activity.request();
        Outcome::Answer(redirect::answer(self.world, request))
    }

    fn refuse(&self, refused: Refused) -> Response<AnswerBody> {
        let _busy = self.activity.request();
        redirect::refuse(fault(refused.why))
    }
}

// === impl Mistaken ===

impl Service for Mistaken<'_> {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn call(&self, request: Request<Incoming>) -> Outcome {
        let _busy = self.0.activity.request();
        Outcome::Answer(mistaken::answer(self.0.world, request))
    }

    fn refuse(&self, _: Refused) -> Response<AnswerBody> {
        let _busy = self.0.activity.request();
        mistaken::tell(None)
    }
}

/// Those of now: a reload counts for connections that are open.
fn limits(world: &World) -> Limits {
    let snapshot = world.snapshot.load();
    let config::Limits { head_size, headers, uri_size, .. } = snapshot.config.limits;
    Limits { head: head_size, fields: headers, target: uri_size }
}

fn fault(why: Refusal) -> Fault {
    match why {
        Refusal::Malformed(malformed) => Fault::BadRequest(malformed.0),
        Refusal::HeadTooLarge => Fault::HeadTooLarge,
        Refusal::TargetTooLong => Fault::TargetTooLong,
    }
}
