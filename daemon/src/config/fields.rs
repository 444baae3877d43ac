//! Taking a mapping apart: each key once, and what nobody asked for is a problem.

use super::problem::{Place, Problem};
use super::tree::{Key, Node, Value};

/// A mapping being read. [`Fields::finish`] reports the keys that were not asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Where the mapping starts.
    pub place: Place,
    what: &'static str,
    entries: &'a [(Key, Node)],
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of a mapping; `what` names it in messages.
    pub fn of(node: &'a Node, what: &'static str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { place: node.place, what, entries, asked: Vec::new() }),
            _ => {
                let text = format!("{what} must be a mapping of keys to values, found {}", node.kind());
                problems.push(Problem { place: node.place, text });
                None
            }
        }
    }

    /// The value of a key, if it is written and not empty.
    pub fn optional(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        self.entries
            .iter()
            .find(|(known, _)| known.text == key)
            .map(|(_, node)| node)
            .filter(|n| !n.is_null())
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'a Node> {
        let found = self.optional(key);
        if found.is_none() {
            let text = format!("{} lacks `{key}`; add it", self.what);
            problems.push(Problem { place: self.place, text });
        }
        found
    }

    /// Reports every key that was never asked for, with the nearest one that exists.
    pub fn finish(self, problems: &mut Vec<Problem>) {
        for (key, _) in self.entries {
            if self.asked.contains(&key.text.as_str()) {
                continue;
            }
            let near = nearest(&key.text, &self.asked);
            let advice = near.map_or_else(
                || format!("known here: {}", self.asked.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let text = format!("unknown key `{}` in {}; {advice}", shown(&key.text), self.what);
            problems.push(Problem { place: key.place, text });
        }
    }
}

/// The known word nearest to a misspelt one, if any is near.
pub fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    const NEAR: f64 = 0.8;
    // Comparing is quadratic in length, and no key is this long.
    if 64 < word.len() {
        return None;
    }
    let lower = word.to_lowercase();
    let score = |known: &str| strsim::jaro_winkler(&lower, &known.to_lowercase());
    known
        .iter()
        .map(|known| (score(known), *known))
        .filter(|(score, _)| NEAR <= *score)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Foreign text, cut and made harmless for a terminal.
pub fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut cut: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_MAX {
        cut.push_str("...");
    }
    cut
}
