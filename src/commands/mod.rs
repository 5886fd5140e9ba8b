//! One function per mode, and what they have in common: open the node, do it, run the actions, report.

mod certificates;
mod check;
mod check_config;
mod compare;
mod force;
mod hint;
mod import;
mod in_sync;
mod init;
mod join;
pub mod keygen;
mod list;
mod mark;
mod operands;
mod outcome;
mod progress;
mod remove_old;
mod serve;
pub mod signals;
mod status;
mod systemd;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use indicatif::MultiProgress;
use tokio_util::sync::CancellationToken;

use self::progress::Bars;
use crate::cli::settings::duplicate_for_writing;
use crate::cli::{Invocation, Mode, Printer, Settings, Status};
use crate::engine::action::{self, Patience};
use crate::engine::directories::Directories;
use crate::engine::membership::Purpose;
use crate::engine::open::{NodeSettings, OpenError};
use crate::engine::tally::RunTally;
use crate::engine::{EngineError, Node, Report, recover};
use crate::model::Scope;
use crate::store::{DirtyFilter, ErrorKind, Location, StoreError};

/// What the modes work with.
#[derive(Debug)]
struct Run {
    node: Arc<Node>,
    settings: Settings,
    printer: Printer,
    /// `-W`
    directories: Option<Directories>,
    stop: CancellationToken,
    report: Report,
    /// What is counted on the way.
    tally: Arc<RunTally>,
    begun: Instant,
    /// What shows that.
    bars: Option<Bars>,
}

/// Does what the command line asks for and says how it ended; after the file in hand, when it is stopped.
///
/// # Errors
/// What stopped the run as a whole, ready to be shown.
pub async fn run(
    invocation: Invocation,
    printer: &Printer,
    screen: Option<&MultiProgress>,
    stop: CancellationToken,
) -> anyhow::Result<Status> {
    let begun = Instant::now();
    let Invocation { mode, settings } = invocation;
    let printer = &if settings.json { printer.as_json() } else { printer.clone() };
    let mode = match mode {
        Mode::NewKey { file } => {
            keygen::run(&file)?;
            return Ok(Status::Success);
        }
        Mode::NewCertificate => {
            certificates::make(&settings, printer)?;
            return Ok(Status::Success);
        }
        Mode::Init { hosts } => return Box::pin(init::run(&settings, &hosts, printer)).await,
        Mode::CheckConfig { operands } => return check_config::run(&settings, &operands, printer).await,
        Mode::ImportDatabase { from } => return import::run(&settings, &from, printer).await,
        Mode::Status { peers } => return status::run(&settings, &peers, printer).await,
        Mode::Serve(kind) => return Box::pin(serve::serve(kind, &settings, printer, &stop)).await,
        mode => mode,
    };
    let read_only = matches!(
        mode,
        Mode::ListHints
            | Mode::ListFiles
            | Mode::ListDirty
            | Mode::ListPair { .. }
            | Mode::ListCertificates { .. }
            | Mode::Compare { .. }
    );
    let directories = match settings.directories_to {
        Some(number) => Some(Directories::to(number, duplicate_for_writing(number)?)),
        None => None,
    };
    let node = open(&settings, read_only).await?;
    let (tally, letters) = (Arc::<RunTally>::default(), outcome::letters(&mode));
    let bars = screen.map(|screen| Bars::start(screen, &tally));
    let (printer, report) = (printer.clone(), Report::default());
    let mut run = Run { node, settings, printer, directories, stop, report, tally, begun, bars };
    let status = run.mode(mode).await?;
    run.bars = None;
    // Actions may take their time.
    run.printer.flush()?;
    run.report.merge(leftovers(&run.node, read_only, &run.stop).await?);
    if run.report.unfinished {
        run.tell_what_is_left().await?;
    }
    if let Some(mode) = letters {
        run.conclude(mode).await?;
    }
    Ok(run.finish(status))
}

/// Runs what is scheduled, by this run or one that was interrupted. A listing, and a run that an action
/// started, leaves to others what they are at; a listing everything when it may not write.
async fn leftovers(node: &Node, read_only: bool, stop: &CancellationToken) -> Result<Report, EngineError> {
    let none = BTreeSet::new();
    let patience = if read_only || action::is_within_one() { Patience::Only(&none) } else { Patience::Everything };
    match action::run(node, &recover::holder(), patience, stop).await {
        Err(EngineError::Store(error))
            if read_only && matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Refused) =>
        {
            tracing::debug!("The scheduled actions stay: {error}");
            Ok(Report::default())
        }
        ended => ended,
    }
}

/// What whoever administers a database's server has to do where it refuses us, line by line; nothing where that does not help.
fn remedy(location: &Location, error: &OpenError) -> Vec<String> {
    let statements = location.remedy(error);
    let heading =
        (!statements.is_empty()).then(|| "in psql, as the server's superuser (sudo -u postgres psql):".to_owned());
    heading.into_iter().chain(statements.into_iter().map(|statement| format!("    {statement}"))).collect()
}

fn node_settings(settings: &Settings, read_only: bool) -> NodeSettings {
    NodeSettings {
        system_dir: settings.system_dir.clone(),
        config_name: settings.config_name.clone(),
        my_name: settings.my_name.clone(),
        bind: settings.bind.clone(),
        auto_name: settings.auto_name,
        no_batches: settings.no_batches,
        no_legacy_tls: settings.no_legacy_tls,
        port: settings.port,
        groups: settings.groups.clone(),
        database: settings.database.clone(),
        asynchronous: settings.asynchronous,
        read_only,
    }
}

async fn open(settings: &Settings, read_only: bool) -> Result<Arc<Node>, OpenError> {
    let node = node_settings(settings, read_only).open().await?;
    if !read_only {
        recover::recover(&node).await?;
    }
    Ok(node)
}

impl Run {
    async fn mode(&mut self, mode: Mode) -> anyhow::Result<Option<Status>> {
        match mode {
            Mode::CheckAndUpdate { operands } => {
                self.check_operands(&operands).await?;
                self.update(&operands).await?;
            }
            Mode::Check { operands, then_update } => {
                self.check(&operands).await?;
                if then_update {
                    self.warn_about(&operands, Purpose::Sync)?;
                    self.update(&operands).await?;
                }
            }
            Mode::Update { operands } => {
                self.warn_about(&operands, Purpose::Sync)?;
                self.update(&operands).await?;
            }
            Mode::Hint { operands } => self.hint(&operands).await?,
            Mode::Compare { operands } => self.compare(&operands).await?,
            Mode::Mark { operands } => self.mark(&operands).await?,
            Mode::Force { operands } => self.force(&operands).await?,
            Mode::ListHints => return self.list_hints().await.map(Some),
            Mode::ListFiles => return self.list_files(None).await.map(Some),
            Mode::ListDirty => return self.list_dirty().await.map(Some),
            Mode::ListPair { my_name, peer } => return self.list_files(Some((&my_name, &peer))).await.map(Some),
            Mode::ListCertificates { peer } => return self.list_certificates(peer.as_deref()).await.map(Some),
            Mode::ForgetCertificate { peer } => self.forget_certificate(&peer).await?,
            Mode::RemoveOld => self.remove_old().await?,
            Mode::InSync { scope, diffs } => return self.in_sync(scope, diffs).await.map(Some),
            Mode::Join { peer } => return self.join(&peer).await.map(Some),
            Mode::Serve(_)
            | Mode::Status { .. }
            | Mode::NewKey { .. }
            | Mode::NewCertificate
            | Mode::Init { .. }
            | Mode::CheckConfig { .. }
            | Mode::ImportDatabase { .. } => {}
        }
        Ok(None)
    }

    /// Says of a run that was stopped what it leaves for others.
    async fn tell_what_is_left(&mut self) -> Result<(), StoreError> {
        let mut left: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for entry in self.node.store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::All] }).await? {
            *left.entry(entry.peer).or_default() += 1;
        }
        let peers = left.iter().map(|(peer, count)| format!("{count} for {peer}")).collect::<Vec<_>>().join(", ");
        let peers = if peers.is_empty() { "nothing".to_owned() } else { peers };
        self.report.error(format_args!(
            "ERROR: stopped by a signal before the end. Dirty so far: {peers}. What was not checked, sent or run yet is \
             left to the next csync2 -x."
        ));
        Ok(())
    }

    /// The closing lines, and the exit status: any counted error is a failure.
    fn finish(&self, status: Option<Status>) -> Status {
        self.report.conclude();
        if self.report.errors > 0 { Status::Failure } else { status.unwrap_or(Status::Success) }
    }
}
