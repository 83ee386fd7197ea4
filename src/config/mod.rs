//! The configuration: parsed once, valid ever after.
//!
//! A file passes `parse` (TOML with the place of each value), `raw` (each value understood by itself,
//! table by table through `section`), `convert` (defaults, and how the values fit together) and comes
//! out as the `model`. Flags join at `raw`. Nothing stops at the first error: each stage reports what it
//! finds, and a value that was reported is not reported again for what follows from it.

mod access_log;
mod address;
mod backend_side;
mod changes;
mod close_code;
mod convert;
mod convert_issue;
mod convert_pool;
mod edge;
mod effective;
mod effects;
mod errors;
mod excerpt;
mod flags;
mod model;
mod parse;
mod quantity;
mod raw;
mod redis_url;
mod renames;
mod schema;
mod section;
mod session;
mod state;
mod suggest;
mod tls;
mod token;

pub use self::{
    access_log::{AccessLog, LogFilter, LogWish, parse_access_log},
    address::{format_backend_url, parse_listen},
    changes::Changes,
    close_code::CloseCode,
    convert_pool::BACKENDS_MAX,
    edge::{Edge, Period, Rate},
    effects::{Effect, What},
    errors::ConfigErrors,
    flags::{BackendFlag, Flags, Overrides},
    model::{
        Admin, Backend, CertificateFiles, Config, Discover, HealthCheck, HostPattern, Issue, Leave, Limits,
        Listen, PassiveHealth, Pool, PoolLimits, PoolTimeouts, PoolTls, Redis, Route, SameSite, State,
        Timeouts,
    },
    quantity::{format_duration, format_elapsed, format_size, parse_duration, parse_size},
    redis_url::{Node, Password, RedisUrl, RedisUrlError, Topology},
    renames::{Place, renames},
    session::{describe_keys, format_balance, format_key, parse_balance},
    tls::{ClientAuth, Tls, TlsVersion},
    token::{Token, TokenError},
};
