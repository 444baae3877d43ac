//! What the hook stands in front of, the simulated driver can show; or there is a reason.

use std::collections::{BTreeMap, BTreeSet};

use headgate_abi::cuda::Disposition;
use headgate_abi::cuda::symbols::ROWS;

/// The lists of what is implemented; every other row answers that it is not supported.
const API: &str = include_str!("../src/api/mod.rs");
const REVIEWED: &str = include_str!("not-simulated.txt");

#[test]
fn every_hooked_row_is_simulated_or_has_its_reason() {
    let words: BTreeSet<&str> = API.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let reviewed: BTreeMap<&str, &str> = REVIEWED
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .collect();
    let hooked = ROWS.iter().filter(|row| row.disposition == Disposition::Hooked).map(|row| row.elf_name);
    let missing: BTreeSet<&str> = hooked.filter(|name| !words.contains(name)).collect();
    let listed: BTreeSet<&str> = reviewed.keys().copied().collect();
    assert_eq!(missing, listed, "not simulated, and listed in not-simulated.txt");
    assert!(reviewed.values().all(|because| !because.trim().is_empty()));
}
