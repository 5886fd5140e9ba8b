//! Who wins when both sides changed a file (docs/manual.md). Pure: what the peer has is passed in.

use crate::config::{AutoMethod, Side};

/// What is known before the peer is asked.
#[derive(Debug, Clone, Copy)]
pub struct Dispute {
    pub method: AutoMethod,
    /// Where the peer stands in the host list.
    pub peer_side: Side,
    /// The peer is a slave in a common group, and we are not.
    pub peer_is_slave: bool,
    /// We removed the file.
    pub removal: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Push again, forced. The text names the test that was won.
    Won(&'static str),
    /// The file stays dirty. The text says why, `None`: no method is configured.
    Lost(Option<Loss>),
    /// Ask for the peer's mtime, then [`by_mtime`].
    AskMtime,
    /// Ask for the peer's size, then [`by_size`].
    AskSize,
}

/// Why a conflict was not resolved in our favour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Test {
        name: &'static str,
        /// What is to be said of our file, or of us.
        because: &'static str,
    },
    /// Removals are not compared.
    Removal,
}

const MTIME: &str = "younger/older";
const SIZE: &str = "bigger/smaller";
const SIDE: &str = "left/right";

/// What a test that was lost says.
fn lost(method: AutoMethod) -> Option<Loss> {
    let (name, because) = match method {
        AutoMethod::None | AutoMethod::First => return None,
        AutoMethod::Younger => (MTIME, "ours is not younger"),
        AutoMethod::Older => (MTIME, "ours is younger"),
        AutoMethod::Bigger => (SIZE, "ours is not bigger"),
        AutoMethod::Smaller => (SIZE, "ours is bigger"),
        AutoMethod::Left => (SIDE, "we are listed right of it"),
        AutoMethod::Right => (SIDE, "we are listed left of it"),
    };
    Some(Loss::Test { name, because })
}

/// Decides as far as that is possible without asking the peer.
#[must_use]
pub fn resolve(dispute: &Dispute) -> Step {
    if dispute.peer_is_slave {
        return Step::Won("master/slave");
    }
    match dispute.method {
        AutoMethod::None => Step::Lost(None),
        AutoMethod::First => Step::Won("first"),
        AutoMethod::Left => verdict(SIDE, dispute.method, dispute.peer_side == Side::Right),
        AutoMethod::Right => verdict(SIDE, dispute.method, dispute.peer_side == Side::Left),
        _ if dispute.removal => Step::Lost(Some(Loss::Removal)),
        AutoMethod::Younger | AutoMethod::Older => Step::AskMtime,
        AutoMethod::Bigger | AutoMethod::Smaller => Step::AskSize,
    }
}

/// Decides by mtime; `theirs` is `None` when the peer has no such file.
#[must_use]
pub fn by_mtime<T: Ord>(method: AutoMethod, ours: &T, theirs: Option<&T>) -> Step {
    verdict(MTIME, method, theirs.is_none_or(|theirs| (method == AutoMethod::Younger) == (ours > theirs)))
}

/// Decides by size; `theirs` is `None` when the peer has no such file.
#[must_use]
pub fn by_size(method: AutoMethod, ours: u64, theirs: Option<u64>) -> Step {
    verdict(SIZE, method, theirs.is_none_or(|theirs| (method == AutoMethod::Bigger) == (ours > theirs)))
}

fn verdict(test: &'static str, method: AutoMethod, won: bool) -> Step {
    if won { Step::Won(test) } else { Step::Lost(lost(method)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispute(method: AutoMethod, peer_side: Side, removal: bool) -> Step {
        resolve(&Dispute { method, peer_side, peer_is_slave: false, removal })
    }

    #[test]
    fn a_master_wins_against_a_slave_whatever_the_method() {
        let dispute = Dispute { method: AutoMethod::None, peer_side: Side::Left, peer_is_slave: true, removal: true };
        assert_eq!(resolve(&dispute), Step::Won("master/slave"));
    }

    #[test]
    fn the_side_decides_modifications_and_removals() {
        for removal in [false, true] {
            assert_eq!(dispute(AutoMethod::First, Side::Left, removal), Step::Won("first"));
            assert_eq!(dispute(AutoMethod::Left, Side::Right, removal), Step::Won(SIDE));
            assert_eq!(dispute(AutoMethod::Left, Side::Left, removal), Step::Lost(lost(AutoMethod::Left)));
            assert_eq!(dispute(AutoMethod::Right, Side::Left, removal), Step::Won(SIDE));
            assert_eq!(dispute(AutoMethod::None, Side::Left, removal), Step::Lost(None));
        }
        assert_eq!(dispute(AutoMethod::Younger, Side::Left, true), Step::Lost(Some(Loss::Removal)));
        assert_eq!(dispute(AutoMethod::Younger, Side::Left, false), Step::AskMtime);
    }

    #[test]
    fn ties_are_won_by_older_and_smaller_and_a_missing_file_by_everybody() {
        let won = |method, ours, theirs: Option<u64>| {
            (
                by_mtime(method, &ours, theirs.as_ref()) == Step::Won(MTIME),
                by_size(method, ours, theirs) == Step::Won(SIZE),
            )
        };
        assert!(!won(AutoMethod::Younger, 5, Some(5)).0);
        assert!(won(AutoMethod::Older, 5, Some(5)).0);
        assert!(!won(AutoMethod::Bigger, 5, Some(5)).1);
        assert!(won(AutoMethod::Smaller, 5, Some(5)).1);
        assert!(won(AutoMethod::Younger, 6, Some(5)).0);
        assert!(!won(AutoMethod::Older, 6, Some(5)).0);
        assert!(won(AutoMethod::Bigger, 6, Some(5)).1);
        assert!(!won(AutoMethod::Smaller, 6, Some(5)).1);
        for method in [AutoMethod::Younger, AutoMethod::Older, AutoMethod::Bigger, AutoMethod::Smaller] {
            assert_eq!(won(method, 5, None), (true, true));
        }
    }
}
