//! What the configuration only names: certificates, keys, tokens. Read together, every fault at once.

mod holdings;

use std::{fmt, fs};

pub use self::holdings::{Holding, compare};

use crate::{
    config::{Config, Token},
    issue::Keyrings,
    listener::LocalSocket,
    secret, store,
    tls::{self, Certificate, ClientTls, Front, Ticketer, Vetting},
};

/// The contents of the files that a configuration names.
#[derive(Debug)]
pub struct Materials {
    /// For the handshakes.
    pub tls: Front,
    /// For their dates.
    pub certificates: Vec<Certificate>,
    /// The keys of the cookies that pools issue.
    pub keyrings: Keyrings,
    /// How each pool's backends are spoken to over TLS, in the order of the pools; none where no URL asks for it.
    pub backends: Vec<Option<ClientTls>>,
    /// What changes through the admin listener need, if a token is configured.
    pub token: Option<Token>,
    /// What each file holds, to tell what a reload changes.
    pub holdings: Vec<Holding>,
}

/// Every fault of every file, a line each.
#[derive(Debug, thiserror::Error)]
pub struct LoadErrors(Vec<String>);

// === impl Materials ===

impl Materials {
    /// As [`load`](Self::load), and checks the places of everything that only a start makes or opens. Makes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Every fault of every file and place.
    pub fn load_first(config: &Config, ticketer: &Ticketer) -> Result<Self, LoadErrors> {
        let loaded = Self::load(config, ticketer);
        let mut faults = loaded.as_ref().map_or_else(|errors| errors.0.clone(), |_| Vec::new());
        faults.extend(places(config));
        if faults.is_empty() { loaded } else { Err(LoadErrors(faults)) }
    }

    /// Reads and checks everything that `config` names and that a reload can change.
    ///
    /// # Errors
    ///
    /// Every fault of every file.
    pub fn load(config: &Config, ticketer: &Ticketer) -> Result<Self, LoadErrors> {
        let mut faults = Vec::new();
        let certificates = tls::load_certificates(&config.certificates)
            .map_err(|errors| faults.extend(errors.iter().map(ToString::to_string)));
        let vetting = Vetting::load(config.tls.clients.as_ref())
            .map_err(|errors| faults.extend(errors.iter().map(ToString::to_string)));
        let keyrings =
            Keyrings::load(config).map_err(|errors| faults.extend(errors.iter().map(ToString::to_string)));
        let mut backends = Vec::with_capacity(config.pools.len());
        for pool in &config.pools {
            let secure = pool.backends.iter().any(|backend| backend.tls.is_some());
            match secure.then(|| ClientTls::load(&pool.tls)).transpose() {
                Ok(tls) => backends.push(tls),
                Err(errors) => faults.extend(errors.iter().map(ToString::to_string)),
            }
        }
        let token = config.admin.token_file.as_deref().map(Token::load).transpose();
        let token = token.map_err(|error| faults.push(error.to_string()));
        let secret = secret::check(config.secret_file.as_deref());
        let secret = secret.map_err(|error| faults.push(error.to_string()));
        let (Ok(certificates), Ok(vetting), Ok(keyrings), Ok(token), Ok(_)) =
            (certificates, vetting, keyrings, token, secret)
        else {
            return Err(LoadErrors(faults));
        };
        if !faults.is_empty() {
            return Err(LoadErrors(faults));
        }
        let mut holdings: Vec<Holding> =
            certificates.iter().map(|one| Holding::open("certificate", one.into())).collect();
        let (authorities, lists) = vetting.held();
        holdings.extend(authorities.map(|held| Holding::open("client CA", held.clone())));
        holdings.extend(lists.map(|held| Holding::open("client CRL", held.clone())));
        for (pool, tls) in config.pools.iter().zip(&backends) {
            let (ca, certificate) = tls.as_ref().map_or((None, None), ClientTls::held);
            let of_pool = |what: &str| format!("{what} of pool {}", pool.name);
            holdings.extend(ca.map(|held| Holding::open(of_pool("CA"), held.clone())));
            let certificate = certificate.cloned();
            holdings.extend(certificate.map(|held| Holding::open(of_pool("client certificate"), held)));
        }
        holdings.extend(holdings::secrets(config));
        let tls = Front::new(&certificates, ticketer, &vetting, &config.tls)
            .map_err(|error| LoadErrors(vec![error.to_string()]))?;
        Ok(Self { tls, certificates, keyrings, backends, token, holdings })
    }
}

/// What is wrong with the places of state, sockets and secret, a sentence each.
fn places(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |error: &dyn fmt::Display| faults.push(error.to_string());
    let state = config.state.file.as_deref().map_or(Ok(()), store::file::check);
    if let Err(error) = &state {
        fault(error);
    }
    // The key beside the state file shares its place.
    let named = state.is_ok() || config.key_is_of_state().is_none();
    if let Some(Err(error)) = config.secret_file.as_deref().filter(|_| named).map(secret::check_place) {
        fault(&error);
    }
    for (setting, path) in
        [("[admin] socket", &config.admin.socket), ("[state] handover", &config.state.handover)]
    {
        if let Some(Err(error)) = path.as_deref().map(|path| LocalSocket::check(setting, path)) {
            fault(&error);
        }
    }
    if let Some(redis) = &config.state.redis {
        if let Some(Err(error)) = redis.password_file.as_deref().map(store::redis::password) {
            fault(&error);
        }
        if let Some(Err(error)) = redis.ca.as_deref().map(store::redis::certificates) {
            fault(&error);
        }
    }
    faults
}

/// What a start with this configuration would lose of the state file, as a sentence; nothing is made or changed.
pub fn losses(config: &Config) -> Option<String> {
    let file = config.state.file.as_deref()?;
    let aside = |why: &dyn fmt::Display| {
        format!("{}: a start would set this state file aside, since {why}", file.display())
    };
    // What is wrong with the secret itself is an error elsewhere.
    match secret::check(config.secret_file.as_deref()).ok()? {
        None if fs::metadata(file).is_ok_and(|data| data.len() > 0) => {
            let key = config.secret_file.as_deref().unwrap_or(file);
            Some(aside(&format_args!("its key file {} is missing", key.display())))
        }
        None => None,
        Some(hasher) => match store::file::preview(file, &hasher) {
            Ok(damage) => Some(aside(&damage?)),
            // An error of the place.
            Err(_) => None,
        },
    }
}

// === impl LoadErrors ===

impl LoadErrors {
    /// One sentence for each.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}
