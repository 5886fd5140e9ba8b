//! How errors read in messages: the system's own words, and a cause behind what it caused.

use std::error::Error;
use std::io;

/// What Rust puts behind the system's words.
const NUMBER: &str = " (os error ";

/// The system's words for an error, as strerror(3) gives them.
#[must_use]
pub fn strerror(error: &io::Error) -> String {
    without_number(&error.to_string()).to_owned()
}

fn without_number(text: &str) -> &str {
    text.find(NUMBER).map_or(text, |number| &text[..number])
}

/// An error with what caused it, in one line. A cause that its effect quotes is not said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        let words = without_number(&words);
        if !text.contains(words) {
            text.push_str(": ");
            text.push_str(words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("connect to beta: {source} (is it there?)")]
        Quoting { source: io::Error },
        #[error("connect to beta")]
        Silent { source: io::Error },
    }

    #[test]
    fn a_cause_is_said_once_and_without_its_number() {
        let refused = || io::Error::from_raw_os_error(111);
        assert_eq!(strerror(&refused()), "Connection refused");
        assert_eq!(chain(&Failure::Silent { source: refused() }), "connect to beta: Connection refused");
        let text = chain(&Failure::Quoting { source: refused() });
        assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
    }
}
