//! The daemon's configuration: any text.
//!
//! Reading never panics and always ends; it gives a checked configuration or at least one problem, each with a place in
//! the text; the number of problems is bounded; and what is right once is right, and the same, again.
#![no_main]

use headgate_daemon::config::parse;
use headgate_daemon::limits::CONFIG_BYTES_MAX;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    if CONFIG_BYTES_MAX < text.len() {
        return Corpus::Reject;
    }
    match parse("fuzz.yaml", text) {
        Ok(config) => {
            let again = parse("fuzz.yaml", text).expect("it was right before");
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
        }
        Err(problems) => {
            let said = problems.to_string();
            assert!(!said.is_empty());
            for line in said.lines().filter(|line| line.starts_with("fuzz.yaml:")) {
                let mut place = line.split(':').skip(1);
                let number = place.next().and_then(|number| number.trim().parse::<usize>().ok());
                // YAML ends lines with carriage returns, too.
                let lines = text.split(['\n', '\r']).count();
                assert!(number.is_none_or(|number| number <= lines + 1), "{line}");
            }
        }
    }
    Corpus::Keep
});
