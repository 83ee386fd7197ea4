//! How the settings of affinity and the expected status codes are written.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{
    address::normal_path,
    excerpt::shown,
    model::{Leave, SameSite},
    quantity::{format_duration, parse_duration},
    suggest::{alternatives, instead, nearest},
};
use crate::{
    affinity::{Balance, KeySource, KeySources, OnDown, OnUnknown, PathPattern},
    path::spelled,
};

/// Reads `cookie:NAME`, `header:NAME`, `query:NAME`, `path-parameter:NAME`, `bearer`, `address` or `address/24,64`.
pub(super) fn parse_key(text: &str) -> Result<KeySource, String> {
    let (kind, rest) = match text.find([':', '/']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    match (kind, rest) {
        ("cookie", Some((":", name))) => parse_cookie_name(name),
        ("header", Some((":", name))) => parse_header_name(name),
        ("query", Some((":", name))) => Ok(KeySource::Query(parse_parameter(name)?)),
        ("path-parameter", Some((":", name))) => Ok(KeySource::PathParameter(parse_parameter(name)?)),
        ("bearer", None) => Ok(KeySource::Bearer),
        ("address", None) => Ok(KeySource::Address { v4: V4_BITS, v6: V6_BITS }),
        ("address", Some(("/", prefixes))) => parse_prefixes(prefixes),
        ("cookie" | "header" | "query" | "path-parameter", _) => {
            Err(format!("`{}` has no name: write \"{kind}:NAME\"", shown(text)))
        }
        ("bearer" | "address", _) => {
            Err(format!("`{}`: nothing follows `{kind}`, or \"address/24,64\" is meant", shown(text)))
        }
        _ => {
            let kinds = ["cookie", "header", "query", "path-parameter", "bearer", "address"];
            let written =
                ["cookie:NAME", "header:NAME", "query:NAME", "path-parameter:NAME", "bearer", "address"];
            let meant = nearest(kind, kinds).and_then(|near| kinds.iter().position(|kind| *kind == near));
            Err(match meant {
                Some(at) => {
                    format!("unknown kind of session key `{}`, did you mean `{}`?", shown(text), written[at])
                }
                None => {
                    format!("unknown kind of session key `{}`: use {}", shown(text), alternatives(&written))
                }
            })
        }
    }
}

/// Reads the name of a cookie (a token of RFC 6265, section 4.1.1).
pub(super) fn parse_cookie_name(name: &str) -> Result<KeySource, String> {
    // A header name is made of the same characters, but read in lower case: only its check is used.
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(KeySource::Cookie(name.into())),
        Err(_) => Err(format!("`{}` cannot be the name of a cookie", shown(name))),
    }
}

/// Reads the name of the proxy's own cookie.
pub(super) fn parse_issued_name(name: &str) -> Result<Box<str>, String> {
    parse_cookie_name(name)?;
    if name.len() > ISSUED_NAME_MAX {
        return Err(format!("`{}` is longer than {ISSUED_NAME_MAX} bytes", shown(name)));
    }
    Ok(name.into())
}

/// Reads `lax`, `strict` or `none`.
pub(super) fn parse_same_site(text: &str) -> Result<SameSite, String> {
    let all = [SameSite::Lax, SameSite::Strict, SameSite::None];
    all.into_iter().find(|same_site| format_same_site(*same_site) == text).ok_or_else(|| {
        format!("unknown value `{}`{}", shown(text), instead(text, &all.map(format_same_site)))
    })
}

/// Writes what [`parse_same_site`] reads.
pub(super) const fn format_same_site(same_site: SameSite) -> &'static str {
    match same_site {
        SameSite::Lax => "lax",
        SameSite::Strict => "strict",
        SameSite::None => "none",
    }
}

/// Writes a key source so that [`parse_key`] reads the same one.
pub fn format_key(key: &KeySource) -> String {
    match key {
        KeySource::Cookie(name) => format!("cookie:{name}"),
        KeySource::Header(name) => format!("header:{name}"),
        KeySource::Query(name) => format!("query:{name}"),
        KeySource::PathParameter(name) => format!("path-parameter:{name}"),
        KeySource::Bearer => "bearer".to_owned(),
        KeySource::Address { v4: V4_BITS, v6: V6_BITS } => "address".to_owned(),
        KeySource::Address { v4, v6 } => format!("address/{v4},{v6}"),
    }
}

/// Says in a few words where a pool's session ids are looked for.
pub fn describe_keys(keys: &KeySources) -> String {
    let more = |number: usize| format!("{number} more");
    let texts: Vec<_> = keys.iter().map(format_key).collect();
    match &texts[..] {
        [] => "none".to_owned(),
        [first, second, third, rest @ ..] if keys.are_well_known() => {
            format!("{first}, {second}, {third} or {} well-known cookies", more(rest.len()))
        }
        texts @ [_, _, _, _, _, ..] => format!("{} or {}", texts[..4].join(", "), more(texts.len() - 4)),
        [only] => only.clone(),
        [texts @ .., last] => format!("{} or {last}", texts.join(", ")),
    }
}

/// Reads `hash` or `place`.
pub(super) fn parse_on_unknown(text: &str) -> Result<OnUnknown, String> {
    let all = [OnUnknown::Hash, OnUnknown::Place];
    all.into_iter().find(|on_unknown| format_on_unknown(*on_unknown) == text).ok_or_else(|| {
        format!("unknown value `{}`{}", shown(text), instead(text, &all.map(format_on_unknown)))
    })
}

/// Writes what [`parse_on_unknown`] reads.
pub(super) const fn format_on_unknown(on_unknown: OnUnknown) -> &'static str {
    match on_unknown {
        OnUnknown::Hash => "hash",
        OnUnknown::Place => "place",
    }
}

/// Reads `move`, `wait:5s` or `refuse`.
pub(super) fn parse_on_down(text: &str) -> Result<OnDown, String> {
    match text.split_once(':') {
        None if text == "move" => Ok(OnDown::Move),
        None if text == "refuse" => Ok(OnDown::Refuse),
        None if text == "wait" => Err("`wait` needs a duration: write \"wait:5s\"".to_owned()),
        Some(("wait", wait)) => match parse_duration(wait)? {
            Duration::ZERO => Err("to wait for no time is to `move`".to_owned()),
            wait => Ok(OnDown::Wait(wait)),
        },
        _ => Err(format!("unknown value `{}`{}", shown(text), instead(text, &["move", "wait:5s", "refuse"]))),
    }
}

/// Writes what [`parse_on_down`] reads.
pub(super) fn format_on_down(on_down: OnDown) -> String {
    match on_down {
        OnDown::Move => "move".to_owned(),
        OnDown::Wait(wait) => format!("wait:{}", format_duration(wait)),
        OnDown::Refuse => "refuse".to_owned(),
    }
}

/// Reads `least-sessions`, `round-robin` or `least-requests`.
pub fn parse_balance(text: &str) -> Result<Balance, String> {
    let all = [Balance::LeastSessions, Balance::RoundRobin, Balance::LeastRequests];
    all.into_iter()
        .find(|balance| format_balance(*balance) == text)
        .ok_or_else(|| format!("unknown value `{}`{}", shown(text), instead(text, &all.map(format_balance))))
}

/// Writes what [`parse_balance`] reads.
pub const fn format_balance(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastSessions => "least-sessions",
        Balance::LeastRequests => "least-requests",
        Balance::RoundRobin => "round-robin",
    }
}

/// Reads `drain` or `cut`.
pub(super) fn parse_leave(text: &str) -> Result<Leave, String> {
    [Leave::Drain, Leave::Cut]
        .into_iter()
        .find(|leave| format_leave(*leave) == text)
        .ok_or_else(|| format!("unknown value `{}`{}", shown(text), instead(text, &["drain", "cut"])))
}

/// Writes what [`parse_leave`] reads.
pub(super) const fn format_leave(leave: Leave) -> &'static str {
    match leave {
        Leave::Drain => "drain",
        Leave::Cut => "cut",
    }
}

/// Reads a pattern of skipped paths.
pub(super) fn parse_skip(text: &str) -> Result<PathPattern, String> {
    let pattern = PathPattern::parse(text).ok_or_else(|| {
        format!("`{}` is not a pattern such as \"/static/\", \"*.css\" or \"/favicon.ico\"", shown(text))
    })?;
    // It is compared with paths in their normal form.
    Ok(match pattern {
        PathPattern::Prefix(prefix) => PathPattern::Prefix(normal_path(&prefix)?),
        PathPattern::Exact(path) => PathPattern::Exact(normal_path(&path)?),
        PathPattern::Suffix(suffix) => PathPattern::Suffix((&*spelled(&suffix)).into()),
    })
}

/// Writes a pattern so that [`parse_skip`] reads the same one.
pub(super) fn format_skip(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Prefix(prefix) if prefix.ends_with('/') => prefix.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}*"),
        PathPattern::Suffix(suffix) => format!("*{suffix}"),
        PathPattern::Exact(path) => path.to_string(),
    }
}

/// Reads `200`, `2xx`, `2xx-3xx` or `200-204` as an inclusive range.
pub(super) fn parse_status(text: &str) -> Result<(StatusCode, StatusCode), String> {
    let wrong = || format!("`{}` is not a status such as 200, \"2xx\" or \"200-399\"", shown(text));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (low, _) = status_ends(first.trim()).ok_or_else(wrong)?;
    let (_, high) = status_ends(last.trim()).ok_or_else(wrong)?;
    if low > high { Err(wrong()) } else { Ok((low, high)) }
}

/// Writes a range so that [`parse_status`] reads the same one.
pub(super) fn format_status((low, high): (StatusCode, StatusCode)) -> String {
    if low == high { low.as_str().to_owned() } else { format!("{}-{}", low.as_str(), high.as_str()) }
}

/// Lowest and highest code that `2xx` or `204` stands for; only final ones answer a check.
fn status_ends(text: &str) -> Option<(StatusCode, StatusCode)> {
    // Digits only: `str::parse` would take a `+`.
    let code = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|code| digits && (200..600).contains(code))
    };
    let (low, high) = match text.strip_suffix("xx") {
        Some(class) => (code(&format!("{class}00"))?, code(&format!("{class}99"))?),
        None => (code(text)?, code(text)?),
    };
    Some((StatusCode::from_u16(low).ok()?, StatusCode::from_u16(high).ok()?))
}

/// Reads the name of a field by which backends tell their instance.
pub(super) fn parse_instance_header(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{}` cannot be the name of a header field", shown(name)))
}

/// Reads the name of a parameter of the query or the path; it is written as it is after percent-decoding.
fn parse_parameter(name: &str) -> Result<Box<str>, String> {
    let separates = |c: char| c.is_control() || " &;=/?#".contains(c);
    if name.is_empty() || name.contains(separates) {
        return Err(format!("`{}` cannot be the name of a parameter", shown(name)));
    }
    Ok(name.into())
}

fn parse_header_name(name: &str) -> Result<KeySource, String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if name == http::header::COOKIE || name == http::header::SET_COOKIE => {
            Err("a cookie is written \"cookie:NAME\", with the name of the cookie".to_owned())
        }
        Ok(name) => Ok(KeySource::Header(name.as_str().into())),
        Err(_) => Err(format!("`{}` cannot be the name of a header field", shown(name))),
    }
}

fn parse_prefixes(text: &str) -> Result<KeySource, String> {
    let prefix = |text: &str, bits: u8| text.parse::<u8>().ok().filter(|n| (1..=bits).contains(n));
    text.split_once(',')
        .and_then(|(v4, v6)| Some(KeySource::Address { v4: prefix(v4, V4_BITS)?, v6: prefix(v6, V6_BITS)? }))
        .ok_or_else(|| {
            let text = shown(text);
            format!("`{text}` are not two prefix lengths, for IPv4 and IPv6: write \"address/24,64\"")
        })
}

const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;
/// The cookie comes with every request.
const ISSUED_NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written() {
        for text in [
            "cookie:PHPSESSID",
            "header:mcp-session-id",
            "query:sid",
            "query:session[id]",
            "path-parameter:jsessionid",
            "bearer",
            "address",
            "address/24,64",
        ] {
            assert_eq!(format_key(&parse_key(text).unwrap()), text);
        }
        assert_eq!(parse_key("header:X-Session"), Ok(KeySource::Header("x-session".into())));
    }

    #[test]
    fn wrong_keys_say_what_is_wrong() {
        for (text, said) in [
            ("cookie", "write \"cookie:NAME\""),
            ("cookie:a=b", "name of a cookie"),
            ("cookie:", "name of a cookie"),
            ("query", "write \"query:NAME\""),
            ("query:", "name of a parameter"),
            ("query:a=b", "name of a parameter"),
            ("path-parameter:;jsessionid", "name of a parameter"),
            ("path:jsessionid", "unknown kind"),
            ("qeury:sid", "did you mean `query:NAME`?"),
            ("cokie:session", "did you mean `cookie:NAME`?"),
            ("header:cookie", "written \"cookie:NAME\""),
            ("header:a b", "header field"),
            ("address/24", "two prefix lengths"),
            ("address/0,64", "two prefix lengths"),
            ("address/24,129", "two prefix lengths"),
            ("bearer:x", "nothing follows"),
            ("", "use `cookie:NAME`"),
        ] {
            let error = parse_key(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_place_of_unknown_ids_is_read_and_written() {
        for text in ["hash", "place"] {
            assert_eq!(format_on_unknown(parse_on_unknown(text).unwrap()), text);
        }
        assert!(parse_on_unknown("plaec").unwrap_err().contains("did you mean `place`?"));
    }

    #[test]
    fn keys_are_described_in_a_few_words() {
        let list = |texts: &[&str]| -> KeySources {
            texts.iter().map(|text| parse_key(text).unwrap()).collect::<Vec<_>>().into()
        };
        assert_eq!(describe_keys(&list(&[])), "none");
        assert_eq!(describe_keys(&list(&["cookie:a"])), "cookie:a");
        assert_eq!(describe_keys(&list(&["cookie:a", "query:b", "address"])), "cookie:a, query:b or address");
        assert_eq!(
            describe_keys(&list(&["cookie:a", "cookie:b", "cookie:c", "cookie:d", "cookie:e", "cookie:f"])),
            "cookie:a, cookie:b, cookie:c, cookie:d or 2 more"
        );
        assert_eq!(
            describe_keys(&KeySources::well_known()),
            "cookie:session, cookie:JSESSIONID, cookie:PHPSESSID or 17 more well-known cookies"
        );
    }

    #[test]
    fn what_happens_when_the_home_is_down_is_read_and_written() {
        for text in ["move", "wait:5s", "wait:1m 30s", "refuse"] {
            assert_eq!(format_on_down(parse_on_down(text).unwrap()), text);
        }
        assert!(parse_on_down("wait:5").unwrap_err().contains("add a unit"));
        assert!(parse_on_down("wait").unwrap_err().contains("wait:5s"));
        assert!(parse_on_down("wait:0s").unwrap_err().contains("`move`"));
        assert!(parse_on_down("mvoe").unwrap_err().contains("did you mean `move`?"));
    }

    #[test]
    fn status_ranges_are_read_and_written() {
        for (text, written) in
            [("200", "200"), ("2xx", "200-299"), ("2xx-3xx", "200-399"), ("200 - 204", "200-204")]
        {
            assert_eq!(format_status(parse_status(text).unwrap()), written);
        }
        for wrong in ["", "2x", "xx", "1xx", "600", "3xx-2xx", "200-", "+200-300", "２xx"] {
            let _ = parse_status(wrong).map(|range| panic!("{wrong} is {range:?}"));
        }
    }

    #[test]
    fn skipped_paths_are_read_and_written() {
        for text in ["/static/", "/api*", "*.css", "/favicon.ico"] {
            assert_eq!(format_skip(&parse_skip(text).unwrap()), text);
        }
        assert!(parse_skip("static").is_err());
    }
}
