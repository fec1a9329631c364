//! Lists of processors: `0-3,8`.

use std::str::FromStr;

/// Most processors that a list may name.
const MAX_CPUS: usize = 4096;

/// A list of processors without repeats, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().ok().filter(|cpu: &usize| *cpu < MAX_CPUS);
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cpus.extend(first..=last),
                _ => return Err(format!("`{part}` is no processor and no range of them: write 0-3,8")),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!("0-3,8".parse(), Ok(CpuList(vec![0, 1, 2, 3, 8])));
        assert_eq!("2, 1-2".parse(), Ok(CpuList(vec![1, 2])));
        for bad in ["", "a", "3-1", "1-", "-1", "1,,2", "4096", "0-99999999"] {
            assert!(bad.parse::<CpuList>().is_err(), "{bad}");
        }
    }
}
