//! Schemes that authenticate a connection instead of a request: NTLM and Negotiate (RFC 4559).

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

use crate::upstream::Step;

/// Whether a request authenticates its connection.
pub(super) fn authenticates(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|field| of_connection(field.as_bytes()).is_some())
}

/// How far an answer brings the handshake, if there is one.
pub(super) fn step(status: StatusCode, headers: &HeaderMap) -> Option<Step> {
    let offers = headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
    // Schemes and parameters are both separated by commas; a parameter that looks like a scheme does no harm.
    let parts = offers.flat_map(|field| field.split(|&byte| byte == b','));
    let challenged = parts.filter_map(of_connection).reduce(|one, other| one || other)?;
    Some(match challenged {
        // With it, the server proves who it is: the handshake is over.
        _ if status != StatusCode::UNAUTHORIZED => Step::Answered,
        true => Step::Challenged,
        false => Step::Asked,
    })
}

/// Whether a token follows, if this begins with such a scheme.
fn of_connection(credentials: &[u8]) -> Option<bool> {
    let credentials = credentials.trim_ascii();
    let end = credentials.iter().position(u8::is_ascii_whitespace).unwrap_or(credentials.len());
    let (scheme, token) = credentials.split_at(end);
    let known = [&b"ntlm"[..], b"negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    known.then_some(!token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_schemes_of_a_connection_count_in_any_case() {
        for value in ["NTLM TlRM", "ntlm\tTlRM", "Negotiate YII=", " nEgOtIaTe  x", "NTLM"] {
            assert!(authenticates(&fields(AUTHORIZATION, &[value])), "{value}");
        }
        for value in ["Basic bnRsbQ==", "Bearer NTLM", "Digest x=\"NTLM\"", "NTLMv2 x", "", "x-negotiate y"] {
            assert!(!authenticates(&fields(AUTHORIZATION, &[value])), "{value}");
        }
        assert!(authenticates(&fields(AUTHORIZATION, &["Basic x", "NTLM y"])));
    }

    #[test]
    fn an_answer_tells_how_far_the_handshake_is() {
        let told = |status, values: &[&'static str]| {
            step(StatusCode::from_u16(status).unwrap(), &fields(WWW_AUTHENTICATE, values))
        };
        assert_eq!(told(401, &["Negotiate", "NTLM"]), Some(Step::Asked));
        assert_eq!(told(401, &["Basic realm=\"a, b\", ntlm"]), Some(Step::Asked));
        assert_eq!(told(401, &["Basic realm=\"x\"", "NTLM TlRMTVNTUAAC"]), Some(Step::Challenged));
        assert_eq!(told(200, &["Negotiate oRQ="]), Some(Step::Answered));
        assert_eq!(told(401, &["Basic realm=\"NTLM\"", "Bearer"]), None);
        assert_eq!(told(401, &[]), None);
    }
}
