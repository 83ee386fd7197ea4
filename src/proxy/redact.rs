//! Session ids in the target of a request do not go into the access log.

use std::{borrow::Cow, ops::Range};

use http::Uri;

use crate::{
    affinity::{KeySource, values_in_path, values_in_query},
    config::Pool,
};

/// The target as the access log shows it: with its query if `log_query` says so, and with [`REDACTED`] in the place
/// of every session id. The pool is not known yet, so the keys of all count.
pub(super) fn target<'a>(uri: &'a Uri, log_query: bool, pools: &[Pool]) -> Cow<'a, str> {
    let target = match uri.path_and_query() {
        Some(target) if log_query => target.as_str(),
        _ => uri.path(),
    };
    if !target.contains('=') {
        return Cow::Borrowed(target);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut secrets: Vec<Range<usize>> =
        SERVLETS.iter().flat_map(|name| values_in_path(name, path)).collect();
    for source in pools.iter().flat_map(|pool| pool.affinity.keys.iter()) {
        match source {
            KeySource::PathParameter(name) => secrets.extend(values_in_path(name, path)),
            KeySource::Query(name) => {
                let start = path.len() + 1;
                secrets
                    .extend(values_in_query(name, query).map(|value| start + value.start..start + value.end));
            }
            _ => {}
        }
    }
    if secrets.is_empty() {
        return Cow::Borrowed(target);
    }
    secrets.sort_unstable_by_key(|value| value.start);
    secrets.dedup();
    let mut shown = String::with_capacity(target.len());
    let mut from = 0;
    for secret in secrets {
        shown.push_str(&target[from..secret.start]);
        shown.push_str(REDACTED);
        from = secret.end;
    }
    shown.push_str(&target[from..]);
    Cow::Owned(shown)
}

const REDACTED: &str = "-";
/// Application servers put the session's id there whether or not it is a key here.
const SERVLETS: [&str; 2] = ["jsessionid", "JSESSIONID"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flags};

    fn pools(keys: &[KeySource]) -> Vec<Pool> {
        let flags = Flags {
            certificates: vec![crate::config::CertificateFiles { cert: "c".into(), key: "k".into() }],
            backends: vec!["http://127.0.0.1:1".into()],
            ..Flags::default()
        };
        let mut pools = Config::from_flags(&flags).unwrap().pools;
        pools[0].affinity.keys = keys.to_vec().into();
        pools
    }

    #[test]
    fn session_ids_in_the_target_are_redacted() {
        let keys = [
            KeySource::Query("sid".into()),
            KeySource::PathParameter("s".into()),
            KeySource::Query("a".into()),
        ];
        let pools = pools(&keys);
        for (target, log_query, shown) in [
            ("/a?x=1", true, "/a?x=1"),
            ("/a?x=1&sid=secret&y=2", true, "/a?x=1&sid=-&y=2"),
            ("/a?x=1&sid=secret&y=2", false, "/a"),
            ("/a?sid=1&a=2&sid=3", true, "/a?sid=-&a=-&sid=-"),
            ("/a?s%69d=secret", true, "/a?s%69d=-"),
            ("/a;s=secret/b;t=1;s=more", false, "/a;s=-/b;t=1;s=-"),
            ("/a;jsessionid=secret?sid=b", true, "/a;jsessionid=-?sid=-"),
            ("/sid=1", true, "/sid=1"),
        ] {
            assert_eq!(super::target(&target.parse().unwrap(), log_query, &pools), shown, "{target}");
        }
    }

    #[test]
    fn jsessionid_is_redacted_whatever_the_key_is() {
        let uri: Uri = "/a;jsessionid=secret?sid=1".parse().unwrap();
        assert_eq!(target(&uri, true, &pools(&[])), "/a;jsessionid=-?sid=1");
    }
}
