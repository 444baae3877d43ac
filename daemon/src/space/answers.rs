//! What `nvidia-cuda-mps-control` answers.
//!
//! `lspart` prints a table, in which `-` stands for what does not apply:
//!
//! ```text
//! GPU           Partition   free   used   free  used  clients
//!                           chunk  chunk  SM    SM
//! GPU-74d43ed3  -           11     5      92    40    -
//! GPU-74d43ed3  Dx4AAA...   -      5      -     40    Yes
//! ```

/// A device's line of the table, and those of its partitions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Chunks that are free, and that are not.
    pub chunks: (u32, u32),
    /// SMs that are free, and that are not.
    pub sms: (u32, u32),
    /// The partitions.
    pub partitions: Vec<Partition>,
}

/// A partition's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its name on its device: what stands behind the slash of its whole name.
    pub name: String,
    /// Its chunks.
    pub chunks: u32,
    /// Its SMs.
    pub sms: u32,
    /// Whether clients are in it.
    pub used: bool,
}

/// Reads the table of the device whose UUID begins as its lines do. `None` when it has no line: the program does not
/// partition it.
#[must_use]
pub fn table(text: &str, uuid: &str) -> Option<Table> {
    let mut found = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [gpu, partition, free_chunks, used_chunks, free_sms, used_sms, clients] = words[..] else {
            continue;
        };
        if !gpu.starts_with("GPU-") || !uuid.starts_with(gpu) {
            continue;
        }
        let number = |word: &str| word.parse::<u32>().ok();
        let table: &mut Table = found.get_or_insert_with(Table::default);
        if partition == "-" {
            table.chunks = (number(free_chunks)?, number(used_chunks)?);
            table.sms = (number(free_sms)?, number(used_sms)?);
        } else {
            table.partitions.push(Partition {
                name: partition.to_owned(),
                chunks: number(used_chunks)?,
                sms: number(used_sms)?,
                used: !clients.eq_ignore_ascii_case("no") && clients != "-",
            });
        }
    }
    found
}

/// The name of the partition that `sm_partition add` made: a word with the device's UUID, a slash and more.
#[must_use]
pub fn added(text: &str, uuid: &str) -> Option<String> {
    let ours = |word: &&str| {
        word.strip_prefix(uuid).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
    };
    let failed = text.to_ascii_lowercase().contains("failed");
    text.split_whitespace().find(ours).filter(|_| !failed).map(str::to_owned)
}

/// Process ids, one a line.
#[must_use]
pub fn pids(text: &str) -> Vec<u32> {
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// What a command is told that did not do it, in one line and bounded: it goes into logs and the status.
#[must_use]
pub fn complaint(text: &str) -> String {
    const SHOWN_MAX: usize = 200;
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no answer").trim();
    line.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "GPU-74d43ed3-cdf7-e667-3644-bf5b4f46ed65";

    #[test]
    fn the_table_is_read_by_its_columns() {
        let text = "GPU           Partition                         free   used   free  used  clients\n\
                    \x20                                               chunk  chunk  SM    SM\n\
                    GPU-74d43ed3  -                                  9      7      74    56    -\n\
                    GPU-74d43ed3  Dx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA -      7      -     56    Yes\n\
                    GPU-11111111  -                                  1      2      3     4     -\n";
        let found = table(text, UUID).expect("the device is listed");
        assert_eq!((found.chunks, found.sms), ((9, 7), (74, 56)));
        let [partition] = &found.partitions[..] else { panic!("{found:?}") };
        assert_eq!((partition.chunks, partition.sms, partition.used), (7, 56, true));
        assert_eq!(table("Unknown command: lspart\n", UUID), None);
        assert_eq!(table("GPU-74d43ed3  -  x  7  74  56  -\n", UUID), None, "what is no number is no table");
    }

    #[test]
    fn a_partition_is_named_or_was_not_made() {
        let name = format!("{UUID}/Dx4AAA");
        assert_eq!(added(&format!("Partition {name} created\n"), UUID), Some(name.clone()));
        assert_eq!(added(&format!("{name}\n"), UUID), Some(name.clone()));
        assert_eq!(added(&format!("Failed to add {name}\n"), UUID), None);
        let refused = "Failed to fulfill the requested SM partition of 99 chunks, error CUDA_ERROR_X";
        assert_eq!(added(refused, UUID), None);
        assert_eq!(complaint(&format!("{refused}\n\n")), refused);
        assert_eq!(added(&format!("{UUID}/ \n"), UUID), None);
    }

    #[test]
    fn lists_of_processes_end_where_something_else_begins() {
        assert_eq!(pids("12\n34\n"), [12, 34]);
        assert!(pids("Cannot find MPS control daemon process").is_empty());
    }
}
