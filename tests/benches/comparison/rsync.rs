//! How rsync goes about a workload: to a daemon that is started for the connection.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;
use super::link::Server;
use super::measure::{Client, Measurement};
use super::source;
use super::workload::{Kind, Task};

pub(super) fn run(run: Run<'_>, fsync: bool, in_place: bool) -> Vec<(Task, Measurement)> {
    match run.workload.kind {
        Kind::Check | Kind::Huge => check(run),
        kind => {
            let mut options = match kind {
                Kind::Equal => vec!["-ac"],
                Kind::Removals => vec!["-a", "--delete"],
                Kind::Compare => vec!["-an"],
                _ => vec!["-a"],
            };
            options.extend(fsync.then_some("--fsync"));
            options.extend(in_place.then_some("--inplace"));
            vec![(run.workload.tasks()[0], push(run, &options))]
        }
    }
}

/// Dry runs, to an empty directory and to a copy.
fn check(run: Run<'_>) -> Vec<(Task, Measurement)> {
    let target = tempfile::tempdir().expect("make a directory");
    let dry_run = || {
        let target = target.path().to_str().expect("UTF-8");
        run.measure(&[rsync(&["-an"], &run.source.tree(), target).into()], &[])
    };
    let mut measurements = Vec::new();
    for &task in run.workload.tasks() {
        if task == Task::Unchanged {
            source::copy(&run.source.tree(), target.path());
        }
        measurements.push((task, dry_run()));
    }
    run.leave(target);
    measurements
}

fn push(run: Run<'_>, options: &[&str]) -> Measurement {
    let directory = tempfile::tempdir().expect("make a directory");
    let targets: Vec<PathBuf> =
        (0..run.workload.peers).map(|number| directory.path().join(number.to_string())).collect();
    let started = targets.iter().map(|target| {
        fs::create_dir(target).expect("make a directory");
        run.source.prepare(target);
        let config = target.with_extension("conf");
        let module =
            format!("[tree]\npath = {}\nuse chroot = no\nread only = no\nuid = root\ngid = root\n", target.display());
        fs::write(&config, module).expect("write a config");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("rsync://{}/tree/", listener.local_addr().expect("an address"));
        let mut command = Command::new("rsync");
        command.arg("--daemon").arg(format!("--config={}", config.display()));
        (rsync(options, &run.source.tree(), &url).into(), Server { listener, command, delay: run.delay() })
    });
    let (clients, servers): (Vec<Client>, Vec<Server>) = started.unzip();
    let measurement = run.measure(&clients, &servers);
    for target in &targets {
        run.source.assert_arrived(target);
    }
    run.leave(directory);
    measurement
}

fn rsync(options: &[&str], source: &Path, target: &str) -> Command {
    let mut command = Command::new("rsync");
    command.args(options).arg(format!("{}/", source.display())).arg(target);
    command
}
