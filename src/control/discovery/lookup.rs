//! One look-up of a name: the hosts file, then DNS.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf,
};
use tokio::time::timeout;

use super::known::Found;
use crate::config::format_duration;

/// Looks names up, at one server or at those of the system.
pub(super) struct Lookup {
    server: Option<SocketAddr>,
    /// Made when it is needed, and anew after a failure: the system may have been configured differently since,
    /// and what is wrong may be its sockets.
    resolver: Option<TokioResolver>,
}

/// What a look-up gave.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) found: Found,
    /// How long it is good for, if that is known.
    pub(super) ttl: Option<Duration>,
    /// Why a part of it, or all, could not be found out.
    pub(super) trouble: Option<Trouble>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No server answered in time.
    #[error("no answer within {}", format_duration(*.0))]
    Timeout(Duration),
    /// It went wrong otherwise.
    #[error("{0}")]
    Failed(#[from] NetError),
    /// The name is not a DNS name.
    #[error("not a name that DNS could know")]
    Name,
}

/// How long a look-up of one kind of record may take, retries included.
const LIMIT: Duration = Duration::from_secs(4);
/// How long one try may take, and how many there are.
const TRY: Duration = Duration::from_millis(1500);
const TRIES: usize = 2;

// === impl Lookup ===

impl Lookup {
    /// Asks this server, or those of the system.
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        Self { server, resolver: None }
    }

    /// The addresses of a host name.
    pub(super) async fn addresses(&mut self, host: &str) -> Answer {
        let Ok(name) = Name::from_ascii(host) else {
            return Answer { trouble: Some(Trouble::Name), ..Answer::default() };
        };
        // The resolver answers for `localhost` by itself, with ::1 as well, whatever the system has there.
        if (self.server.is_none() || name.is_localhost())
            && let Some(found) = from_hosts(&name)
        {
            return Answer { found, ..Answer::default() };
        }
        let resolver = match self.resolver.take().map_or_else(|| self.build(), Ok) {
            Ok(resolver) => resolver,
            Err(error) => return Answer { trouble: Some(error.into()), ..Answer::default() },
        };
        let (v4, v6) =
            tokio::join!(ask(&resolver, &name, RecordType::A), ask(&resolver, &name, RecordType::AAAA));
        let mut answer = Answer::default();
        for (family, result) in [(&mut answer.found.v4, v4), (&mut answer.found.v6, v6)] {
            match result {
                Ok((addresses, ttl)) => {
                    *family = Some(addresses);
                    answer.ttl = answer.ttl.into_iter().chain(ttl).min();
                }
                Err(trouble) => answer.trouble = Some(trouble),
            }
        }
        self.resolver = Some(resolver).filter(|_| answer.trouble.is_none());
        answer
    }

    /// Who is asked, for a message.
    pub(super) fn servers(&self) -> String {
        let several = |config: &ResolverConfig| {
            config.name_servers().iter().map(|server| server.ip.to_string()).collect::<Vec<_>>().join(", ")
        };
        match self.server {
            Some(server) => server.to_string(),
            // As it is by now.
            None => system_conf::read_system_conf()
                .map_or_else(|error| format!("none: {error}"), |(config, _)| several(&config)),
        }
    }

    fn build(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.server {
            Some(server) => {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = server.port());
                let server = NameServerConfig::new(server.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        // When to ask again is decided here, by the TTL as it came.
        options.cache_size = 0;
        options.timeout = options.timeout.min(TRY);
        options.attempts = TRIES;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }
}

/// The addresses of one family, and how long they are good for. That there is none is an answer, too.
async fn ask(
    resolver: &TokioResolver,
    name: &Name,
    records: RecordType,
) -> Result<(Vec<IpAddr>, Option<Duration>), Trouble> {
    match timeout(LIMIT, resolver.lookup(name.clone(), records)).await {
        Err(_) => Err(Trouble::Timeout(LIMIT)),
        Ok(Err(error)) if error.is_no_records_found() => Ok((Vec::new(), None)),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(lookup)) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| Duration::from_secs(record.ttl.into())).min();
            let addresses = records.iter().filter_map(|record| record.data.ip_addr());
            Ok((addresses.filter(is_host).collect(), ttl))
        }
    }
}

/// What the hosts file, as it is now, says of a name.
fn from_hosts(name: &Name) -> Option<Found> {
    // A system without the file has no such names.
    let hosts = Hosts::from_system().ok()?;
    let of = |records| -> Vec<IpAddr> {
        let lookup = hosts.lookup_static_host(&Query::query(name.clone(), records));
        let records = lookup.iter().flat_map(|lookup| lookup.answers());
        records.filter_map(|record| record.data.ip_addr()).filter(is_host).collect()
    };
    let found = Found { v4: Some(of(RecordType::A)), v6: Some(of(RecordType::AAAA)), ..Found::default() };
    (!found.is_empty()).then_some(found)
}

/// Whether a connection to it could be meant; an IPv4 address in the guise of an IPv6 one has an A record.
fn is_host(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip.to_canonical() == *ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_what_the_system_says_whoever_else_is_asked() {
        let server: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut lookup = Lookup::new(Some(server));
        assert_eq!(lookup.servers(), "127.0.0.1:9");
        let Some(hosts) = from_hosts(&Name::from_ascii("localhost").unwrap()) else { return };
        let answer = lookup.addresses("localhost").await;
        assert_eq!((answer.found.v4, answer.found.v6), (hosts.v4, hosts.v6));
        assert_eq!(answer.ttl, None, "it is not the resolver's own answer");
    }
}
