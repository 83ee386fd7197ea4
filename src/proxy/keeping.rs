//! Requests whose answers leave no cookie with the client: none of them begins a session.
//!
//! Browsers say what a request is for in fields that scripts cannot set (Fetch Metadata). A client that lies gets no
//! session, which harms nobody else.

use http::{HeaderMap, Method, header};

use crate::config::SameSite;

/// Whether this asks for leave to send another request (Fetch, "CORS-preflight fetch"): without credentials, so the
/// browser ignores cookies of the answer.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether the client may keep a cookie of the proxy's own, with this `SameSite`, that comes with the answer.
pub(super) fn keeps_cookie(method: &Method, headers: &HeaderMap, same_site: SameSite) -> bool {
    let says = |name, words: &[&str]| {
        headers.get(name).is_some_and(|value| words.iter().any(|word| value.as_bytes() == word.as_bytes()))
    };
    // Preflights, and what asks a server for its abilities: state belongs to neither.
    if *method == Method::OPTIONS || *method == Method::TRACE {
        return false;
    }
    // Reports and web app manifests are fetched without credentials.
    if says(DEST, &["report", "manifest"]) {
        return false;
    }
    // The browser gives this frame of another site no cookies of ours, and takes none.
    if says(STORAGE_ACCESS, &["none", "inactive"]) {
        return false;
    }
    // RFC 6265bis §5.7: of answers to another site's requests, only that to a navigation of a whole window may set a
    // cookie that is not SameSite=None.
    let whole_window =
        says(MODE, &["navigate"]) && !says(DEST, &["iframe", "frame", "embed", "object", "fencedframe"]);
    same_site == SameSite::None || whole_window || !says(SITE, &["cross-site"])
}

const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";
const DEST: &str = "sec-fetch-dest";
const STORAGE_ACCESS: &str = "sec-fetch-storage-access";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn requests_whose_answers_leave_no_cookie_are_told_apart() {
        let get = || Method::GET;
        for (method, fields, lax, none) in [
            (get(), &[][..], true, true),
            (Method::HEAD, &[], true, true),
            (Method::OPTIONS, &[], false, false),
            (Method::TRACE, &[], false, false),
            (
                Method::OPTIONS,
                &[("origin", "https://a.test"), ("access-control-request-method", "PUT")],
                false,
                false,
            ),
            (get(), &[(SITE, "same-origin"), (MODE, "cors"), (DEST, "empty")], true, true),
            (get(), &[(SITE, "same-site"), (MODE, "no-cors"), (DEST, "image")], true, true),
            (get(), &[(SITE, "none"), (MODE, "navigate"), (DEST, "document")], true, true),
            (get(), &[(SITE, "cross-site"), (MODE, "navigate"), (DEST, "document")], true, true),
            (Method::POST, &[(SITE, "cross-site"), (MODE, "navigate"), (DEST, "document")], true, true),
            (get(), &[(SITE, "cross-site"), (MODE, "navigate"), (DEST, "iframe")], false, true),
            (get(), &[(SITE, "cross-site"), (MODE, "no-cors"), (DEST, "image")], false, true),
            (get(), &[(SITE, "cross-site"), (MODE, "cors"), (DEST, "empty")], false, true),
            (get(), &[(SITE, "cross-site"), (MODE, "websocket"), (DEST, "websocket")], false, true),
            (get(), &[(SITE, "cross-site"), (MODE, "cors"), (STORAGE_ACCESS, "none")], false, false),
            (get(), &[(SITE, "cross-site"), (MODE, "cors"), (STORAGE_ACCESS, "inactive")], false, false),
            (get(), &[(SITE, "cross-site"), (MODE, "cors"), (STORAGE_ACCESS, "active")], false, true),
            (Method::POST, &[(SITE, "same-origin"), (DEST, "report")], false, false),
            (get(), &[(SITE, "same-origin"), (DEST, "manifest")], false, false),
        ] {
            let fields = headers(fields);
            assert_eq!(keeps_cookie(&method, &fields, SameSite::Lax), lax, "lax {method} {fields:?}");
            assert_eq!(keeps_cookie(&method, &fields, SameSite::Strict), lax, "strict {method} {fields:?}");
            assert_eq!(keeps_cookie(&method, &fields, SameSite::None), none, "none {method} {fields:?}");
        }
    }

    #[test]
    fn only_a_preflight_is_taken_for_one() {
        let asks = [("origin", "https://a.test"), ("access-control-request-method", "PUT")];
        assert!(is_preflight(&Method::OPTIONS, &headers(&asks)));
        assert!(!is_preflight(&Method::GET, &headers(&asks)));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&asks[..1])));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&asks[1..])));
    }
}
