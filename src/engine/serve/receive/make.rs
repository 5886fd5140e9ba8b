//! Everything but contents: MKDIR and its like, DEL, SETOWN, SETMOD, SETIME.

use super::super::apply::{Made, Target, is_untouched};
use super::super::attribute::Attribute;
use super::super::peer::Peer;
use super::super::permission::Admitted;
use super::super::refusal::Refusal;
use super::{Actions, Assembly, Copies, OnDisk, Receiver, Rules, Sequence, State, Stop, given_up, receipt};
use crate::engine::EngineError;
use crate::engine::step;
use crate::model::checktxt::mtime_of_unknown_unit;
use crate::model::{Checktxt, FileKind, FileRecord, Ignore, Metadata, MtimeUnit, SyncPath, Timestamp};
use crate::wire::Attributes;

impl Receiver {
    /// MKDIR, MKLINK, MKFIFO, MKCHR, MKBLK, MKSOCK.
    pub(in super::super) async fn make(
        &mut self,
        peer: &Peer,
        file: Admitted,
        kind: FileKind,
        attributes: Option<Attributes>,
    ) -> Result<(), Stop> {
        let (target, rules) = self.prepare(peer, &file).await.map_err(Stop::in_system_words)?;
        let ignore = rules.ignore;
        let backed_up = step("MK", move || target.back_up(&rules).map(|copies| (target, copies)));
        let (target, copies) = backed_up.await??;
        let beside = target.beside(&kind)?;
        let temp_name = beside.as_ref().map(|beside| beside.file_name().to_vec()).unwrap_or_default();
        // Sockets are not created: what is in their place goes all the same.
        let described = (kind != FileKind::Socket).then(|| described(&kind, ignore));
        let intent = self.begin(peer, &file.path, temp_name, described).await?;
        let attributes = attributes.into_iter().flat_map(|attributes| Attribute::all(&attributes));
        let made = step("MK", move || target.put(copies, &kind, beside.as_ref(), attributes, ignore));
        match made.await? {
            Ok(Made { outcome: Ok(()), left, .. }) => {
                self.saw(&file.path, left.clone());
                let is_there = left.is_some();
                let state = State::Made { place: file.place, intent, left };
                self.open = Some(Sequence { path: file.path, state });
                // In place of a socket nothing is left that attributes could follow for.
                if is_there { Ok(()) } else { self.finish(peer).await }
            }
            Ok(Made { outcome: Err(refusal), is_gone: true, .. }) => {
                // The way was cleared for nothing: that is no removal of ours, to be sent to everybody.
                self.unrecorded.push((intent, receipt(peer, file.path, OnDisk::default(), Actions::None)));
                Err(refusal.into())
            }
            Ok(Made { outcome: Err(refusal), .. }) | Err(refusal) => Err(given_up(peer, Some(intent), refusal).await),
        }
    }

    /// DEL.
    pub(in super::super) async fn delete(&mut self, peer: &Peer, file: Admitted) -> Result<(), Stop> {
        let (target, rules) = match self.prepare(peer, &file).await {
            Ok((target, rules)) if target.before.is_some() => (target, rules),
            // Nothing there, or nothing can be there: what was asked for is so.
            Ok(_) => {
                let gone = receipt(peer, file.path, OnDisk::default(), Actions::Schedule);
                return Ok(self.record_at_once(peer, gone).await?);
            }
            Err(Stop::Refused(refusal)) if refusal.is_absence() => {
                let gone = receipt(peer, file.path, OnDisk::default(), Actions::Schedule);
                return Ok(self.record_at_once(peer, gone).await?);
            }
            Err(stop) => return Err(stop),
        };
        let backed_up = step("DEL", move || target.back_up(&rules).map(|copies| (target, copies)));
        let (target, copies) = backed_up.await??;
        let intent = self.begin(peer, &file.path, Vec::new(), None).await?;
        let durable = peer.node.config.durable;
        let removed = step("DEL", move || {
            target.remove(copies)?;
            if durable { target.sync() } else { Ok(()) }
        });
        if let Err(refusal) = removed.await? {
            return Err(given_up(peer, Some(intent), refusal).await);
        }
        self.saw(&file.path, None);
        self.unrecorded.push((intent, receipt(peer, file.path, OnDisk::default(), Actions::Schedule)));
        Ok(())
    }

    /// SETOWN, SETMOD, SETIME.
    pub(in super::super) async fn set(
        &mut self,
        peer: &Peer,
        file: Admitted,
        attribute: Attribute,
    ) -> Result<(), Stop> {
        let ignore = peer.node.config.ignore;
        let is_last = matches!(attribute, Attribute::Time(_));
        let left = match &self.open {
            Some(Sequence { state: State::Assembled(assembly), .. }) => {
                // An open file of ours, its inode in memory: not worth a change of threads.
                assembly.new.set(attribute, ignore)?;
                return if is_last { self.finish(peer).await } else { Ok(()) };
            }
            Some(Sequence { state: State::Made { left, .. }, .. }) => left.clone(),
            None => self.seen.get(&file.path).filter(|_| is_last).cloned(),
        };
        let target = match left {
            None if is_last => self.prepare_for_time(peer, &file).await.map_err(Stop::in_system_words)?,
            None => self.prepare(peer, &file).await.map_err(Stop::in_system_words)?.0,
            Some(left) => {
                let place = file.place.clone();
                let target = step("SET", move || Target::find(&place)).await??;
                if target.before.as_ref().is_some_and(|now| !is_untouched(&left, now)) {
                    self.settle_as_left(peer).await?;
                    return Err(Refusal::ChangedMeanwhile.into());
                }
                target
            }
        };
        if let Some(Sequence { state: State::Made { left, .. }, .. }) = &mut self.open {
            let set = step("SET", move || {
                target.set(attribute, ignore)?;
                target.now()
            });
            let now = set.await??;
            left.clone_from(&now);
            self.saw(&file.path, now);
            return if is_last { self.finish(peer).await } else { Ok(()) };
        }
        self.set_alone(peer, file.path, target, attribute).await
    }

    /// Sets an attribute of a file that stays what it is otherwise.
    async fn set_alone(
        &mut self,
        peer: &Peer,
        path: SyncPath,
        target: Target,
        attribute: Attribute,
    ) -> Result<(), Stop> {
        let ignore = peer.node.config.ignore;
        let Some(before) = target.before.clone() else { return Err(Refusal::text("No such file or directory").into()) };
        if !attribute.is_set_on(&before, ignore) && target.has_other_names() {
            // It gets an inode of its own, as if its content had come too.
            let (visible, reserved) = self.reserve(peer, &path, &target, &Rules::default()).await?;
            let duplicate = step("SET", move || {
                let new = target.duplicate(visible.as_deref())?;
                new.set(attribute, ignore)?;
                Ok::<_, Refusal>((target, new))
            });
            let (target, new) = match duplicate.await? {
                Ok(duplicate) => duplicate,
                Err(refusal) => return Err(given_up(peer, reserved, refusal).await),
            };
            let copies = Copies::default();
            self.keep_assembled(path, Assembly { target, copies, new, reserved, actions: Actions::None });
            return if matches!(attribute, Attribute::Time(_)) { self.finish(peer).await } else { Ok(()) };
        }
        // The content is what it was: so is its digest, if the row was about this state.
        let known = peer.node.store.file(&path).await.map_err(EngineError::from)?;
        let digest =
            known.filter(|known| known.ctime_ns == Some(before.ctime.as_nanoseconds())).and_then(|known| known.digest);
        let state = |metadata: &Metadata| peer.node.record(path.clone(), metadata, None).checktxt;
        let after = state(&attribute.applied_to(&before, ignore));
        // The time of a directory is not part of its state.
        let intent =
            if after == state(&before) { None } else { Some(self.begin(peer, &path, Vec::new(), Some(after)).await?) };
        let durable = peer.node.config.durable;
        let set = step("SET", move || {
            target.set_durably(attribute, ignore, durable)?;
            target.now()
        });
        let now = match set.await? {
            Ok(now) => now,
            Err(refusal) => return Err(given_up(peer, intent, refusal).await),
        };
        self.saw(&path, now.clone());
        let set = receipt(peer, path, OnDisk { metadata: now, digest }, Actions::None);
        match intent {
            Some(intent) => {
                self.unrecorded.push((intent, set));
                Ok(())
            }
            None => Ok(self.record_at_once(peer, set).await?),
        }
    }

    /// Looks at a file whose time is set though the peer was not shown it lately. A directory's time comes after all that
    /// belongs in it: it needs a row that still describes it, or none, and no mark of ours.
    async fn prepare_for_time(&mut self, peer: &Peer, file: &Admitted) -> Result<Target, Stop> {
        let (place, store) = (file.place.clone(), &peer.node.store);
        let target = step("SETIME", move || Target::find(&place)).await??;
        if let Some(now) = target.before.as_ref().filter(|now| now.is_directory()) {
            let known = store.known(vec![file.path.clone()]).await?.pop().unwrap_or_default();
            if is_known(known.record.as_ref(), now, peer.node.config.ignore) && known.marks.is_empty() {
                return Ok(target);
            }
        }
        Ok(self.prepare(peer, file).await?.0)
    }

    /// Records what we made as we left it, so that what somebody did to it since shows as a change.
    async fn settle_as_left(&mut self, peer: &Peer) -> Result<(), Stop> {
        if self.open.is_some() { self.finish(peer).await } else { Ok(()) }
    }
}

/// Whether a directory is as its row says, or has none: what came into it since changed its time only.
pub(in super::super) fn is_known(row: Option<&FileRecord>, now: &Metadata, ignore: Ignore) -> bool {
    let state = Checktxt::of(now, ignore, MtimeUnit::Seconds);
    row.is_none_or(|row| row.checktxt.describes(&state, now.mtime))
}

/// The state that MK… makes, as far as the kind goes: owner, mode and time are not part of what `recover` compares.
pub(in super::super) fn described(kind: &FileKind, ignore: Ignore) -> Checktxt {
    let metadata = Metadata {
        kind: kind.clone(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        device: 0,
        inode: 0,
        links: 1,
    };
    Checktxt::of(&metadata, ignore, MtimeUnit::Seconds)
}

/// SETIME's number in the unit of the session, as far as that is known.
pub(in super::super) fn time_of(number: i64, unit: Option<MtimeUnit>) -> Timestamp {
    match unit {
        Some(MtimeUnit::Nanoseconds) => Timestamp::from_nanoseconds(number),
        _ => mtime_of_unknown_unit(number),
    }
}
