//! What a dry run says instead of doing it.

use super::Pipeline;
use crate::engine::update::job::Progress;
use crate::engine::update::{Forecast, Prospect};

impl Pipeline<'_> {
    /// This is all that comes of a job: what waits for it goes on.
    pub(super) fn forecast(&mut self, number: usize, prospect: Prospect) {
        self.jobs[number].progress = Progress::Done;
        self.forecasts.push((number, prospect));
        self.release(number);
    }

    /// Removals first, deepest first, then the rest in name order.
    pub(super) fn sorted_forecasts(&mut self) -> Vec<Forecast> {
        let forecasts = std::mem::take(&mut self.forecasts);
        let (mut removals, mut pushes): (Vec<_>, Vec<_>) =
            forecasts.into_iter().partition(|&(number, _)| self.jobs[number].is_removal());
        removals.sort_by(|&(one, _), &(other, _)| self.jobs[other].path().cmp(self.jobs[one].path()));
        pushes.sort_by(|&(one, _), &(other, _)| self.jobs[one].path().cmp(self.jobs[other].path()));
        let line = |(number, prospect): (usize, Prospect)| {
            let job = &self.jobs[number];
            Forecast { prospect, forced: job.forced, peer: self.pair.peer.to_owned(), path: job.path().clone() }
        };
        removals.into_iter().chain(pushes).map(line).collect()
    }
}
