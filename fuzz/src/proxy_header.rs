//! The PROXY header of a balancer in front.

use homing::listener::proxy_protocol::{MAX_V1, MAX_V2, parse};

/// Taken as a whole header.
pub fn run(data: &[u8]) {
    let Ok(client) = parse(data) else { return };
    assert!(data.len() <= MAX_V2 && (data.len() <= MAX_V1 || !data.starts_with(b"PROXY")));
    if let Some(client) = client {
        assert_eq!(client.ip(), client.ip().to_canonical(), "an address has one spelling");
    }
    // A header has one end: nothing that is longer or shorter is one.
    assert!(parse(&data[..data.len() - 1]).is_err());
    assert!(parse(&[data, b"x"].concat()).is_err());
}
