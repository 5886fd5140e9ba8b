//! What a dry run says instead of doing it.

use super::Pipeline;
use crate::engine::update::job::Progress;
use crate::engine::update::{Forecast, Prospect};

impl Pipeline<'_> {
    /// This is all that comes of a job: what waits for it goes on.
    pub(super) fn forecast(&mut self, number: usize, prospect: Prospect) {
        let job = &mut self.jobs[number];
        job.progress = Progress::Done;
        let (forced, path) = (job.candidate.forced, job.path().clone());
        let forecast = Forecast { prospect, forced, peer: self.pair.peer.to_owned(), path };
        let forecasts = if job.is_removal() { &mut self.forecasts.0 } else { &mut self.forecasts.1 };
        forecasts.push(forecast);
        self.release(number);
    }

    /// Removals first, deepest first, then the rest in name order.
    pub(super) fn sorted_forecasts(&mut self) -> Vec<Forecast> {
        let (mut removals, mut pushes) = std::mem::take(&mut self.forecasts);
        removals.sort_by(|one, other| other.path.cmp(&one.path));
        pushes.sort_by(|one, other| one.path.cmp(&other.path));
        // What was forced, and comes into a directory that is missing there as well, was let go in between.
        pushes.dedup_by(|one, other| one.path == other.path);
        removals.append(&mut pushes);
        removals
    }
}
