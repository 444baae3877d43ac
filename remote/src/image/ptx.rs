//! Kernels of PTX text: `.entry NAME ( .param TYPE NAME, .. )`.
//!
//! Parameters lie one behind the other, each at the next multiple of its own alignment, as the PTX manual says of the
//! parameter space.

use super::{Kernels, Layout};

/// The kernels of a text; `None` where it has one that cannot be read.
pub(super) fn kernels(text: &str) -> Option<Kernels> {
    let text = without_comments(text);
    if !text.trim_start().starts_with(".version") {
        return None;
    }
    let mut found = Kernels::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(".entry") {
        rest = &rest[at + ".entry".len()..];
        if !rest.starts_with(char::is_whitespace) {
            continue;
        }
        let head = rest.trim_start();
        let end = head.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%')))?;
        let (name, behind) = head.split_at(end);
        let layout = match behind.trim_start().strip_prefix('(') {
            Some(list) => layout(&list[..list.find(')')?]),
            None => Some(Layout::new()),
        };
        found.insert(name.to_owned(), layout);
        rest = behind;
    }
    Some(found)
}

/// The layout of a parameter list; `None` where a parameter is of a kind this room does not know.
fn layout(list: &str) -> Option<Layout> {
    let mut laid = Layout::new();
    let mut at = 0u32;
    for parameter in list.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (bytes, alignment) = parameter_size(parameter)?;
        at = at.checked_next_multiple_of(alignment)?;
        laid.push((at, bytes));
        at = at.checked_add(bytes)?;
    }
    Some(laid)
}

/// Bytes and alignment of `.param .align 8 .b8 name[16]` and its kin.
fn parameter_size(parameter: &str) -> Option<(u32, u32)> {
    let mut words = parameter.split_whitespace().skip_while(|word| *word != ".param").skip(1);
    let (mut element, mut alignment, mut pointer) = (None, None, false);
    let mut name = String::new();
    while let Some(word) = words.next() {
        match word {
            ".align" => {
                let wanted = words.next()?.parse().ok()?;
                // Behind `.ptr` it is the alignment of what is pointed to.
                if !pointer {
                    alignment = Some(wanted);
                }
            }
            ".ptr" => pointer = true,
            ".global" | ".const" | ".shared" | ".local" if pointer => {}
            _ if word.starts_with('.') => element = Some(type_bytes(word)?),
            // `name [16]` may be written in two words.
            _ => name.push_str(word),
        }
    }
    let element = element?;
    let count = match name.split_once('[') {
        Some((_, count)) => count.strip_suffix(']')?.trim().parse().ok()?,
        None => 1,
    };
    let alignment = alignment.unwrap_or(1).max(element);
    alignment.is_power_of_two().then_some((element.checked_mul(count)?, alignment))
}

fn type_bytes(kind: &str) -> Option<u32> {
    match kind {
        ".b8" | ".u8" | ".s8" => Some(1),
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => Some(2),
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => Some(4),
        ".b64" | ".u64" | ".s64" | ".f64" | ".texref" | ".samplerref" | ".surfref" => Some(8),
        ".b128" => Some(16),
        _ => None,
    }
}

fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'/') => rest.find('\n'),
            Some(b'*') => rest.find("*/").map(|end| end + 2),
            _ => {
                clean.push('/');
                Some(1)
            }
        };
        rest = end.map_or("", |end| &rest[end..]);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_laid_out_as_the_manual_says() {
        let text = "// .entry no(\n.version 8.2\n.target sm_75\n.visible .entry one(\n .param .u32 one_a,\n\
                    .param .u64 .ptr .global .align 16 one_b, /* c */\n .param .f32 one_c,\n\
                    .param .align 8 .b8 one_d[20],\n .param .u16 one_e\n)\n.maxntid 32, 1, 1\n{ ret; }\n\
                    .entry two ()\n{ ret; }\n.entry three\n{ ret; }\n.func f() {}";
        let found = kernels(text).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found["one"], Some(vec![(0, 4), (8, 8), (16, 4), (24, 20), (44, 2)]));
        assert_eq!(found["two"], Some(vec![]));
        assert_eq!(found["three"], Some(vec![]));
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        let text = ".version 8.2\n.entry odd(.param .b7 a){}";
        assert_eq!(kernels(text).unwrap()["odd"], None);
        assert!(kernels("not ptx").is_none());
        assert!(kernels(".version 8.2 .entry cut(.param .u32").is_none());
    }
}
