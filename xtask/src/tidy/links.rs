//! Links between documents: every relative link leads to a file of the repository, and every anchor to a heading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Findings;
use crate::workspace;

pub(super) fn check(findings: &mut Findings) -> Result<()> {
    let root = workspace::root()?;
    let files: BTreeSet<PathBuf> = workspace::files()?.into_iter().collect();
    let mut documents = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text =
            fs::read_to_string(root.join(file)).with_context(|| format!("reading {}", file.display()))?;
        documents.insert(file.clone(), text);
    }
    let anchors: BTreeMap<&PathBuf, BTreeSet<String>> =
        documents.iter().map(|(file, text)| (file, anchors(text))).collect();
    for (file, text) in &documents {
        for (line, target) in links(text) {
            if let Err(problem) = follow(file, &target, &files, &anchors) {
                findings.problem(format_args!("{}:{line}", file.display()), problem);
            }
        }
    }
    Ok(())
}

fn follow(
    from: &Path,
    target: &str,
    files: &BTreeSet<PathBuf>,
    anchors: &BTreeMap<&PathBuf, BTreeSet<String>>,
) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = if path.is_empty() {
        from.to_owned()
    } else {
        normal(&from.parent().unwrap_or(Path::new("")).join(path))
    };
    let folder = files.iter().any(|known| known.starts_with(&file));
    if !folder {
        return Err(format!("links to `{target}`, but there is no {}", file.display()));
    }
    match (anchor, anchors.get(&file)) {
        (Some(anchor), Some(known)) if !known.contains(anchor) => {
            Err(format!("links to `{target}`, but {} has no such heading", file.display()))
        }
        _ => Ok(()),
    }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Lines outside of fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)`, with their lines. Inline code is not looked into.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let mut rest = plain.as_str();
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            found.push((number, rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

/// The anchors a renderer makes of a document's headings: lower case, spaces to hyphens, other signs dropped,
/// repeated ones numbered.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let Some(heading) = heading.strip_prefix(' ') else { continue };
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut name = slug.clone();
        for copy in 1.. {
            if anchors.insert(name) {
                break;
            }
            name = format!("{slug}-{copy}");
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "# A `b` (c), d\n\n## Twice\n## Twice\n\n[x](y.md#z) and `[no](code)`\n\n```\n[no](fence)\n```\n";

    #[test]
    fn headings_become_anchors() {
        let found = anchors(DOCUMENT);
        assert_eq!(found, ["a-b-c-d", "twice", "twice-1"].map(str::to_owned).into());
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(links(DOCUMENT), [(6, "y.md#z".to_owned())]);
    }

    #[test]
    fn dead_links_and_anchors_are_told_apart() {
        let files = BTreeSet::from([PathBuf::from("docs/y.md"), PathBuf::from("hook/src/lib.rs")]);
        let document = PathBuf::from("docs/y.md");
        let anchors = BTreeMap::from([(&document, BTreeSet::from(["z".to_owned()]))]);
        let follow = |target| follow(Path::new("docs/x.md"), target, &files, &anchors);
        assert!(follow("y.md#z").is_ok());
        assert!(follow("../hook").is_ok(), "a folder");
        assert!(follow("https://example.org/nowhere").is_ok(), "the world outside is not ours to check");
        assert!(follow("y.md#w").unwrap_err().contains("heading"));
        assert!(follow("gone.md").unwrap_err().contains("there is no docs/gone.md"));
    }
}
