//! Which job waits for which: for its directory, for the removals below it, for the same file under another name. No two
//! wait for each other: a removal waits for removals before it, any other job for one before it or for its directory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use super::Pipeline;
use crate::engine::update::job::{Job, Progress};
use crate::model::SyncPath;

impl Pipeline<'_> {
    pub(super) fn add_removals(&mut self, removals: Vec<Job>) {
        let first = self.jobs.len();
        let mut numbers: HashMap<SyncPath, usize> = HashMap::new();
        for mut job in removals {
            job.other_spelling = self.other_spelling(&job, &numbers);
            job.nest.occupied = self.occupied.contains(job.path());
            self.emptied.extend(job.path().parent());
            numbers.insert(job.path().clone(), self.jobs.len());
            self.ready.push(Reverse(self.jobs.len()));
            self.jobs.push(job);
        }
        for number in first..self.jobs.len() {
            let mut directory = self.jobs[number].path().parent();
            while let Some(path) = directory {
                if let Some(&above) = numbers.get(&path) {
                    self.jobs[number].nest.above = Some(above);
                    self.jobs[above].nest.below += 1;
                    break;
                }
                directory = path.parent();
            }
        }
    }

    pub(super) fn add_pushes(&mut self, pushes: Vec<Job>) {
        self.jobs.reserve_exact(pushes.len());
        for mut job in pushes {
            let number = self.jobs.len();
            job.obstacles.directory = self.emptied.contains(job.path());
            job.other_spelling = self.other_spelling(&job, &self.index);
            let directory = job.path().parent().and_then(|parent| self.index.get(&parent).copied());
            self.index.insert(job.path().clone(), number);
            self.jobs.push(job);
            match directory {
                // Offers are looked at in order.
                Some(directory) if !self.dry_run && !self.offers() => self.wait_for(directory, number),
                _ => self.ready.push(Reverse(number)),
            }
        }
    }

    /// The last of the known jobs for the same file under another name: as a plain path, or below another prefix.
    fn other_spelling(&self, job: &Job, known: &HashMap<SyncPath, usize>) -> Option<usize> {
        let names = self.node.config.names_of(job.candidate.place.absolute().as_os_str().as_bytes());
        names.iter().filter_map(|name| known.get(name)).copied().max()
    }

    pub(super) fn wait_for(&mut self, other: usize, number: usize) {
        if self.jobs[other].progress == Progress::Asking {
            self.waiting.entry(other).or_default().push(number);
        } else {
            self.ready.push(Reverse(number));
        }
    }

    /// Leaves a file alone as long as a link may be in the place of its directory: the C program's server would write
    /// through it. Once the peer has answered for the directory, the file is asked about again.
    pub(super) fn is_held_back(&mut self, number: usize) -> bool {
        if self.dry_run || self.jobs[number].is_removal() {
            return false;
        }
        let Some(directory) = self.directory_above(number) else { return false };
        let Job { progress, obstacles, .. } = self.jobs[directory];
        match progress {
            _ if !obstacles.no_directory => return false,
            Progress::Untimed | Progress::Done => return false,
            Progress::Asking | Progress::Underway => {
                self.jobs[number].begin_anew();
                self.wait_for(directory, number);
            }
            Progress::Failed => {
                self.jobs[number].obstacles.no_directory = true;
                self.fail(number, None);
            }
        }
        true
    }

    /// The closest directory above a file that is pushed as well.
    fn directory_above(&self, number: usize) -> Option<usize> {
        let mut directory = self.jobs[number].path().parent();
        while let Some(path) = directory {
            if let Some(&above) = self.index.get(&path) {
                return Some(above);
            }
            directory = path.parent();
        }
        None
    }

    /// Lets what lies below a directory begin, and the same file under another name.
    pub(super) fn release(&mut self, number: usize) {
        for child in self.waiting.remove(&number).unwrap_or_default() {
            self.ready.push(Reverse(child));
        }
    }
}
