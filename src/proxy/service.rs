//! The phases of one request.

use std::{borrow::Cow, net::IpAddr, rc::Rc, sync::Arc, time::UNIX_EPOCH};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery,
};

use super::{
    Client,
    answer_body::{Answer, AnswerBody},
    authentication,
    forward::{Answered, Forward},
    forwarded::{Origin, Sender},
    headers::{self, Onward},
    http2_rules, identity, keeping,
    opening::Opening,
    own_cookie::OwnCookie,
    record::Record,
    request_body::{Incoming, RequestBody},
    respond,
    stall::Stall,
    stream::{self, Holding, StreamHold},
    target,
    upgrade::Tunnel,
};
use crate::{
    affinity::{Answerer, Carrier, Change, Effects, Exchange, Keys, SessionKey, Target},
    backend::{Evidence, InFlight},
    clock,
    error::Fault,
    host,
    path::Path,
    store::redis::Shared,
    upstream::{self, RequestHead},
    world::{Pool, Snapshot},
};

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer.
    Answer(Response<AnswerBody>),
    /// The head of an answer after which the connection, or the stream, is a tunnel.
    Tunnel(Response<()>, Tunnel),
}

/// A request that a backend has answered and affinity has settled.
struct Passed {
    pool: Arc<Pool>,
    response: Response<Box<upstream::Body<RequestBody>>>,
    in_flight: InFlight,
    /// The session's key from now on.
    key: Option<SessionKey>,
    /// The WebSocket that the client asked for.
    opening: Option<Opening>,
}

/// Answers one request of a TLS client, always: what goes wrong becomes an answer, too.
pub(super) async fn serve(client: Rc<Client>, request: Request<Incoming>) -> Outcome {
    let busy = client.activity.request();
    let snapshot = client.worker.world.snapshot.load_full();
    let mut record = Record::begin(&client.worker, busy, &request, &snapshot.config);
    let request_id = headers::request_id(request.headers());
    let http1 = request.version() < Version::HTTP_2;
    let head = request.method() == Method::HEAD;
    let spent = client.is_last_request(&snapshot);
    let mut closes = false;
    let mut outcome = match handle(&client, &snapshot, request, &request_id, &mut record).await {
        Ok(passed) => deliver(&client, &snapshot, passed, &request_id, record),
        Err(fault) => {
            closes = fault.closes();
            Outcome::Answer(respond::fault(fault, &request_id, head, record))
        }
    };
    let (fields, upgraded) = match &mut outcome {
        Outcome::Answer(response) => (response.headers_mut(), false),
        Outcome::Tunnel(response, _) => (response.headers_mut(), true),
    };
    headers::prepare_response(fields, upgraded && http1, snapshot.hsts.as_ref());
    fields.insert(headers::X_REQUEST_ID, request_id);
    let last = closes || spent || client.worker.world.is_handed_over();
    if last && http1 && !upgraded {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    outcome
}

/// Answers what could not be read as a request; `line` is what could be read of it.
pub(super) fn refuse(client: &Client, fault: Fault, line: Option<Box<Request<()>>>) -> Response<AnswerBody> {
    let busy = client.activity.request();
    let snapshot = client.worker.world.snapshot.load();
    let unread = || Request::builder().method("-").uri("-").body(()).map(Box::new).unwrap_or_default();
    let request = line.unwrap_or_else(unread);
    let mut record = Record::begin(&client.worker, busy, &request, &snapshot.config);
    let request_id = headers::request_id(&HeaderMap::new());
    record.client(client.address(), "", &request_id, client.vetted.identity.as_ref());
    // Garbage counts like any request; for whom a proxy has sent it, nobody can tell.
    let fault = match client.admit(&snapshot, &Origin::unread(client.address())) {
        Ok(permit) => {
            record.admitted(permit);
            fault
        }
        Err(turned_away) => turned_away,
    };
    let head = request.method() == Method::HEAD;
    let mut response = respond::fault(fault, &request_id, head, record);
    headers::prepare_response(response.headers_mut(), false, snapshot.hsts.as_ref());
    response.headers_mut().insert(headers::X_REQUEST_ID, request_id);
    response
}

/// Check, route, find the session, forward, settle.
async fn handle(
    client: &Rc<Client>,
    snapshot: &Snapshot,
    request: Request<Incoming>,
    request_id: &HeaderValue,
    record: &mut Record,
) -> Result<Passed, Fault> {
    let config = &snapshot.config;
    let (mut parts, body) = request.into_parts();
    let bodiless = http_body::Body::is_end_stream(&body);
    let opening = Opening::of(&mut parts, bodiless);
    let interim = body.interim();
    let origin = Origin::of(&parts.headers, client.address(), |address| config.trusts(address));
    // An HTTP/1.0 client may name no host; an HTTP/1.1 backend needs one. That is not the backend's own address, which
    // applications put into redirects: it would be told to whoever asks.
    let host = target::check(&parts, &config.limits).map(|host| host.unwrap_or_else(|| client.named()));
    let host_text = host.as_ref().ok().and_then(|host| host.to_str().ok()).unwrap_or_default();
    record.client(origin.address, host_text, request_id, client.vetted.identity.as_ref());
    record.admitted(client.admit(snapshot, &origin)?);
    http2_rules::check(&parts)?;
    let opening = opening?;
    if opening.is_some() {
        record.websocket();
    }
    let host = host?;
    let name = host::canonical(host.to_str().unwrap_or_default());
    client.may_ask(&snapshot.materials.tls, &name)?;
    identity::strip(&mut parts.headers, &config.tls);
    target::expectation(&parts.headers)?;
    let path = Path::of(parts.uri.path());
    let route = snapshot.routes.decide(&name, &path).map_err(|_| UNCLEAR)?;
    let route = &config.routes[route.ok_or(Fault::NoRoute)?];
    let pool = &snapshot.pools[route.pool];

    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let (Some(limit), Some(length)) = (route.body_size, length)
        && u64::gt(&length, &limit)
    {
        return Err(Fault::BodyTooLarge);
    }
    let stall = Stall::of_client(&config.timeouts, &config.edge);
    let (body, tally) =
        RequestBody::new(body, route.body_size, stall, &client.activity, &config.tls.client_header);
    record.body(&tally);

    let skips = |path: &str| pool.settings.skip.iter().any(|pattern| pattern.matches(path));
    let skip = path.decide(skips, || None).unwrap_or(false);
    let hasher = &client.worker.world.hasher;
    // A trusted peer forwards for many clients, which share nothing.
    let alone = !config.trusts(client.address());
    let burst = alone.then_some(&client.burst);
    let preflight = keeping::is_preflight(&parts.method, &parts.headers);
    let keeps = pool
        .issuer
        .as_ref()
        .is_none_or(|issuer| keeping::keeps_cookie(&parts.method, &parts.headers, issuer.same_site()));
    let own = OwnCookie::take(pool, &mut parts.headers, hasher, skip, keeps, burst);
    let keys = match &own {
        Some(own) => own.keys(hasher),
        None if skip => Keys::default(),
        None => {
            let head = Head { headers: &parts.headers, uri: &parts.uri, client: origin.client() };
            Keys::find_preferring(pool.affinity.watch().learned(), &pool.settings.keys, hasher, &head)
        }
    };
    if !keys.is_empty() {
        client.burst.brought();
    }

    // Only for an id that is not known here; a known session costs no round trip.
    let shared = client.worker.world.shared.as_deref();
    let mut budget = shared.map(Shared::budget);
    let mut newer = None;
    if let (Some(shared), Some(budget)) = (shared, &mut budget) {
        Box::pin(async {
            shared.look_up(pool, &keys, budget).await;
            if budget.asked() {
                newer = client.worker.world.home_to_come(pool, &keys).await;
            }
        })
        .await;
    }
    let pool = newer.as_ref().unwrap_or(pool);

    let sender = Sender { peer: &client.peer_value, node: &client.node, trusted: !alone, origin };
    let upgrade = opening.is_some();
    let onward = Onward { version: parts.version, upgrade, host: &host, request_id, sender, via: config.via };
    let room = ADDED_FIELDS + EXPECTED_FIELD * parts.headers.len();
    let mut head = RequestHead::new(parts.method.clone(), &origin_form(&parts.uri), room);
    onward.write(head.fields(), &parts.headers);
    identity::tell(head.fields(), client.vetted.identity.as_ref(), &config.tls);
    if opening.is_some() {
        head.asks_for(headers::WEBSOCKET);
    }
    let authenticates = authentication::authenticates(&parts.headers);
    let outgoing = head.finish(body, length.is_some());
    let method = std::mem::take(&mut parts.method);
    let uri = std::mem::take(&mut parts.uri);
    // All else that is needed of it has been written.
    drop(parts);

    // A session that another process of ours has only just begun is looked for there first.
    let kin = &client.worker.world.kin;
    if !kin.is_alone() {
        Box::pin(kin.look_up(pool, keys.as_slice())).await;
    }
    let forward = Forward {
        client,
        pool,
        keys: &keys,
        hint: own.as_ref().and_then(OwnCookie::home),
        skip,
        alone,
        authenticates,
        tally: &tally,
        body_stall: config.timeouts.body,
        interim: &interim,
    };
    let Answered { mut response, in_flight, held, sent } = forward.run(outgoing, record).await?;

    let status = response.status().as_u16();
    let backend = in_flight.backend();
    backend.passed(Evidence::Answered);
    backend.metrics.answered(Some(status));
    backend.metrics.duration.observe(clock::now().duration_since(sent).as_secs_f64());
    record.answered(status);
    if let Some(step) = authentication::step(response.status(), response.headers()) {
        let client = alone.then(|| client.private());
        if let Some(private) = client {
            private.reserve(backend);
        }
        response.body_mut().belongs_to(client, step);
    }

    if let Some(id) = pool.instance_header.as_ref().and_then(|name| response.headers().get(name)) {
        pool.heard_instance(backend, id.as_bytes());
    }

    // Before the head goes on to the client: its next request, on any worker, must find the binding.
    let effects = match &own {
        Some(own) => own.effects(hasher, status),
        // The browser keeps no cookie of the answer.
        None if preflight && keys.is_empty() => Effects::SILENT,
        None => {
            let told = Told { headers: response.headers(), status };
            let sets = told.set_cookies().next().is_some();
            let watch = pool.affinity.watch();
            if sets || watch.learned() == 0 {
                watch.observe(&pool.settings.keys, &told);
            }
            let host = host::without_port(host.to_str().unwrap_or_default());
            let exchange = Exchange {
                // Of a response that sets nothing, it does not matter.
                carried: match sets {
                    true => pool.affinity.carried(&pool.settings.keys, &keys, clock::tick()),
                    false => keys.source(),
                },
                method: method.as_str(),
                target: Target { host: host.as_bytes(), path: uri.path().as_bytes() },
                wall_unix: unix_seconds(),
            };
            Effects::of(&pool.settings.keys, hasher, &exchange, &told)
        }
    };
    let slot = backend.member.slot();
    let settled = held.settle(slot, status, &effects, &keys);
    let key = settled.and_then(|settled| settled.key);
    if let Some(key) = key {
        record.session(key);
    }
    let begins = settled.is_some_and(|settled| settled.change == Change::Learned);
    // On a skipped path, a client that has an id is not asked for it.
    if alone && keys.is_empty() && (begins || !skip && key.is_some()) {
        client.told(&pool.affinity, slot, begins);
    }
    if let (Some(shared), Some(settled), Some(budget)) = (shared, settled, &mut budget) {
        Box::pin(shared.publish(pool, &keys, settled, own.is_some(), budget)).await;
    }
    if let Some(own) = own {
        own.put(response.headers_mut(), status, backend.name());
    }
    Ok(Passed { pool: Arc::clone(pool), response, in_flight, key, opening })
}

/// Hands the answer on: its body takes along all that must happen when it ends.
fn deliver(
    client: &Rc<Client>,
    snapshot: &Snapshot,
    passed: Passed,
    request_id: &HeaderValue,
    mut record: Record,
) -> Outcome {
    let Passed { pool, response, in_flight, key, opening } = passed;
    let extended = opening.as_ref().is_some_and(Opening::is_extended);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let hold = StreamHold::take(&pool, key, &in_flight.backend().member);
        let (mut parts, body) = response.into_parts();
        let accepted = opening.is_some_and(|opening| opening.is_accepted(&parts.headers));
        let Some(far) = body.into_stream().filter(|_| accepted) else {
            // Nobody asked for it (RFC 9110 §15.2.2): what follows would not be HTTP, nor a WebSocket.
            in_flight.backend().passed(Evidence::Broken);
            return Outcome::Answer(respond::fault(Fault::BadAnswer, request_id, false, record));
        };
        record.complete();
        // Not on a 1xx (RFC 9110 §8.6), and a tunnel has none.
        parts.headers.remove(header::CONTENT_LENGTH);
        if extended {
            // RFC 8441 §5: there is nothing left to prove. The record keeps 101, as over HTTP/1.1.
            parts.status = StatusCode::OK;
            parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        }
        let idle = snapshot.config.timeouts.websocket;
        let tunnel = Tunnel { client: Rc::clone(client), far, record, in_flight, hold, idle };
        return Outcome::Tunnel(Response::from_parts(parts, ()), tunnel);
    }
    if extended && response.status().is_success() {
        // An answer as good as any other, but to CONNECT it would mean that the tunnel is open (RFC 9110 §9.3.6).
        return Outcome::Answer(respond::fault(Fault::BadAnswer, request_id, false, record));
    }
    let event_stream = stream::is_event_stream(response.headers());
    let stall = Stall::new((!event_stream).then_some(snapshot.config.timeouts.body));
    let (mut parts, body) = response.into_parts();
    // Ours, not the backend's (RFC 9110 §6.2): it decides about keep-alive and chunks.
    parts.version = Version::HTTP_11;
    let holding = Holding::of(&pool, key, &in_flight.backend().member, event_stream, &body);
    let mut answer = Box::new(Answer {
        keep_alive: pool.keep_alive,
        record,
        worker: Rc::clone(&client.worker),
        stall,
        tracked: client.answers.track(),
        holding,
        in_flight: Some(in_flight),
        body,
    });
    if http_body::Body::is_end_stream(&answer.body) {
        answer.end();
    }
    Outcome::Answer(Response::from_parts(parts, AnswerBody::Passing(answer)))
}

/// Bytes of the fields that are added to a request, and of each that it has: what is made room for at once.
const ADDED_FIELDS: usize = 320;
const EXPECTED_FIELD: usize = 56;

const UNCLEAR: Fault =
    Fault::BadRequest("the path can be read in several ways that lead to different applications");

/// What affinity may look at of a request.
struct Head<'a> {
    headers: &'a HeaderMap,
    uri: &'a Uri,
    client: Option<IpAddr>,
}

impl Carrier for Head<'_> {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn client(&self) -> Option<IpAddr> {
        self.client
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.uri.query()
    }
}

/// What affinity may look at of an answer.
struct Told<'a> {
    headers: &'a HeaderMap,
    status: u16,
}

impl Answerer for Told<'_> {
    fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(header::SET_COOKIE).iter().map(HeaderValue::as_bytes)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn status(&self) -> u16 {
        self.status
    }
}

/// The target as an origin server is asked for it (RFC 9112 §3.2.1), its bytes untouched.
pub(super) fn origin_form(uri: &Uri) -> Cow<'_, str> {
    match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        // An absolute target without a path; written out, it has one.
        target if target.starts_with('?') => Cow::Owned(format!("/{target}")),
        target => Cow::Borrowed(target),
    }
}

fn unix_seconds() -> i64 {
    clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
