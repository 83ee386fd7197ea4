//! What reading and writing messages costs, without a connection: `cargo bench --bench codec`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use homing::{
    http1::{
        body::{BodyReader, Step},
        chunked::Forbidden,
        framing::Length,
        request::{Limits, Parser},
        response::HeadReader,
        write::response_head,
    },
    upstream::RequestHead,
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Empty;

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIMITS: Limits = Limits { head: 64 * 1024, fields: 100, target: 16 * 1024 };

/// What a browser sends.
const REQUEST: &[u8] = b"GET /shop/cart?page=2 HTTP/1.1\r\n\
    Host: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: https://shop.example/shop\r\n\
    Cookie: theme=dark; session=5f3c0a4e9b7d4f21a86c0e3b9d8f7a61; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\r\n";

/// What an application server sends.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Fri, 20 Nov 2026 20:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-store\r\n\
    X-Frame-Options: SAMEORIGIN\r\n\
    Set-Cookie: theme=dark; Path=/; Max-Age=31536000; SameSite=Lax\r\n\r\n";

fn request(buffer: &mut BytesMut) -> HeaderMap {
    let head = Parser::default().parse(buffer, &LIMITS);
    head.expect("a request").expect("whole").request.into_parts().0.headers
}

fn answer(buffer: &mut BytesMut) -> HeaderMap {
    HeadReader::default().read(buffer).expect("an answer").expect("whole").headers
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("read a browser's request", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(REQUEST),
            |mut buffer| request(&mut buffer),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("read an answer", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(ANSWER),
            |mut buffer| answer(&mut buffer),
            BatchSize::SmallInput,
        );
    });
    let fields = answer(&mut BytesMut::from(ANSWER));
    group.bench_function("write an answer", |bencher| {
        let mut out = BytesMut::new();
        bencher.iter(|| {
            out.clear();
            response_head(&mut out, StatusCode::OK, black_box(&fields), Length::Exact(1024));
            out.len()
        });
    });
    let fields = request(&mut BytesMut::from(REQUEST));
    group.bench_function("write a request", |bencher| {
        bencher.iter(|| {
            let mut head = RequestHead::new(Method::GET, "/shop/cart?page=2", 1024);
            homing::http1::write::fields(head.fields(), black_box(&fields), |_| true);
            head.finish(Empty::<Bytes>::new(), false)
        });
    });
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 0x1000], b"\r\n".to_vec()].concat();
    let body = [chunk.repeat(64), b"0\r\n\r\n".to_vec()].concat();
    let mut group = criterion.benchmark_group("body");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("read chunks of 4 KiB", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&*body),
            |mut buffer| {
                let mut reader = BodyReader::new(Length::Chunked, Forbidden::Refuse);
                let mut bytes = 0;
                while let Step::Data(data) = reader.step(&mut buffer).expect("a body") {
                    bytes += data.len();
                }
                bytes
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(codec, heads, bodies);
criterion_main!(codec);
