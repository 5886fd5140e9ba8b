//! Progress bars: what the counts of a run look like on a terminal. They come when a run takes longer than a moment, go when
//! it is over, and leave nothing behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::tally::{PeerTally, RunTally, Way};

/// How long a run may take before anything is shown, and how often that is brought up to date.
const FIRST: Duration = Duration::from_millis(700);
const EVERY: Duration = Duration::from_millis(200);

/// Ends with its value.
#[derive(Debug)]
pub(super) struct Bars {
    screen: MultiProgress,
    _task: AbortOnDropHandle<()>,
}

impl Bars {
    pub(super) fn start(screen: &MultiProgress, tally: &Arc<RunTally>) -> Self {
        let watch = watch(screen.clone(), Arc::clone(tally));
        Self { screen: screen.clone(), _task: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // A terminal that is gone needs no order.
        let _ = self.screen.clear();
        self.screen.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
}

async fn watch(screen: MultiProgress, tally: Arc<RunTally>) {
    let mut ticks = interval_at(tokio::time::Instant::now() + FIRST, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut check, mut peers) = (None, HashMap::new());
    loop {
        ticks.tick().await;
        show_check(&screen, &tally, &mut check);
        for (number, peer) in tally.peers().iter().enumerate() {
            show_peer(&screen, peer, peers.entry(number).or_insert(None));
        }
    }
}

fn show_check(screen: &MultiProgress, tally: &RunTally, shown: &mut Option<ProgressBar>) {
    let Some((checked, expected)) = tally.check.way() else {
        take_away(screen, shown);
        return;
    };
    let bar = shown.get_or_insert_with(|| screen.add(bar("check", "{human_pos} files, {per_sec}")));
    // On the first run nothing is known: there is no end to be seen.
    bar.set_length(expected.max(checked));
    bar.set_position(checked);
}

/// The bar of a peer moves with the bytes of its files, each of which counts for a little more, so that empty ones count too.
fn show_peer(screen: &MultiProgress, peer: &PeerTally, shown: &mut Option<ProgressBar>) {
    const FILE: u64 = 4_096;
    if peer.session().is_some() {
        take_away(screen, shown);
        return;
    }
    let Way { files, over, length, passed, bytes } = peer.way();
    let bar = shown.get_or_insert_with(|| screen.add(bar(&peer.peer, "{msg}, {eta} left")));
    bar.set_length(length + files * FILE);
    bar.set_position(passed.min(length) + over * FILE);
    let milliseconds = u64::try_from(peer.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = HumanBytes(bytes.saturating_mul(1000) / milliseconds);
    bar.set_message(format!("{over}/{files} files, {} sent, {rate}/s", HumanBytes(bytes)));
}

fn take_away(screen: &MultiProgress, shown: &mut Option<ProgressBar>) {
    if let Some(bar) = shown.take() {
        bar.finish_and_clear();
        screen.remove(&bar);
    }
}

fn bar(name: &str, says: &str) -> ProgressBar {
    let template = format!("{{prefix:15!}} [{{wide_bar}}] {says}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::hidden();
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(name.to_owned());
    bar
}
