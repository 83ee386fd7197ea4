//! The PROXY protocol, versions 1 and 2: a balancer in front says by a header before the first byte of a connection
//! whose connection it passes on (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Who may say so is a matter of addresses; here is how it is read. Not a byte more is taken than the header has,
//! and it is never longer than [`MAX_V1`] or [`MAX_V2`].

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The connection ended before it: a balancer looks whether somebody listens.
    #[error("the connection ended before its PROXY header")]
    Closed,
    /// What came is no header.
    #[error("the connection does not begin with a PROXY header that can be understood")]
    Malformed,
    /// It cannot be read.
    #[error("the PROXY header cannot be read: {0}")]
    Io(io::Error),
}

/// A header of version 1 is no longer (§2.1).
pub const MAX_V1: usize = 107;
/// A header of version 2 may be longer, but none that is sent is: addresses have 36 bytes, the rest are additions
/// such as a checksum, a name, details of TLS.
pub const MAX_V2: usize = 4096;

/// The shortest header of all: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length (§2.2).
const V2_HEAD: usize = 16;

/// Takes the header off a connection: the address of the client it speaks of. None when it speaks of nobody, and the
/// peer is who it is: `UNKNOWN`, `LOCAL`, or a socket without a network address.
///
/// # Errors
/// There is no header, or no end of it.
pub async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut head = Vec::with_capacity(MAX_V1);
    read_exactly(stream, &mut head, SHORTEST).await?;
    if head.starts_with(V1) {
        read_line(stream, &mut head).await?;
    } else {
        read_exactly(stream, &mut head, V2_HEAD).await?;
        let more = usize::from(u16::from_be_bytes([head[14], head[15]]));
        if V2_HEAD + more > MAX_V2 {
            return Err(ProxyHeaderError::Malformed);
        }
        read_exactly(stream, &mut head, V2_HEAD + more).await?;
    }
    parse(&head)
}

/// Reads one whole header and nothing else.
///
/// # Errors
/// [`ProxyHeaderError::Malformed`] for anything else.
pub fn parse(head: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    // What the crate lets pass: any byte after `PROXY`, a sign before a port.
    let v1 = head.starts_with(V1) && !head.contains(&b'+') && head.len() <= MAX_V1;
    if !v1 && !head.starts_with(V2) {
        return Err(ProxyHeaderError::Malformed);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(head, config) {
        Ok((header, length)) if length == head.len() => match header.proxied_address() {
            // Whoever passes datagrams on does not do so over this connection.
            Some(address) if address.protocol == Protocol::Datagram => Err(ProxyHeaderError::Malformed),
            Some(address) => {
                Ok(Some(SocketAddr::new(address.source.ip().to_canonical(), address.source.port())))
            }
            None => Ok(None),
        },
        _ => Err(ProxyHeaderError::Malformed),
    }
}

/// Reads until `head` has so many bytes; gives up as soon as it cannot become a header.
async fn read_exactly(
    stream: &mut TcpStream,
    head: &mut Vec<u8>,
    length: usize,
) -> Result<(), ProxyHeaderError> {
    while head.len() < length {
        let missing = length - head.len();
        let count = stream.take(missing as u64).read_buf(head).await.map_err(explain)?;
        if count == 0 {
            return Err(if head.is_empty() { ProxyHeaderError::Closed } else { ProxyHeaderError::Malformed });
        }
        let begins = |signature: &[u8]| {
            let length = head.len().min(signature.len());
            head[..length] == signature[..length]
        };
        if !begins(V1) && !begins(V2) {
            return Err(ProxyHeaderError::Malformed);
        }
    }
    Ok(())
}

/// Reads to the end of the line that `head` begins. Looks before it takes, since the client's own bytes follow.
async fn read_line(stream: &mut TcpStream, head: &mut Vec<u8>) -> Result<(), ProxyHeaderError> {
    let mut ahead = [0; MAX_V1];
    while !head.ends_with(b"\n") {
        let room = MAX_V1.saturating_sub(head.len());
        let seen = match stream.peek(&mut ahead[..room]).await.map_err(explain)? {
            0 => return Err(ProxyHeaderError::Malformed),
            seen => &ahead[..seen],
        };
        // What is before the end of the line is the header's: taken at once, so that the next look sees new bytes.
        let length = memchr::memchr(b'\n', seen).map_or(seen.len(), |end| end + 1);
        let length = head.len() + length;
        read_exactly(stream, head, length).await?;
    }
    Ok(())
}

fn explain(error: io::Error) -> ProxyHeaderError {
    match error.kind() {
        io::ErrorKind::ConnectionReset => ProxyHeaderError::Closed,
        _ => ProxyHeaderError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut head = [V2, &[command, family]].concat();
        head.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        head.extend_from_slice(body);
        head
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 1, 187];

    fn good(head: &[u8]) -> Option<String> {
        parse(head)
            .unwrap_or_else(|error| panic!("{:?}: {error}", head.escape_ascii().to_string()))
            .map(|a| a.to_string())
    }

    #[test]
    fn both_versions_and_families_tell_the_address() {
        let v6: Vec<u8> =
            [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1, 0x30, 0x39, 1, 187]].concat();
        assert_eq!(good(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n").unwrap(), "192.0.2.7:12345");
        assert_eq!(good(b"PROXY TCP6 2001:db8::7 ::1 12345 443\r\n").unwrap(), "[2001:db8::7]:12345");
        assert_eq!(good(&v2(0x21, 0x11, &V4)).unwrap(), "192.0.2.7:12345");
        assert_eq!(good(&v2(0x21, 0x21, &v6)).unwrap(), "[2001:db8::7]:12345");
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n";
        assert_eq!(good(mapped).unwrap(), "192.0.2.7:1", "an IPv4 client is one however it is written");
        let additions = [&V4[..], &[4, 0, 2, 0, 0]].concat();
        assert_eq!(good(&v2(0x21, 0x11, &additions)).unwrap(), "192.0.2.7:12345");
    }

    #[test]
    fn who_speaks_of_nobody_is_who_it_is() {
        assert_eq!(good(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(good(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        assert_eq!(good(&v2(0x20, 0, &[])), None);
        assert_eq!(good(&v2(0x20, 0x11, &V4)), None);
        assert_eq!(good(&v2(0x21, 0x31, &[0; 216])), None, "a Unix socket has no address");
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let bad: [&[u8]; 16] = [
            b"",
            b"GET / HTTP/1.1\r\n",
            b"PROXYXTCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
            b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\nx",
            b"PROXY TCP4\r\n",
            long.as_bytes(),
        ];
        let v2s = [
            v2(0x11, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x12, &V4),
            v2(0x21, 0x13, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            V2.to_vec(),
        ];
        for head in bad.into_iter().chain(v2s.iter().map(Vec::as_slice)) {
            assert!(parse(head).is_err(), "{}", head.escape_ascii());
        }
    }

    #[tokio::test]
    async fn nothing_of_what_follows_is_taken_however_it_arrives() {
        let heads = [b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(), v2(0x21, 0x11, &V4)];
        for (head, cut) in heads.iter().flat_map(|head| (1..head.len() + 3).map(move |cut| (head, cut))) {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut balancer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            balancer.set_nodelay(true).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = [head, &b"client\n"[..]].concat();
            balancer.write_all(&bytes[..cut]).await.unwrap();
            let rest = async {
                tokio::task::yield_now().await;
                balancer.write_all(&bytes[cut..]).await.unwrap();
            };
            let (found, ()) = tokio::join!(read(&mut stream), rest);
            assert_eq!(found.unwrap().unwrap().to_string(), "192.0.2.7:12345");
            let mut client = [0; 7];
            stream.read_exact(&mut client).await.unwrap();
            assert_eq!(&client, b"client\n", "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn an_endless_header_ends() {
        for head in [[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 1000]].concat(), v2(0x21, 0x11, &[0; 5000])] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut balancer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            balancer.write_all(&head).await.unwrap();
            assert!(matches!(read(&mut stream).await, Err(ProxyHeaderError::Malformed)));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let head = match kind {
                0 => bytes,
                1 => [V1, &bytes].concat(),
                _ => [V2, &bytes].concat(),
            };
            let _ = parse(&head);
        }
    }
}
