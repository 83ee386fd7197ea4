//! `homing demo-files`: what the replicas of the demo cluster share, made before the first of them starts.
//!
//! Replicas run without root and read only; the folder belongs to whoever runs the cluster. So the secret
//! files are given to the replicas' user, and the rest to the folder's owner, who may do with it as with
//! any file of theirs.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;

use super::args::DemoFilesArgs;
use crate::{
    clock,
    config::Token,
    demo::certs::{self, Made},
    secret,
};

/// Makes what is missing; what is good stays.
///
/// # Errors
///
/// When something cannot be made, read or given away; and a file that is there and not good, unless it is a
/// certificate, which is replaced.
pub fn run(args: &DemoFilesArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.certs;
    let made = certs::prepare(folder, clock::wall())?;
    secret::key_hasher(Some(&folder.join(SECRET)))?;
    token(&folder.join(TOKEN))?;
    if let Some(owner) = args.owner {
        give_away(folder, owner)
            .with_context(|| format!("cannot give away the files in {}", folder.display()))?;
    }
    let news = match made.made {
        Made::Nothing => "was there",
        Made::Leaf => "was there; it has signed a new certificate for localhost",
        Made::All => "is new: clients have to trust it",
    };
    println!("the certification authority {} {news}", made.ca.display());
    Ok(ExitCode::SUCCESS)
}

/// Reads the operators' token, or makes one.
fn token(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let text = data_encoding::HEXLOWER.encode(&bytes) + "\n";
        // Two that start together are told apart here: the second one fails, and finds it next time.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    Token::load(path)?;
    Ok(())
}

/// Gives what the replicas read and nobody else may to `owner`, all else to the folder's owner.
fn give_away(folder: &Path, owner: u32) -> io::Result<()> {
    let of_folder = fs::metadata(folder)?;
    for name in FOR_REPLICAS {
        chown(folder.join(name), Some(owner), Some(owner))?;
    }
    for name in FOR_PEOPLE {
        let path = folder.join(name);
        // A careful owner may have taken the authority's key away.
        if path.exists() {
            chown(path, Some(of_folder.uid()), Some(of_folder.gid()))?;
        }
    }
    Ok(())
}

const SECRET: &str = "homing.secret";
const TOKEN: &str = "admin.token";
const TOKEN_BYTES: usize = 32;
const FOR_REPLICAS: [&str; 3] = ["localhost.key", SECRET, TOKEN];
const FOR_PEOPLE: [&str; 4] = ["ca.pem", "ca.key", "localhost.pem", ".lock"];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn make(folder: &Path, owner: Option<u32>) -> anyhow::Result<ExitCode> {
        run(&DemoFilesArgs { certs: folder.to_owned(), owner })
    }

    fn contents(folder: &Path) -> Vec<Vec<u8>> {
        FOR_REPLICAS.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
    }

    #[test]
    fn what_was_made_once_stays() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), None).unwrap();
        let first = contents(folder.path());
        make(folder.path(), None).unwrap();
        assert_eq!(contents(folder.path()), first);
    }

    #[test]
    fn only_the_owner_reads_what_is_secret() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), None).unwrap();
        for name in FOR_REPLICAS {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn secrets_go_to_the_replicas_and_the_rest_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().uid();
        // Nobody but root may give a file to somebody else.
        let other = if own == 0 { 10_001 } else { own };
        make(folder.path(), Some(other)).unwrap();
        let owner = |name| fs::metadata(folder.path().join(name)).unwrap().uid();
        assert_eq!(FOR_REPLICAS.map(owner), [other; 3]);
        assert_eq!(FOR_PEOPLE.map(owner), [own; 4]);
    }

    #[test]
    fn a_token_that_is_not_good_is_told_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TOKEN), "short").unwrap();
        let error = make(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(TOKEN), "{error}");
        assert_eq!(fs::read(folder.path().join(TOKEN)).unwrap(), b"short");
    }
}
