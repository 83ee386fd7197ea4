//! Every table of the file and the keys that it may have.

/// One table of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The table as messages call it; empty for the top level.
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) static ROOT: Shape = Shape {
    title: "",
    keys: &[
        "workers",
        "trusted_proxies",
        "via",
        "access_log",
        "access_log_filter",
        "log_query",
        "websocket_close",
        "watch",
        "secret_file",
        "resolver",
        "dns_refresh",
        "hsts",
        "listen",
        "admin",
        "state",
        "certificate",
        "timeouts",
        "limits",
        "route",
        "pool",
        "tls",
    ],
};

pub(super) static LISTEN: Shape =
    Shape { title: "[listen]", keys: &["https", "http", "redirect_port", "admin", "proxy_protocol"] };

pub(super) static ADMIN: Shape =
    Shape { title: "[admin]", keys: &["token_file", "allow_changes", "hosts", "socket"] };

pub(super) static STATE: Shape = Shape {
    title: "[state]",
    keys: &[
        "file",
        "redis",
        "redis_password_file",
        "redis_ca",
        "redis_timeout",
        "redis_prefix",
        "replica",
        "handover",
    ],
};

pub(super) static CERTIFICATE: Shape = Shape { title: "[[certificate]]", keys: &["cert", "key"] };

pub(super) static TLS: Shape = Shape {
    title: "[tls]",
    keys: &[
        "min_version",
        "strict_sni",
        "client_ca",
        "client_auth",
        "client_crl",
        "client_header",
        "client_cert",
    ],
};

pub(super) static TIMEOUTS: Shape = Shape {
    title: "[timeouts]",
    keys: &["handshake", "head", "idle", "body", "drain", "handover_drain", "websocket"],
};

pub(super) static LIMITS: Shape = Shape {
    title: "[limits]",
    keys: &[
        "head_size",
        "headers",
        "body_size",
        "connections",
        "streams",
        "uri_size",
        "connections_per_address",
        "requests",
        "requests_per_connection",
        "rate",
        "rate_burst",
        "min_rate",
    ],
};

pub(super) static ROUTE: Shape = Shape { title: "[[route]]", keys: &["host", "path", "pool", "body_size"] };

pub(super) static POOL: Shape = Shape {
    title: "[[pool]]",
    keys: &[
        "name",
        "balance",
        "slow_start",
        "keep_alive",
        "instance_header",
        "leave",
        "affinity",
        "health",
        "passive",
        "timeouts",
        "backend",
        "tls",
        "limits",
    ],
};

pub(super) static AFFINITY: Shape = Shape {
    title: "[pool.affinity]",
    keys: &[
        "key",
        "session_timeout",
        "ttl",
        "max_ttl",
        "max_age",
        "grace",
        "on_down",
        "on_unknown",
        "max_sessions",
        "skip",
        "issue",
    ],
};

pub(super) static ISSUE: Shape =
    Shape { title: "[pool.affinity.issue]", keys: &["cookie", "key_file", "same_site"] };

pub(super) static HEALTH: Shape = Shape {
    title: "[pool.health]",
    keys: &["path", "host", "interval", "timeout", "rise", "fall", "expect"],
};

pub(super) static PASSIVE: Shape = Shape { title: "[pool.passive]", keys: &["fall", "retry"] };

pub(super) static POOL_TIMEOUTS: Shape =
    Shape { title: "[pool.timeouts]", keys: &["connect", "head", "idle"] };

pub(super) static BACKEND: Shape =
    Shape { title: "[[pool.backend]]", keys: &["name", "url", "weight", "discover", "server_name"] };

pub(super) static POOL_TLS: Shape =
    Shape { title: "[pool.tls]", keys: &["ca", "server_name", "cert", "key"] };

pub(super) static POOL_LIMITS: Shape =
    Shape { title: "[pool.limits]", keys: &["connections", "queue", "queue_timeout", "retry_budget"] };

/// Every table.
pub(super) static ALL: [&Shape; 18] = [
    &ROOT,
    &LISTEN,
    &ADMIN,
    &STATE,
    &CERTIFICATE,
    &TIMEOUTS,
    &LIMITS,
    &ROUTE,
    &POOL,
    &AFFINITY,
    &ISSUE,
    &HEALTH,
    &PASSIVE,
    &POOL_TIMEOUTS,
    &BACKEND,
    &POOL_TLS,
    &POOL_LIMITS,
    &TLS,
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use toml::{Table, Value};

    use super::*;
    use crate::config::Config;

    const REFERENCE: &str = include_str!("../../config/homing.toml");

    /// The reference with the keys that are off by default switched on: `#key = ...`.
    fn full_reference() -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
            _ => line.to_owned(),
        };
        REFERENCE.lines().map(on).collect::<Vec<_>>().join("\n")
    }

    fn collect(title: &str, path: &str, table: &Table, keys: &mut BTreeSet<(String, String)>) {
        for (key, value) in table {
            keys.insert((title.to_owned(), key.clone()));
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(table) => collect(&format!("[{path}]"), &path, table, keys),
                Value::Array(items) => {
                    let tables = items.iter().filter_map(Value::as_table);
                    tables.for_each(|table| collect(&format!("[[{path}]]"), &path, table, keys));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_reference_has_every_known_key_and_no_other() {
        let mut written = BTreeSet::new();
        collect("", "", &full_reference().parse().unwrap(), &mut written);
        let known = ALL
            .iter()
            .flat_map(|shape| shape.keys.iter().map(|key| (shape.title.to_owned(), (*key).to_owned())));
        assert_eq!(written, known.collect());
    }

    #[test]
    fn every_known_key_is_understood() {
        // `issue` excludes both.
        let mut text = full_reference();
        for (key, end) in [("\nkey = [\n", "\n]\n"), ("\non_unknown = ", "\n")] {
            assert_eq!(text.matches(key).count(), 1);
            let start = text.find(key).unwrap();
            let length = key.len() - 1 + text[start + key.len() - 1..].find(end).unwrap() + end.len();
            text.replace_range(start..start + length, "\n");
        }
        Config::parse(&text, "homing.toml", Path::new("")).unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn the_defaults_in_the_reference_are_the_defaults() {
        let mut table = "";
        let needed = REFERENCE.lines().filter(|line| {
            if line.starts_with('[') {
                table = line;
            }
            let key = line.split(" = ").next().unwrap_or_default();
            let is_needed = match table {
                "[[certificate]]" => true,
                "[[route]]" => key == "pool",
                "[pool.health]" => key == "path",
                _ => matches!(key, "name" | "url"),
            };
            is_needed || line.starts_with('[')
        });
        let needed = needed.collect::<Vec<_>>().join("\n");
        let parse = |text: &str| {
            Config::parse(text, "homing.toml", Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
        };
        assert!(!needed.contains("session_timeout"));
        assert_eq!(parse(&needed), parse(REFERENCE));
    }
}
