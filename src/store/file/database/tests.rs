use std::path::Path;

use redb::ReadableTable;

use super::*;

const SECRET: Fingerprint = [7; 16];

fn place(folder: &Path) -> Place {
    Place::check(&folder.join("homing.state")).unwrap()
}

/// A file with this many sessions.
fn written(folder: &Path, sessions: u32) -> Place {
    let place = place(folder);
    let database = Database::replace(&place, &SECRET, |transaction| {
        let mut table = transaction.open_table(SESSIONS)?;
        for number in 0..sessions {
            table.insert(id(number), &number.to_be_bytes()[..])?;
        }
        Ok(())
    });
    drop(database.unwrap());
    place
}

fn id(number: u32) -> SessionId {
    let mut id = [0; 18];
    id[2..6].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    id
}

/// How many sessions are read from a file.
fn count(database: &Database) -> usize {
    let transaction = database.read().unwrap();
    transaction.open_table(SESSIONS).unwrap().iter().unwrap().filter(Result::is_ok).count()
}

fn damage(place: &Place) -> Damage {
    match Database::open(place, &SECRET) {
        Err(OpenError::Damage(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path(), 1000);
    let database = Database::open(&place, &SECRET).unwrap().unwrap();
    assert_eq!(count(&database), 1000);
    assert!(matches!(Database::open(&place, &SECRET), Err(OpenError::Locked)));
}

#[test]
fn no_file_and_an_empty_one_are_nothing_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    assert!(Database::open(&place, &SECRET).unwrap().is_none());
    fs::write(place.file(), "").unwrap();
    assert!(Database::open(&place, &SECRET).unwrap().is_none());
}

#[test]
fn a_file_that_is_not_ours_is_told_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path(), 10);
    assert!(matches!(Database::open(&place, &[8; 16]), Err(OpenError::Damage(Damage::OtherSecret))));

    let later = (FORMAT + 1).to_be_bytes();
    let database = Database::open(&place, &SECRET).unwrap().unwrap();
    let newer = database.write(|transaction| {
        transaction.open_table(META)?.insert(FORMAT_KEY, &later[..])?;
        Ok(())
    });
    newer.unwrap();
    drop(database);
    assert!(matches!(damage(&place), Damage::OtherFormat { found } if found == FORMAT + 1));

    fs::write(place.file(), "once upon a time".repeat(1000)).unwrap();
    assert!(matches!(damage(&place), Damage::NotADatabase));

    fs::remove_file(place.file()).unwrap();
    let foreign = redb::Database::create(place.file()).unwrap();
    let transaction = foreign.begin_write().unwrap();
    let mut table = transaction.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap();
    table.insert(1, 2).unwrap();
    drop(table);
    transaction.commit().unwrap();
    drop(foreign);
    assert!(matches!(damage(&place), Damage::Foreign));
}

#[test]
fn a_file_that_was_cut_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path(), 20_000);
    let whole = fs::read(place.file()).unwrap();
    for tenths in 1..10 {
        fs::write(place.file(), &whole[..whole.len() * tenths / 10]).unwrap();
        damage(&place);
    }
}

#[test]
fn a_file_with_flipped_bytes_is_damaged_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path(), 5_000);
    let whole = fs::read(place.file()).unwrap();
    let mut refused = 0;
    for seed in 0..SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        // Half of them where a file says what it is and where all is.
        let end = if seed % 2 == 0 { 4096 } else { bytes.len() };
        for _ in 0..rng.usize(1..20) {
            bytes[rng.usize(..end)] ^= rng.u8(1..);
        }
        fs::write(place.file(), bytes).unwrap();
        match Database::open(&place, &SECRET) {
            Ok(Some(database)) => assert_eq!(count(&database), 5_000, "seed {seed}"),
            Err(OpenError::Damage(_)) => refused += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(refused > SEEDS / 4, "{refused} refused");
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path(), 10);
    let failed =
        Database::replace(&place, &SECRET, |_| Err(io::Error::from(io::ErrorKind::StorageFull).into()));
    assert!(failed.is_err());
    assert!(!place.draft().exists());
    assert_eq!(count(&Database::open(&place, &SECRET).unwrap().unwrap()), 10);
}

const SEEDS: u64 = 300;
