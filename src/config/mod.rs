//! The configuration: parsed once, valid ever after.

mod model;

pub use self::model::{
    AccessLog, Backend, CertificateFiles, Config, HealthCheck, HostPattern, Limits, Listen, PassiveHealth,
    Pool, PoolTimeouts, Route, Timeouts,
};
