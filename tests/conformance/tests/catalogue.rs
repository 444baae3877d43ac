//! The list of complaints and cases stays true.

use headgate_conformance::catalogue::{Case, GROUPS, document};
use headgate_conformance::{copies, limits, report, transcript, work};
use headgate_harness::workspace;

#[test]
fn the_document_is_the_tables() {
    let path = workspace::root().join("docs/conformance.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, document(), "run UPDATE=1 cargo test -p headgate-conformance --test catalogue");
}

#[test]
fn all_groups_are_there_in_order() {
    let numbers: Vec<u32> = GROUPS.iter().map(|group| group.number).collect();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>());
    for group in GROUPS {
        assert!(!group.cases.is_empty() || !group.missing.is_empty(), "group {} says nothing", group.number);
    }
}

#[test]
fn every_case_named_exists() {
    for group in GROUPS {
        for case in group.cases {
            let exists = match case {
                Case::Transcript(name) => transcript::CASES
                    .iter()
                    .chain(work::CASES)
                    .chain(copies::CASES)
                    .any(|(known, _)| known == name),
                Case::Limits(name) => limits::CASES.iter().any(|(known, _)| known == name),
                Case::Test(file, function, _) => {
                    let text = std::fs::read_to_string(workspace::root().join(file)).unwrap_or_default();
                    text.contains(&format!("#[test]\nfn {function}("))
                }
            };
            assert!(exists, "group {}: {case:?} is nowhere", group.number);
        }
    }
}

#[test]
fn every_case_of_a_group_is_named() {
    let transcripts = transcript::CASES.iter().chain(work::CASES).chain(copies::CASES).map(|(name, _)| *name);
    let limits = limits::CASES.iter().map(|(name, _)| *name);
    for name in transcripts.chain(limits) {
        for number in report::groups(name) {
            let group = GROUPS.iter().find(|group| group.number == number).unwrap();
            let named = group
                .cases
                .iter()
                .any(|case| matches!(case, Case::Transcript(known) | Case::Limits(known) if *known == name));
            assert!(named, "{name} claims group {number}, which does not name it");
        }
    }
}
