//! `--join PEER`: brings this host into step with a running one. What both have alike is taken over without being sent; what is
//! missing or different here is pushed by the peer; what exists only here stays, and is named. Marks nothing for any other host,
//! asks for no removal, and leads to none: so nothing that runs loses anything by it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Run;
use crate::cli::Status;
use crate::engine::check::{CheckOptions, Marks};
use crate::engine::in_sync::{self, Difference, Fetched, Findings, Found, Options, Pair, Side, Willingness};
use crate::engine::membership::{self, Purpose};
use crate::engine::reach::{self, Listening};
use crate::engine::selection::Target;
use crate::model::{Checktxt, Scope, SyncPath};
use crate::store::{DirtyFilter, StoreError};

/// What a comparison comes to, for one pair.
#[derive(Debug, Default)]
struct Compared {
    equal: usize,
    /// Not here: to be pushed by the peer.
    missing: Vec<SyncPath>,
    /// Here in another state: likewise.
    different: Vec<SyncPath>,
    only_here: usize,
    /// Changed here since they were last known: not to be overwritten.
    changed_here: usize,
    /// Removed here since, and dirty: a push would remove them on the peer.
    removed_here: Vec<SyncPath>,
    /// Shared only in groups in which the peer is a slave, and may not push.
    from_a_slave: usize,
    /// In no group of ours that has both hosts: the configurations differ.
    not_shared: Vec<SyncPath>,
}

/// What the tables still say of the files that were asked for, and what there is to it.
#[derive(Debug, Default)]
struct Left {
    /// They have not come.
    failed: Vec<SyncPath>,
    /// They are gone where they were to come from.
    lost: Vec<SyncPath>,
    /// They are here as they are there. It is the table there that says otherwise: of the state at its last check.
    unchecked: Vec<SyncPath>,
    /// Of these, those that were so before.
    not_sent: usize,
}

/// Names in one query.
const CHUNK: usize = 1_000;

impl Compared {
    /// Whether the peer's table has no file that it shares with us.
    fn is_all_ours(&self) -> bool {
        let Self { equal, missing, different, only_here: _, changed_here, removed_here, from_a_slave, not_shared } =
            self;
        let lists = [missing, different, removed_here, not_shared];
        equal + changed_here + from_a_slave + lists.map(Vec::len).iter().sum::<usize>() == 0
    }
}

impl Run {
    pub(super) async fn join(&mut self, peer: &str) -> anyhow::Result<Status> {
        let pairs: Vec<Pair> = Pair::all(&self.node).into_iter().filter(|pair| pair.peer == peer).collect();
        if pairs.is_empty() {
            let peers: BTreeSet<String> = Pair::all(&self.node).into_iter().map(|pair| pair.peer).collect();
            let peers = peers.into_iter().collect::<Vec<_>>().join(" ");
            self.report
                .error(format_args!("ERROR: no group has both this host and {peer} in it. Its peers are: {peers}"));
            return Ok(Status::Failure);
        }
        if !self.is_ready_to_join(&pairs).await {
            return Ok(Status::Failure);
        }
        let options = CheckOptions {
            marks: Marks::Changes,
            forced: self.settings.mark_forced,
            allow_mass_removal: self.settings.allow_mass_removal,
        };
        self.check_targets(&[Target::everything()], options).await?;
        if self.report.errors > 0 || self.report.unfinished {
            return Ok(Status::Failure);
        }
        for pair in &pairs {
            self.join_pair(pair).await?;
            if self.report.unfinished {
                return Ok(Status::Failure);
            }
        }
        self.tell_of_other_groups(peer)?;
        Ok(Status::Success)
    }

    /// Whether the peer knows us, our groups and keys, and can reach us. What is in the way is counted.
    async fn is_ready_to_join(&mut self, pairs: &[Pair]) -> bool {
        for pair in pairs {
            if !self.settings.dry_run
                && let Listening::Nobody | Listening::Somebody =
                    reach::listening(&self.node.config, &pair.my_name, self.node.port).await
            {
                self.report.error(format_args!(
                    "ERROR: no csync2 listens on port {} of {}, where {} is to push. Start it (csync2 -ii, or systemctl start \
                     csync2.socket), then join again.",
                    self.node.port, pair.my_name, pair.peer
                ));
            }
            self.report.merge(in_sync::examine(&self.node, pair).await);
        }
        self.report.errors == 0
    }

    async fn join_pair(&mut self, pair: &Pair) -> anyhow::Result<()> {
        let Some(found) = self.compare_to_join(pair, true).await? else { return Ok(()) };
        self.tell(pair, &found)?;
        let wanted = [&found.missing[..], &found.different].concat();
        if self.settings.dry_run || wanted.is_empty() {
            return Ok(());
        }
        let (node, peer) = (self.node.clone(), &pair.peer);
        let before = self.states(&found.different).await?;
        let Some(fetched) = self.stop.run_until_cancelled(in_sync::fetch(&node, pair, &wanted)).await else {
            self.report.unfinished = true;
            return Ok(());
        };
        if fetched.willingness == Willingness::Unable {
            self.report.merge(fetched.report);
            let (config, my_name) = (self.config_option(), &pair.my_name);
            self.report.error(format_args!(
                "ERROR: {peer} cannot be asked for files: it runs another csync2. There, have it push them: `csync2{config} -TUI {peer} \
                 {my_name} && csync2{config} -u -P {my_name}`; then join again, to see that nothing is missing."
            ));
            return Ok(());
        }
        let Some(now) = self.compare_to_join(pair, false).await? else { return Ok(()) };
        let left = self.what_is_left(&wanted, &before, &fetched, now).await?;
        self.report.merge(fetched.report);
        self.tell_what_came(peer, wanted.len(), &left)
    }

    /// The states in which files are known.
    async fn states(&self, paths: &[SyncPath]) -> Result<HashMap<SyncPath, Checktxt>, StoreError> {
        let mut states = HashMap::new();
        for some in paths.chunks(CHUNK) {
            let records = self.node.store.records(some).await?;
            states.extend(records.into_iter().map(|record| (record.path, record.checktxt)));
        }
        Ok(states)
    }

    /// `before`: the states in which files were known that were here.
    async fn what_is_left(
        &self,
        wanted: &[SyncPath],
        before: &HashMap<SyncPath, Checktxt>,
        fetched: &Fetched,
        now: Compared,
    ) -> Result<Left, StoreError> {
        let asked: HashSet<&SyncPath> = wanted.iter().collect();
        let states = self.states(&now.different).await?;
        let mut left = Left::default();
        for path in now.missing {
            if fetched.lost.contains(&path) { left.lost.push(path) } else { left.failed.push(path) }
        }
        for path in now.different {
            let has_come = before.get(&path) != states.get(&path);
            if fetched.lost.contains(&path) {
                left.lost.push(path);
            } else if asked.contains(&path) && (has_come || fetched.willingness == Willingness::Pushed) {
                left.not_sent += usize::from(!has_come);
                left.unchecked.push(path);
            } else {
                left.failed.push(path);
            }
        }
        Ok(left)
    }

    fn tell_what_came(&mut self, peer: &str, wanted: usize, left: &Left) -> anyhow::Result<()> {
        let Left { failed, lost, unchecked, not_sent } = left;
        let arrived = wanted.saturating_sub(failed.len() + lost.len() + not_sent);
        self.say(&format!("{peer}: {arrived} files have come."))?;
        if let Some(first) = unchecked.first() {
            self.say(&format!(
                "{peer}: {} files have changed there since they were last checked, the first of them {first}: they are here as they \
                 are there now. Its table does not know it yet: csync2 -cr / there",
                unchecked.len()
            ))?;
        }
        if let Some(first) = lost.first() {
            self.say(&format!(
                "{peer}: {} files are gone there since they were last checked, the first of them {first}: they cannot come. Its table \
                 does not know it yet: csync2 -cr / there",
                lost.len()
            ))?;
        }
        if let Some(first) = failed.first() {
            self.report.error(format_args!(
                "ERROR: {peer}: {} files have not come, the first of them {first}. The log of {peer} says why; what is marked there goes \
                 with its next push. Join again when that is put right.",
                failed.len()
            ));
        }
        Ok(())
    }

    /// Compares the databases; with `listed` each difference is a line like those of `-T`. `None`: it could not be done.
    async fn compare_to_join(&mut self, pair: &Pair, listed: bool) -> anyhow::Result<Option<Compared>> {
        let dirty = self.node.store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await?;
        let dirty: HashSet<SyncPath> = dirty.into_iter().map(|entry| entry.path).collect();
        let mut findings: Option<Findings> = None;
        let take = |found: Findings| {
            findings = Some(found);
            Ok::<(), anyhow::Error>(())
        };
        let options = Options { announce: listed, ..Options::default() };
        let comparing = in_sync::compare(&self.node, vec![pair.clone()], &Scope::All, &options, take);
        let ended = self.stop.run_until_cancelled(comparing).await;
        self.report.unfinished |= ended.is_none();
        ended.transpose()?;
        let Some(Findings { found, equal, report, .. }) = findings else { return Ok(None) };
        let has_failed = report.errors > 0;
        self.report.merge(report);
        if has_failed {
            return Ok(None);
        }
        let mut compared = Compared { equal, ..Compared::default() };
        if let Found::Differences(differences) = found {
            for difference in differences.forwards()? {
                let difference = difference?;
                if listed {
                    super::in_sync::print_difference(&self.printer, pair, &difference)?;
                }
                self.sort(pair, difference, &dirty, &mut compared);
            }
        }
        self.printer.flush()?;
        Ok(Some(compared))
    }

    /// What becomes of a difference.
    fn sort(&self, pair: &Pair, difference: Difference, dirty: &HashSet<SyncPath>, compared: &mut Compared) {
        let Difference { side, path, .. } = difference;
        let hosts = membership::groups_of(&self.node.config, &path, Purpose::Sync).flat_map(|group| &group.hosts);
        let slave_in: Vec<bool> = hosts.filter(|host| host.name == pair.peer).map(|host| host.slave).collect();
        if side == Side::LocalOnly {
            compared.only_here += 1;
        } else if slave_in.is_empty() {
            compared.not_shared.push(path);
        } else if dirty.contains(&path) && side == Side::RemoteOnly {
            compared.removed_here.push(path);
        } else if dirty.contains(&path) {
            compared.changed_here += 1;
        } else if slave_in.iter().all(|&is_slave| is_slave) {
            compared.from_a_slave += 1;
        } else if side == Side::RemoteOnly {
            compared.missing.push(path);
        } else {
            compared.different.push(path);
        }
    }

    /// Says what was found. What keeps this host from being in step afterwards is counted.
    fn tell(&mut self, pair: &Pair, found: &Compared) -> anyhow::Result<()> {
        let Pair { my_name, peer } = pair;
        let Compared { equal, missing, different, only_here, changed_here, removed_here, from_a_slave, not_shared } =
            found;
        self.say(&format!(
            "{peer}: {equal} files are equal, and are not sent. {} are missing or different here: that host's are to come.",
            missing.len() + different.len()
        ))?;
        if *only_here > 0 {
            self.say(&format!(
                "{peer}: {only_here} exist only here (L): neither sent nor removed. To send one: csync2 -m FILE, then csync2 -u"
            ))?;
        }
        if *changed_here > 0 {
            self.say(&format!(
                "{peer}: {changed_here} were changed here and wait to be sent (csync2 -M): they stay as they are, and go with csync2 -u"
            ))?;
        }
        if *from_a_slave > 0 {
            self.say(&format!(
                "{peer}: {from_a_slave} are not to come from there, where it is a slave: join one that is none"
            ))?;
        }
        if found.is_all_ours() {
            let config = self.config_option();
            self.report.error(format_args!(
                "ERROR: {peer} knows no files that it shares with this host: `csync2{config} -cr /` there, then join again."
            ));
        }
        if let Some(first) = not_shared.first() {
            self.report.error(format_args!(
                "ERROR: {peer} has {} files for this host that no group here shares with it, the first of them {first}: they do not \
                 come. Compare csync2.cfg of both hosts, then join again.",
                not_shared.len()
            ));
        }
        if let Some(first) = removed_here.first() {
            let config = self.config_option();
            self.report.error(format_args!(
                "ERROR: {peer}: {} files that it has were removed here, the first of them {first}, and wait to be sent (csync2 -M): \
                 the next csync2 -u removes them there. To have one back instead: there, `csync2{config} -mF FILE && \
                 csync2{config} -u -P {my_name}`.",
                removed_here.len()
            ));
        }
        Ok(())
    }

    /// What a command line on the peer needs for it to be about this configuration.
    fn config_option(&self) -> String {
        let name = &self.node.config_name;
        if name.is_empty() { String::new() } else { format!(" -C {name}") }
    }

    /// Groups of this host that the peer is not in.
    fn tell_of_other_groups(&self, peer: &str) -> anyhow::Result<()> {
        let groups = self.node.config.groups.iter();
        let others = groups.filter(|group| !group.hosts.iter().any(|host| host.name == peer));
        let others: BTreeMap<&str, Vec<&str>> = others
            .map(|group| (group.name.as_str(), group.hosts.iter().map(|host| host.name.as_str()).collect()))
            .collect();
        for (group, hosts) in others {
            if !hosts.is_empty() {
                self.say(&format!("group {group} is not shared with {peer}: join one of {}, too", hosts.join(" ")))?;
            }
        }
        Ok(())
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        self.printer.line(&[text.as_bytes()])?;
        Ok(self.printer.flush()?)
    }
}
