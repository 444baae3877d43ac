//! The audit log: every byte counts, and a daemon that dies leaves a log that can be gone on with.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use headgate_loans::audit::{Audit, AuditError, follow, sha256};
use headgate_quota::loan::audit::Head;
use headgate_quota::loan::{
    Amount, DataClass, Device, District, Guest, LoanId, Node, Place, Record, Revision, Tenant, What, Why,
};
use headgate_quota::units::{Bytes, Share};
use proptest::prelude::*;

fn record(number: u64, why: &str) -> Record {
    Record {
        what: if number.is_multiple_of(2) { What::Granted } else { What::Refused },
        loan: LoanId { node: Node::new("south.n2").unwrap(), incarnation: 12, number },
        place: Place {
            district: District::new("north").unwrap(),
            node: Node::new("north.n1").unwrap(),
            device: Device::new("GPU-7").unwrap(),
        },
        owner: Tenant::new("cases"),
        guest: Guest { district: District::new("south").unwrap(), tenant: Tenant::new("alerts").unwrap() },
        data: Some(DataClass::Derived),
        amount: Amount { sm: Share(300_000), memory: Bytes(number << 20) },
        token: Revision(40 + number),
        why: Why::Told(why.into()),
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds)
}

/// A log of some lines.
fn log(directory: &tempfile::TempDir, lines: u64) -> std::path::PathBuf {
    let path = directory.path().join("audit.log");
    let mut audit = Audit::open(&path).unwrap();
    for number in 0..lines {
        audit.write(at(number), &record(number, "cases left it idle")).unwrap();
    }
    path
}

#[test]
fn a_log_reads_as_it_always_did() {
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(log(&directory, 2)).unwrap();
    let first = "1 2026-01-01T00:00:00Z 0000000000000000000000000000000000000000000000000000000000000000 granted \
                 loan=south.n2/12/0 place=north/north.n1/GPU-7 owner=cases guest=south/alerts data=derived sm=300000 \
                 memory=0 token=40 why=cases left it idle";
    let second = format!(
        "2 2026-01-01T00:00:01Z {} refused loan=south.n2/12/1 place=north/north.n1/GPU-7 owner=cases \
         guest=south/alerts data=derived sm=300000 memory=1048576 token=41 why=cases left it idle",
        sha256(first.as_bytes())
    );
    assert_eq!(text, format!("{first}\n{second}\n"));
}

#[test]
fn whatever_byte_is_changed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory, 4);
    let whole = fs::read(&path).unwrap();
    let head = follow(&path).unwrap().head;
    assert_eq!(head.sequence, 4);
    for place in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = whole.clone();
            changed[place] ^= flip;
            fs::write(&path, &changed).unwrap();
            // The last line has no successor that vouches for it; its digest is what was noted elsewhere.
            let noticed = follow(&path).map_or(true, |followed| followed.head != head || followed.torn);
            assert!(noticed, "byte {place} flipped by {flip:#x} went unnoticed");
        }
    }
}

#[test]
fn lines_that_are_removed_doubled_or_swapped_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory, 5);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let head = follow(&path).unwrap().head;
    let check = |lines: &[&str]| {
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        follow(&path).map_or(true, |followed| followed.head != head)
    };
    for index in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(index);
        assert!(check(&removed), "line {index} removed");
        let mut doubled = lines.clone();
        doubled.insert(index, lines[index]);
        assert!(check(&doubled), "line {index} doubled");
        if index + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(index, index + 1);
            assert!(check(&swapped), "lines {index} and the next swapped");
        }
    }
    assert!(!check(&lines), "as it was");
}

#[test]
fn a_log_cut_off_anywhere_is_gone_on_with_at_its_last_whole_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory, 3);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
        let mut audit = Audit::open(&path).unwrap();
        assert_eq!(audit.head().sequence, u64::try_from(lines).unwrap(), "cut at {length}");
        audit.write(at(9), &record(9, "after the crash")).unwrap();
        assert_eq!(follow(&path).unwrap().head, audit.head(), "cut at {length}");
    }
}

#[test]
fn a_broken_log_is_not_written_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory, 3);
    let text = fs::read_to_string(&path).unwrap().replacen("granted", "refused", 1);
    fs::write(&path, text).unwrap();
    match Audit::open(&path) {
        Err(error @ AuditError::Broken { .. }) => {
            assert!(error.to_string().contains("line 2"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let mut endless = fs::OpenOptions::new().append(true).open(&path).unwrap();
    endless.write_all(&vec![b'x'; 1 << 20]).unwrap();
    assert!(matches!(follow(&path), Err(AuditError::Broken { .. })));
}

proptest! {
    #[test]
    fn no_reason_can_break_a_line_or_the_chain(whys in prop::collection::vec(any::<String>(), 1..20)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut audit = Audit::open(&path).unwrap();
        let mut heads = vec![Head::default()];
        for (number, why) in (0..).zip(&whys) {
            audit.write(at(number), &record(number, why)).unwrap();
            prop_assert!(!heads.contains(&audit.head()));
            heads.push(audit.head());
        }
        let followed = follow(&path).unwrap();
        prop_assert_eq!(followed.head, audit.head());
        prop_assert_eq!(followed.head.sequence, u64::try_from(whys.len()).unwrap());
    }
}

/// A log in files of at most `bytes_max`, written by daemons that die after every `lives` lines.
fn log_in_files(directory: &tempfile::TempDir, lines: u64, bytes_max: u64, lives: u64) -> std::path::PathBuf {
    let path = directory.path().join("audit.log");
    for first in (0..lines).step_by(usize::try_from(lives).unwrap()) {
        let mut audit = Audit::open_bounded(&path, bytes_max).unwrap();
        for number in first..lines.min(first + lives) {
            audit.write(at(number), &record(number, "cases left it idle")).unwrap();
        }
        if let Some(sync) = audit.sync() {
            sync().unwrap();
        }
    }
    path
}

fn files(directory: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    // `audit.log` itself comes first by name and last in time.
    files.rotate_left(1);
    files
}

#[test]
fn a_full_file_is_put_aside_and_the_chain_goes_on_over_files() {
    let whole = tempfile::tempdir().unwrap();
    let head = follow(&log(&whole, 40)).unwrap().head;
    for lives in [1, 7, 40] {
        let directory = tempfile::tempdir().unwrap();
        let path = log_in_files(&directory, 40, 1_000, lives);
        let files = files(&directory);
        assert!(10 <= files.len(), "{files:?}");
        for file in &files {
            assert!(fs::metadata(file).unwrap().len() <= 1_000, "{} is too long", file.display());
        }
        let followed = follow(&path).unwrap();
        assert_eq!((followed.head, followed.files), (head, files.len()), "one chain, however it is cut");
        let lines: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(lines.concat(), fs::read_to_string(whole.path().join("audit.log")).unwrap());
    }
}

#[test]
fn a_file_that_is_changed_removed_or_exchanged_is_noticed_and_archived_ones_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = log_in_files(&directory, 40, 1_000, 40);
    let files = files(&directory);
    let whole = follow(&path).unwrap();
    let broken = || assert!(matches!(follow(&path), Err(AuditError::Broken { .. })));
    // One in the middle is gone.
    let middle = fs::read(&files[3]).unwrap();
    fs::remove_file(&files[3]).unwrap();
    broken();
    // Another stands in its place.
    fs::copy(&files[4], &files[3]).unwrap();
    broken();
    // It is there again, but for its last line.
    let cut = middle[..middle.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&files[3], &middle[..cut]).unwrap();
    broken();
    fs::write(&files[3], &middle[..middle.len() - 1]).unwrap();
    broken();
    fs::write(&files[3], &middle).unwrap();
    assert_eq!(follow(&path).unwrap(), whole);
    // The oldest two are archived: the rest says from where it goes on, and each can be checked by itself.
    let archived = follow(&files[1]).unwrap();
    fs::remove_file(&files[0]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    let rest = follow(&path).unwrap();
    assert_eq!((rest.from, rest.head, rest.files), (archived.head, whole.head, whole.files - 2));
    // Lines cannot be taken from its front: a file is named after its first one.
    let oldest = fs::read(&files[2]).unwrap();
    let second = oldest.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&files[2], &oldest[second..]).unwrap();
    broken();
    fs::write(&files[2], &oldest).unwrap();
    // And it is written on.
    let mut audit = Audit::open_bounded(&path, 1_000).unwrap();
    assert_eq!(audit.head(), whole.head);
    audit.write(at(99), &record(99, "on")).unwrap();
    drop(audit);
    assert_eq!(follow(&path).unwrap().head.sequence, 41);
}

#[test]
fn a_daemon_that_died_between_two_files_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory, 3);
    let head = follow(&path).unwrap().head;
    fs::rename(&path, directory.path().join("audit.log.000000000001")).unwrap();
    assert_eq!(follow(&path).unwrap().head, head, "nothing is lost, nothing has begun");
    let mut audit = Audit::open_bounded(&path, 1_000).unwrap();
    assert_eq!(audit.head(), head);
    audit.write(at(3), &record(3, "on")).unwrap();
    let followed = follow(&path).unwrap();
    assert_eq!((followed.head.sequence, followed.files), (4, 2));
    // A last line cut off by death is the last file's only.
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 5]).unwrap();
    assert!(follow(&path).unwrap().torn);
    assert_eq!(Audit::open_bounded(&path, 1_000).unwrap().head(), head);
}
