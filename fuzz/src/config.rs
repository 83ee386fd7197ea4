//! A configuration file.

use std::path::Path;

use homing::config::Config;

/// Taken as the text of a file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "homing.toml", Path::new("/etc/homing")) {
        Ok(config) => {
            let printed = config.to_toml();
            let again = Config::parse(&printed, "printed", Path::new("/elsewhere"));
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
            assert_eq!(again, config, "what is printed is what is meant:\n{printed}");
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}
