//! When `--status` warns: so many files, or one that waits for so long.

/// What `--warning` and `--critical` say: `100`, `2h` or `100,2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Threshold {
    /// So many files wait for a peer.
    pub files: Option<u64>,
    /// One of them has waited for so many seconds.
    pub age: Option<u64>,
}

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

impl Threshold {
    /// Seconds alone.
    #[must_use]
    pub fn of_age(seconds: u64) -> Self {
        Self { files: None, age: Some(seconds) }
    }

    /// `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut threshold = Self::default();
        for part in text.split(',') {
            let mut units = UNITS.iter().filter_map(|(letter, seconds)| Some((part.strip_suffix(*letter)?, seconds)));
            match units.next() {
                Some((count, seconds)) => threshold.age = Some(number(count)?.checked_mul(*seconds)?),
                None => threshold.files = Some(number(part)?),
            }
        }
        Some(threshold)
    }

    /// Whether it is reached by so many files, the oldest of which has waited for so many seconds, as far as that is known.
    #[must_use]
    pub fn is_reached(&self, files: u64, age: Option<u64>) -> bool {
        files > 0
            && (self.files.is_some_and(|most| files >= most)
                || self.age.zip(age).is_some_and(|(longest, age)| age >= longest))
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_ages_are_told_by_the_unit() {
        let of = |files, age| Some(Threshold { files, age });
        for (text, expected) in [
            ("100", of(Some(100), None)),
            ("2h", of(None, Some(7200))),
            ("0,90s", of(Some(0), Some(90))),
            ("1d,7", of(Some(7), Some(86_400))),
            ("", None),
            ("h", None),
            ("1,", None),
            ("-1", None),
            ("1w", None),
            ("1hh", None),
            ("99999999999999999999", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(Threshold::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_reaches_no_threshold() {
        let both = Threshold { files: Some(0), age: Some(0) };
        assert!(!both.is_reached(0, None));
        assert!(both.is_reached(1, None));
        let age = Threshold::of_age(10);
        assert_eq!([None, Some(9), Some(10)].map(|waited| age.is_reached(1, waited)), [false, false, true]);
    }
}
