//! The `csync2` program: reads the command line, runs it, says how it ended.

use std::io::IsTerminal;
use std::process::ExitCode;

use csync2::cli::output::OutputError;
use csync2::cli::{self, Environment, Invocation, Mode, Parsed, Printer, ServeMode, Status};
use csync2::commands;
use csync2::commands::signals;
use csync2::logging::{self, Guard, LogOptions};
use csync2::memory;
use indicatif::MultiProgress;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    memory::share();
    let printer = Printer::stdout();
    let status = match cli::parse(std::env::args_os(), &Environment::of_process()) {
        Parsed::Run(invocation) => run(*invocation, &printer),
        Parsed::Help => print(&printer, &cli::usage(), Status::Success),
        Parsed::Version => print(&printer, &format!("csync2 {}\n", env!("CARGO_PKG_VERSION")), Status::Success),
        Parsed::Locked(path) => print(&printer, &format!("Found {}\n", path.display()), Status::Failure),
        Parsed::Usage { complaint } => {
            if let Some(line) = complaint {
                eprintln!("{line}");
            }
            print(&printer, &cli::usage(), Status::Failure)
        }
        Parsed::Refused { line, log } => start_log(&log, None).map_or_else(
            |status| status,
            |_log| {
                tracing::warn!("{line}");
                Status::Failure
            },
        ),
    };
    status.into()
}

fn print(printer: &Printer, text: &str, status: Status) -> Status {
    match printer.bytes(text.as_bytes()).and_then(|()| printer.flush()) {
        Ok(()) => status,
        Err(OutputError::ReaderGone) => Status::ReaderGone,
        Err(error) => {
            eprintln!("{error}");
            Status::Failure
        }
    }
}

/// A log that cannot be opened is said in what there is of it: with `-i`, stderr may be the peer.
fn start_log(options: &LogOptions, screen: Option<&MultiProgress>) -> Result<Guard, Status> {
    logging::init(options, screen).map_err(|error| {
        let _log = logging::init(&options.without_files(), None);
        tracing::warn!("{error}");
        Status::Failure
    })
}

fn run(invocation: Invocation, printer: &Printer) -> Status {
    let screen = screen(&invocation);
    let log = match start_log(&invocation.settings.log, screen.as_ref()) {
        Ok(log) => log,
        Err(status) => return status,
    };
    // A listing does one thing after the other, and a process that serves one peer waits for it and works for it in turns:
    // starting threads would take longer than they could save.
    let mut threads = match invocation.mode {
        Mode::ListHints
        | Mode::Status { .. }
        | Mode::ListFiles
        | Mode::ListDirty
        | Mode::ListPair { .. }
        | Mode::ListCertificates { .. }
        | Mode::NewCertificate
        | Mode::Serve(ServeMode::Inherited) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match threads.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::warn!("cannot start: {error}");
            return Status::Failure;
        }
    };
    let work = async {
        // Our caller may have left SIGCHLD ignored, and then nobody can wait for a child. A handler ends that.
        let _children = signal(SignalKind::child());
        let stop = CancellationToken::new();
        if ends_in_good_order(&invocation.mode) {
            signals::stop_on_the_first(&stop);
        }
        commands::run(invocation, printer, screen.as_ref(), stop).await
    };
    match runtime.block_on(work) {
        Ok(status) => {
            log.finish();
            status
        }
        Err(error) if matches!(error.downcast_ref(), Some(OutputError::ReaderGone)) => Status::ReaderGone,
        Err(error) => {
            tracing::warn!("{}", csync2::model::errors::chain(error.as_ref()));
            Status::Failure
        }
    }
}

/// Where bars are shown: on a terminal, of a run that may take long.
fn screen(invocation: &Invocation) -> Option<MultiProgress> {
    let takes_long = matches!(invocation.mode, Mode::CheckAndUpdate { .. } | Mode::Check { .. } | Mode::Update { .. });
    let is_wanted = takes_long && !invocation.settings.no_progress && std::io::stderr().is_terminal();
    is_wanted.then(MultiProgress::new)
}

/// Whether the mode does work that has a good place to stop. Others are over soon, or only print.
fn ends_in_good_order(mode: &Mode) -> bool {
    matches!(
        mode,
        Mode::CheckAndUpdate { .. } | Mode::Check { .. } | Mode::Update { .. } | Mode::InSync { .. } | Mode::Serve(_)
    )
}
