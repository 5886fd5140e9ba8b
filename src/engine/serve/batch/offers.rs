//! What is offered, looked at: the answers are what is needed, what is equal, and what is refused. Anything but the content
//! of a regular file is made or removed at once, since other offers may depend on it; its record waits for the commit.

use std::collections::HashSet;

use super::commit::{Change, Finished};
use super::contents::Incoming;
use super::{Batch, Compared, State};
use crate::config::LocalPath;
use crate::engine::check;
use crate::engine::membership::Purpose;
use crate::engine::serve::apply::{Copies, Made, Rules, Target, check_size, is_untouched};
use crate::engine::serve::attribute::Attribute;
use crate::engine::serve::commands;
use crate::engine::serve::permission::{self, Admitted};
use crate::engine::serve::receive::{self, Actions, OnDisk};
use crate::engine::serve::refusal::Refusal;
use crate::engine::serve::session::SessionError;
use crate::engine::{EngineError, blocking, content};
use crate::fs::{Locator, Place};
use crate::model::{Checktxt, FileKind, Ignore, Metadata, MtimeUnit, SyncPath, Timestamp};
use crate::store::IntentId;
use crate::wire::batch::{Answer, Described, Offer};
use crate::wire::{Attributes, Reply};

/// An offer of a file that the client may work on.
#[derive(Debug)]
struct Admissible {
    offer: Offer,
    file: Admitted,
}

/// What there is to an offer.
#[derive(Debug)]
enum Look {
    /// It is so already, and nothing is to be recorded.
    Already,
    /// What the client wants removed cannot be there: that is recorded.
    Absent,
    /// But for its time.
    Equal {
        shown: Metadata,
        mtime: Timestamp,
    },
    /// If the contents are equal.
    Compare {
        shown: Metadata,
        digest: [u8; 32],
        attributes: Attributes,
    },
    Change(Target),
    Refused(Refusal),
}

/// A file whose time is to be set while it is what it was.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: u32,
    pub(super) path: SyncPath,
    pub(super) place: LocalPath,
    pub(super) shown: Metadata,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) mtime: Timestamp,
}

/// Something to be made or removed.
#[derive(Debug)]
struct Work {
    id: u32,
    path: SyncPath,
    place: LocalPath,
    state: Option<Described>,
    target: Target,
    copies: Copies,
    /// Where it is made before it takes its place.
    beside: Option<Place>,
}

impl Batch {
    /// Answers offers: removals first, then directories, those above before those below.
    pub(super) async fn offers(&mut self, offers: Vec<Offer>) -> Result<(), SessionError> {
        let (mut removals, mut directories, mut others, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for offer in offers {
            self.open(&offer)?;
            let admitted = permission::admit(&self.peer, &self.key, &offer.name, Purpose::Sync, true).await?;
            let file = match admitted {
                Ok(file) => file,
                Err(reply) => {
                    self.refuse(offer.id, &reply);
                    continue;
                }
            };
            if !self.names.insert(file.path.clone()) {
                self.refuse(offer.id, &Reply::Text("It is offered under another id as well".to_owned()));
                continue;
            }
            if let Some(open) = self.open.get_mut(&offer.id) {
                open.path = Some(file.path.clone());
            }
            let list = match &offer.state {
                None => &mut removals,
                Some(Described { kind: FileKind::Directory, .. }) if offer.time_only => &mut times,
                Some(Described { kind: FileKind::Directory, .. }) => &mut directories,
                Some(_) => &mut others,
            };
            list.push(Admissible { offer, file });
        }
        self.look(removals).await?;
        while !directories.is_empty() {
            let names: HashSet<SyncPath> = directories.iter().map(|one| one.file.path.clone()).collect();
            let waits = |one: &Admissible| one.file.path.parent().is_some_and(|parent| names.contains(&parent));
            let (below, now) = std::mem::take(&mut directories).into_iter().partition(waits);
            directories = below;
            self.look(now).await?;
        }
        self.look(others).await?;
        self.time_directories(times).await?;
        Ok(())
    }

    async fn look(&mut self, offers: Vec<Admissible>) -> Result<(), EngineError> {
        if offers.is_empty() {
            return Ok(());
        }
        for forced in offers.iter().filter(|one| one.offer.forced) {
            commands::flush(&self.peer, &forced.file).await?;
        }
        let ignore = self.peer.node.config.ignore;
        let looked = blocking("look", move || {
            let mut locator = Locator::default();
            let look = |one: Admissible| (look_at(&mut locator, &one, ignore), one);
            offers.into_iter().map(look).collect::<Vec<_>>()
        });
        let (mut changes, mut equal) = (Vec::new(), Vec::new());
        for (look, one) in looked.await? {
            let Admissible { offer, file: Admitted { path, place } } = one;
            let id = offer.id;
            match look {
                Look::Already => self.done(id, true),
                Look::Absent => {
                    let receipt = receive::receipt(&self.peer, path, OnDisk::default(), Actions::Schedule);
                    self.ready.changes.push(Change { id, intent: None, receipt, touched: None, already: false });
                }
                Look::Equal { shown, mtime } => {
                    equal.push(Seen { id, path, place, shown, digest: None, mtime });
                }
                Look::Compare { shown, digest, attributes } => {
                    self.set_state(id, State::Compared(Box::new(Compared { place, shown, digest, attributes })));
                    self.answer(&Answer::Compare { id, digest });
                }
                Look::Change(target) => changes.push((offer, path, place, target)),
                Look::Refused(refusal) => self.reject(id, &path, &place, refusal).await?,
            }
        }
        self.set_times(equal).await?;
        self.change(changes).await
    }

    /// What differs is changed unless it was changed here: content is asked for, the rest is done.
    async fn change(&mut self, changes: Vec<(Offer, SyncPath, LocalPath, Target)>) -> Result<(), EngineError> {
        if changes.is_empty() {
            return Ok(());
        }
        let node = &self.peer.node;
        let paths: Vec<SyncPath> = changes.iter().map(|(_, path, ..)| path.clone()).collect();
        let known = node.store.known(paths).await?;
        // What its row describes exactly, without a mark, is no change of ours.
        let doubtful = changes.iter().zip(&known).filter(|((.., target), known)| {
            !known.marks.is_empty() || !check::is_recorded(node, known.record.as_ref(), target.before.as_ref())
        });
        let doubtful = doubtful.map(|((_, path, ..), _)| path.clone()).collect();
        let most = node.config.max_file_size;
        let mut refused = permission::dirty_checks(&self.peer, doubtful).await?;
        let (mut work, mut wanted) = (Vec::new(), Vec::new());
        for (offer, path, place, target) in changes {
            let id = offer.id;
            let refusal = match (refused.remove(&path), &offer.state) {
                (Some(reply), _) => Some(Refusal::Answer(reply)),
                // Little work, and for a directory only.
                (None, Some(Described { kind: FileKind::Regular { size }, .. })) => {
                    target.can_become_a_file().and_then(|()| check_size(*size, most)).err()
                }
                (None, _) => None,
            };
            match (refusal, offer.state) {
                (Some(refusal), _) => self.reject(id, &path, &place, refusal).await?,
                (None, Some(Described { kind: FileKind::Regular { size }, .. })) => {
                    let rules = receive::rules(&self.peer, &path);
                    match self.hiding.visible_name(&target, &rules) {
                        Ok(visible) => {
                            wanted.push((id, Incoming::new(path, place, target.before, rules, size, visible)));
                        }
                        Err(refusal) => self.reject(id, &path, &place, refusal).await?,
                    }
                }
                (None, state) => {
                    work.push(Work { id, path, place, state, target, copies: Copies::default(), beside: None });
                }
            }
        }
        self.want(wanted).await?;
        self.carry_out(work).await
    }

    /// Asks for contents. Where others will see one before it is in place, an intent tells under which name.
    async fn want(&mut self, files: Vec<(u32, Incoming)>) -> Result<(), EngineError> {
        let visible = files.iter().filter_map(|(_, incoming)| incoming.reservation(&self.peer));
        let mut reserved = self.begin(visible.collect()).await?.into_iter();
        for (id, mut incoming) in files {
            incoming.reserve(&mut reserved);
            let has_basis = incoming.has_basis();
            self.set_state(id, State::Incoming(Box::new(incoming)));
            if has_basis {
                self.unsummed.push_back(id);
            } else {
                self.answer(&Answer::Want { id, described: false });
            }
        }
        Ok(())
    }

    /// Makes and removes.
    async fn carry_out(&mut self, work: Vec<Work>) -> Result<(), EngineError> {
        if work.is_empty() {
            return Ok(());
        }
        let rules: Vec<_> = work.iter().map(|one| receive::rules(&self.peer, &one.path)).collect();
        let backed_up = blocking("back up", move || {
            let back_up = |(mut one, rules): (Work, _)| match one.prepare(&rules) {
                Ok(()) => Ok(one),
                Err(refusal) => Err(Box::new((one, refusal))),
            };
            work.into_iter().zip(rules).map(back_up).collect::<Vec<_>>()
        });
        let ignore = self.peer.node.config.ignore;
        let mut work = Vec::new();
        for outcome in backed_up.await? {
            match outcome {
                Ok(one) => work.push(one),
                Err(rejected) => {
                    let (one, refusal) = *rejected;
                    self.reject(one.id, &one.path, &one.place, refusal).await?;
                }
            }
        }
        let described = |one: &Work| one.state.as_ref().map(|state| receive::described(&state.kind, ignore));
        let intents = work.iter().map(|one| receive::intent(&self.peer, &one.path, one.temp_name(), described(one)));
        let intents = self.begin(intents.collect()).await?;
        let done = blocking("make", move || work.into_iter().map(|one| carry_out(one, ignore)).collect::<Vec<_>>());
        for ((work, made), intent) in done.await?.into_iter().zip(intents) {
            self.made(work, made, intent).await?;
        }
        Ok(())
    }

    async fn made(&mut self, work: Work, made: Result<Made, Refusal>, intent: IntentId) -> Result<(), EngineError> {
        let Work { id, path, place, target, .. } = work;
        match made {
            Ok(Made { outcome: Ok(()), left, .. }) => {
                let receipt = receive::receipt(&self.peer, path, left.into(), Actions::Schedule);
                let touched = Some(target.place().clone());
                self.ready.changes.push(Change { id, intent: Some(intent), receipt, touched, already: false });
            }
            Ok(Made { outcome: Err(refusal), is_gone: true, .. }) => {
                // The way was cleared for nothing: that is no removal of ours, to be sent to everybody.
                let receipt = receive::receipt(&self.peer, path.clone(), OnDisk::default(), Actions::None);
                self.peer.node.store.finish_receives(vec![(Some(intent), receipt)]).await?;
                self.reject(id, &path, &place, refusal).await?;
            }
            Err(Refusal::Unsettled(source)) => return Err(EngineError::Unsettled { source }),
            Ok(Made { outcome: Err(refusal), .. }) | Err(refusal) => {
                self.peer.node.store.abandon_receives(vec![intent]).await?;
                self.reject(id, &path, &place, refusal).await?;
            }
        }
        Ok(())
    }

    /// Directories that are right but for their time: what came into them since they were made changed it. They need a
    /// row that still describes them, or none, and no mark of ours; else they are looked at as anything else.
    async fn time_directories(&mut self, offers: Vec<Admissible>) -> Result<(), EngineError> {
        if offers.is_empty() {
            return Ok(());
        }
        let (store, ignore) = (&self.peer.node.store, self.peer.node.config.ignore);
        let known = store.known(offers.iter().map(|one| one.file.path.clone()).collect()).await?;
        let looked = blocking("look", move || {
            let mut locator = Locator::default();
            let look = |one: Admissible| (Target::find_with(&mut locator, &one.file.place), one);
            offers.into_iter().map(look).collect::<Vec<_>>()
        });
        let (mut timed, mut doubtful) = (Vec::new(), Vec::new());
        for ((target, one), known) in looked.await?.into_iter().zip(known) {
            let Admissible { offer, file: Admitted { path, place } } = one;
            let mtime = offer.state.map(|state| state.attributes.mtime).unwrap_or_default();
            match target {
                Err(refusal) => self.reject(offer.id, &path, &place, refusal.in_system_words()).await?,
                Ok(Target { before: None, .. }) => {
                    let missing = Refusal::text("No such file or directory");
                    self.reject(offer.id, &path, &place, missing).await?;
                }
                Ok(Target { before: Some(shown), .. }) => {
                    let is_known = receive::is_known(known.record.as_ref(), &shown, ignore) && known.marks.is_empty();
                    let is_sure = shown.is_directory() && is_known;
                    let seen = Seen { id: offer.id, path, place, shown, digest: None, mtime };
                    if is_sure { timed.push(seen) } else { doubtful.push(seen) }
                }
            }
        }
        let paths = doubtful.iter().map(|seen| seen.path.clone()).collect();
        let mut refused = permission::dirty_checks(&self.peer, paths).await?;
        for seen in doubtful {
            match refused.remove(&seen.path) {
                Some(reply) => self.reject(seen.id, &seen.path, &seen.place, Refusal::Answer(reply)).await?,
                None => timed.push(seen),
            }
        }
        self.set_times(timed).await
    }

    /// Has times set. What is part of a file's state by which a check would know it waits for the commit, behind its intent.
    pub(super) async fn set_times(&mut self, files: Vec<Seen>) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let ignore = self.peer.node.config.ignore;
        let timed = blocking("set times", move || {
            let mut locator = Locator::default();
            let set = |seen: Seen| (set_time(&mut locator, &seen, ignore), seen);
            files.into_iter().map(set).collect::<Vec<_>>()
        });
        let mut shared = Vec::new();
        for (outcome, seen) in timed.await? {
            match outcome {
                Ok(Timed::Now(metadata)) => {
                    let found = OnDisk { metadata, digest: seen.digest };
                    let receipt = receive::receipt(&self.peer, seen.path, found, Actions::None);
                    let change = Change { id: seen.id, intent: None, receipt, touched: None, already: true };
                    self.ready.changes.push(change);
                }
                Ok(Timed::AtCommit) => self.ready.times.push(seen),
                Ok(Timed::HasOtherNames(target)) => shared.push((seen, target)),
                Err(refusal) => self.reject(seen.id, &seen.path, &seen.place, refusal).await?,
            }
        }
        for (seen, target) in shared {
            self.duplicate(seen, target).await?;
        }
        Ok(())
    }

    /// Has a copy take the place of a file whose other names keep the old time.
    async fn duplicate(&mut self, seen: Seen, target: Target) -> Result<(), EngineError> {
        let Seen { id, path, place, shown, mtime, .. } = seen;
        let rules = Rules::default();
        let visible = match self.hiding.visible_name(&target, &rules) {
            Ok(visible) => visible,
            Err(refusal) => return self.reject(id, &path, &place, refusal).await,
        };
        let name = visible.iter().map(|name| receive::reservation(&self.peer, &path, name.clone()));
        let reserved = self.begin(name.collect()).await?.pop();
        let ignore = self.peer.node.config.ignore;
        let duplicate = blocking("copy", move || {
            let new = target.duplicate(visible.as_deref())?;
            new.set(Attribute::Time(mtime), ignore)?;
            Ok(new)
        });
        match duplicate.await? {
            Ok(new) => {
                let before = Some(shown);
                self.ready.files.push(Finished { id, path, place, before, rules, new, already: true, reserved });
                Ok(())
            }
            Err(refusal) => {
                self.void.extend(reserved);
                self.reject(id, &path, &place, refusal).await
            }
        }
    }
}

impl Work {
    /// All that can be done before the intent.
    fn prepare(&mut self, rules: &Rules) -> Result<(), Refusal> {
        self.copies = self.target.back_up(rules)?;
        if let Some(Described { kind, .. }) = &self.state {
            self.beside = self.target.beside(kind)?;
        }
        Ok(())
    }

    fn temp_name(&self) -> Vec<u8> {
        self.beside.as_ref().map(|beside| beside.file_name().to_vec()).unwrap_or_default()
    }
}

fn look_at(locator: &mut Locator, one: &Admissible, ignore: Ignore) -> Look {
    let Offer { forced, differs, state, .. } = &one.offer;
    let target = match (Target::find_with(locator, &one.file.place), state) {
        (Ok(target), _) => target,
        (Err(refusal), None) if *forced && refusal.is_absence() => return Look::Absent,
        (Err(Refusal::BehindSymlink), None) => return Look::Already,
        (Err(refusal), None) if refusal.is_absence() => return Look::Already,
        (Err(refusal), _) => return Look::Refused(refusal),
    };
    let Some(Described { kind, attributes }) = state else {
        return match &target.before {
            None if *forced => Look::Absent,
            None => Look::Already,
            // It belongs to a program of ours.
            Some(before) if before.kind == FileKind::Socket && !forced => Look::Already,
            Some(_) => Look::Change(target),
        };
    };
    let Some(shown) =
        target.before.clone().filter(|before| !forced && !differs && is_equal(before, kind, *attributes, ignore))
    else {
        return Look::Change(target);
    };
    match kind {
        FileKind::Directory | FileKind::Symlink { .. } => Look::Already,
        FileKind::Regular { size: 1.. } => {
            let digest = target.place().open_regular().and_then(content::digest_of);
            match digest {
                Ok(digest) => Look::Compare { shown, digest, attributes: *attributes },
                Err(error) => Look::Refused(error.into()),
            }
        }
        _ => Look::Equal { shown, mtime: attributes.mtime },
    }
}

/// Whether what is here is as described, but for its time and content.
fn is_equal(here: &Metadata, kind: &FileKind, attributes: Attributes, ignore: Ignore) -> bool {
    let Attributes { uid, gid, mode, mtime } = attributes;
    let theirs = Metadata { kind: kind.clone(), mode, uid, gid, mtime, ..here.clone() };
    let text = |metadata| Checktxt::of(metadata, ignore, MtimeUnit::Zero);
    text(&theirs).equal_but_for_mtime(&text(here))
}

fn carry_out(mut work: Work, ignore: Ignore) -> (Work, Result<Made, Refusal>) {
    let copies = std::mem::take(&mut work.copies);
    let made = match &work.state {
        None => work.target.remove(copies).map(|()| Made { outcome: Ok(()), is_gone: true, left: None }),
        Some(Described { kind, attributes }) => {
            let attributes = Attribute::of_kind(kind, attributes);
            work.target.put(copies, kind, work.beside.as_ref(), attributes, ignore)
        }
    };
    (work, made)
}

/// What there is to setting a time.
enum Timed {
    /// It is set, and was not worth an intent.
    Now(Option<Metadata>),
    AtCommit,
    /// These keep the old time.
    HasOtherNames(Target),
}

fn set_time(locator: &mut Locator, seen: &Seen, ignore: Ignore) -> Result<Timed, Refusal> {
    let target = Target::find_with(locator, &seen.place)?;
    let Some(now) = target.before.as_ref().filter(|now| is_untouched(&seen.shown, now)) else {
        return Err(Refusal::ChangedMeanwhile);
    };
    let time = Attribute::Time(seen.mtime);
    if time.is_set_on(now, ignore) {
        return Ok(Timed::Now(target.before));
    }
    if target.has_other_names() {
        return Ok(Timed::HasOtherNames(target));
    }
    if !now.is_directory() {
        return Ok(Timed::AtCommit);
    }
    target.set(time, ignore)?;
    Ok(Timed::Now(target.now()?))
}
