//! `docs/remote-coverage.md` is made from the one table. `UPDATE=1 cargo test -p headgate-remote` writes it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use headgate_abi::cuda::remote::{Class, Column, absence};
use headgate_abi::cuda::symbols::SYMBOLS;

type Groups = BTreeMap<&'static str, Vec<&'static str>>;

fn class(class: Class) -> &'static str {
    match class {
        Class::Local => "local: answered by the client",
        Class::Forget => "fire and forget: errors come later",
        Class::Promise => "promise: the client makes the result",
        Class::Reply => "reply: one round trip",
        Class::Sync => "sync: after work the program waits for",
    }
}

/// Names in lines of bounded width.
fn list(page: &mut String, names: &[&str]) {
    let mut line = String::new();
    for (index, name) in names.iter().enumerate() {
        let end = if index + 1 == names.len() { "" } else { "," };
        let word = format!("`{name}`{end}");
        if line.len() + word.len() >= 118 {
            writeln!(page, "{}", line.trim_end()).unwrap();
            line.clear();
        }
        write!(line, "{word} ").unwrap();
    }
    writeln!(page, "{}", line.trim_end()).unwrap();
}

fn page() -> String {
    let (mut offered, mut absent) = (Groups::new(), Groups::new());
    for &symbol in SYMBOLS {
        let name = symbol.row().elf_name;
        match (symbol.column(), symbol.line()) {
            (Column::Absent, _) | (_, None) => absent.entry(absence(symbol)).or_default().push(name),
            (_, Some(line)) => offered.entry(class(line.class)).or_default().push(name),
        }
    }
    let count: usize = offered.values().map(Vec::len).sum();
    let mut page = String::from(
        "# What travels\n\nMade from the table in `abi/src/cuda/remote.rs` by \
         `UPDATE=1 cargo test -p headgate-remote --test coverage`; do not edit.\n\n",
    );
    writeln!(
        page,
        "Of {} entry points, {count} are offered to a program whose GPU is borrowed.",
        SYMBOLS.len()
    )
    .unwrap();
    writeln!(page, "The others are absent: not exported, and not found by `cuGetProcAddress`.").unwrap();
    for (heading, groups) in [("Offered", &offered), ("Absent", &absent)] {
        writeln!(page, "\n## {heading}").unwrap();
        for (what, names) in groups {
            writeln!(page, "\n**{what}** ({})\n", names.len()).unwrap();
            list(&mut page, names);
        }
    }
    page
}

#[test]
fn the_coverage_page_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/remote-coverage.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == page, "{} is behind; run this test with UPDATE=1", file.display());
}
