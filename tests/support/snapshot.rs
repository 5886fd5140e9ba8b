//! The state of a cluster, kept to begin again from.

use std::process::Command;

use super::Postgres;
use super::cluster::{Cluster, Node};
use super::process::run;

/// A copy of a cluster's trees and databases.
pub(crate) struct Snapshot<'c> {
    cluster: &'c Cluster,
}

impl<'c> Snapshot<'c> {
    pub(crate) fn take(cluster: &'c Cluster) -> Self {
        let names = names(cluster);
        shell(&format!("cd '{}' && rm -rf saved && mkdir saved && cp -a {names} saved", cluster.directory().display()));
        copy_schema(cluster, "public", "saved");
        Snapshot { cluster }
    }

    pub(crate) fn restore(&self) {
        let names = names(self.cluster);
        let copy = format!("for n in {names}; do rm -rf $n/tree $n/db; cp -a saved/$n/tree saved/$n/db $n; done");
        shell(&format!("cd '{}' && {copy}", self.cluster.directory().display()));
        copy_schema(self.cluster, "saved", "public");
    }
}

/// The directories of the nodes, as words of a shell.
fn names(cluster: &Cluster) -> String {
    let names: Vec<_> = cluster.nodes().iter().filter_map(|node| node.base().file_name()?.to_str()).collect();
    names.join(" ")
}

/// In each node's PostgreSQL database: drops `to` and makes it anew from the tables of `from`.
fn copy_schema(cluster: &Cluster, from: &str, to: &str) {
    let statements = format!(
        "SET client_min_messages = warning; SET ROLE node; DROP SCHEMA IF EXISTS {to} CASCADE; CREATE SCHEMA {to};
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{from}' LOOP
                EXECUTE format('CREATE TABLE {to}.%I (LIKE {from}.%I INCLUDING ALL)', name, name);
                EXECUTE format('INSERT INTO {to}.%I SELECT * FROM {from}.%I', name, name);
            END LOOP;
        END $$"
    );
    for name in cluster.nodes().iter().filter_map(Node::database_name) {
        Postgres::shared().sql(name, &statements);
    }
}

fn shell(script: &str) {
    let mut command = Command::new("bash");
    command.args(["-ec", script]);
    run(command).success();
}
