//! What the configuration only names: certificates, keys, tokens. Read together, every fault at once.

use std::{fmt, sync::Arc};

use crate::{
    config::{Config, Token},
    issue::Keyrings,
    secret,
    tls::{self, Certificate, Ticketer},
};

/// The contents of the files that a configuration names.
#[derive(Debug)]
pub struct Materials {
    /// For the handshakes.
    pub tls: Arc<rustls::ServerConfig>,
    /// For their dates.
    pub certificates: Vec<Certificate>,
    /// The keys of the cookies that pools issue.
    pub keyrings: Keyrings,
    /// What changes through the admin listener need, if a token is configured.
    pub token: Option<Token>,
}

/// Every fault of every file, a line each.
#[derive(Debug, thiserror::Error)]
pub struct LoadErrors(Vec<String>);

// === impl Materials ===

impl Materials {
    /// Reads and checks everything that `config` names.
    ///
    /// # Errors
    ///
    /// Every fault of every file.
    pub fn load(config: &Config, ticketer: &Ticketer) -> Result<Self, LoadErrors> {
        let mut faults = Vec::new();
        let certificates = tls::load_certificates(&config.certificates)
            .map_err(|errors| faults.extend(errors.iter().map(ToString::to_string)));
        let keyrings =
            Keyrings::load(config).map_err(|errors| faults.extend(errors.iter().map(ToString::to_string)));
        let token = config.admin.token_file.as_deref().map(Token::load).transpose();
        let token = token.map_err(|error| faults.push(error.to_string()));
        let secret = secret::check(config.secret_file.as_deref());
        let secret = secret.map_err(|error| faults.push(error.to_string()));
        let (Ok(certificates), Ok(keyrings), Ok(token), Ok(())) = (certificates, keyrings, token, secret)
        else {
            return Err(LoadErrors(faults));
        };
        let tls = tls::server_config_with(&certificates, ticketer)
            .map_err(|error| LoadErrors(vec![error.to_string()]))?;
        Ok(Self { tls, certificates, keyrings, token })
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
