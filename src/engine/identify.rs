//! Which name of the configuration is this host's: said where its own name is none of them, and taken where that was
//! asked for (`--auto-name`).

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Names are looked up side by side; one that takes longer counts as unknown.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host names of a configuration, and those of them that resolve to an address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub all: BTreeSet<String>,
    pub ours: BTreeSet<String>,
}

impl Names {
    /// Looks the names up.
    pub async fn find(names: &[String]) -> Self {
        let own = own_addresses();
        let found = names.iter().zip(look_up(names).await);
        let ours = found.filter(|(_, addresses)| addresses.iter().any(|&address| is_own(&own, address)));
        Self { all: names.iter().cloned().collect(), ours: ours.map(|(name, _)| name.clone()).collect() }
    }

    /// The only name that can be this host's.
    pub fn only(&self) -> Option<&str> {
        match self.ours.len() {
            1 => self.ours.first().map(String::as_str),
            _ => None,
        }
    }

    /// What to do for a host of which no group knows.
    pub(super) fn advice(&self, auto_name: bool) -> String {
        if self.all.is_empty() {
            return "The configuration names no host at all.".to_owned();
        }
        let list = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let all = format!("The configuration names these hosts: {}.", list(&self.all));
        let found = match (self.ours.len(), auto_name) {
            (0, _) => "None of them resolves to an address of this machine.".to_owned(),
            (1, _) => format!("{} resolves to an address of this machine.", list(&self.ours)),
            (_, false) => format!("These resolve to an address of this machine: {}.", list(&self.ours)),
            (_, true) => {
                format!("These resolve to an address of this machine, so --auto-name takes none: {}.", list(&self.ours))
            }
        };
        let next = match self.only() {
            Some(name) => format!("Name this host with -N {name}, or with --auto-name."),
            None => "Choose one with -N NAME, or add this host to a group.".to_owned(),
        };
        format!("{all} {found} {next}")
    }
}

/// The addresses of each name, in their order; none for one that is unknown, or takes longer than a few seconds.
pub(super) async fn look_up(names: &[String]) -> Vec<Vec<IpAddr>> {
    let until = Instant::now() + PATIENCE;
    let lookups: Vec<_> = names.iter().cloned().map(begin_to_look_up).collect();
    let mut found = Vec::with_capacity(names.len());
    for lookup in lookups {
        found.push(timeout_at(until, lookup).await.ok().and_then(Result::ok).unwrap_or_default());
    }
    found
}

/// In a thread of its own: the end of a runtime would wait for a resolver that hangs.
fn begin_to_look_up(name: String) -> oneshot::Receiver<Vec<IpAddr>> {
    let (answer, receiver) = oneshot::channel();
    let work = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        // Nobody is left to tell when it took too long.
        let _ = answer.send(found.into_iter().flatten().map(|address| address.ip().to_canonical()).collect());
    };
    // Without a thread there is no answer, as from a resolver that hangs.
    drop(thread::Builder::new().name("resolver".to_owned()).spawn(work));
    receiver
}

/// Whether the addresses of another host's name are ours: one of them that of our name, or, where that leads to a loopback
/// address alone, as on Debian, of this machine. Several hosts on one machine have addresses, loopback ones too, of their own.
pub(super) fn lead_here(ours: &[IpAddr], theirs: &[IpAddr]) -> bool {
    let is_loopback_alone = !ours.is_empty() && ours.iter().all(IpAddr::is_loopback);
    let machine = if is_loopback_alone { own_addresses() } else { Vec::new() };
    theirs.iter().any(|address| ours.contains(address) || !address.is_loopback() && machine.contains(address))
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().map(|interface| interface.ip()).collect()
}

/// All of 127.0.0.0/8 is this machine's, though the interface has one address of it.
fn is_own(own: &[IpAddr], address: IpAddr) -> bool {
    address.is_loopback() || own.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str], ours: &[&str]) -> Names {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Names { all: set(all), ours: set(ours) }
    }

    #[test]
    fn only_a_single_name_is_taken() {
        assert_eq!(names(&["a", "b"], &["b"]).only(), Some("b"));
        assert_eq!(names(&["a", "b"], &["a", "b"]).only(), None);
        assert_eq!(names(&["a"], &[]).only(), None);
    }

    #[test]
    fn the_advice_names_what_can_be_named() {
        assert_eq!(
            names(&["b", "a"], &["a"]).advice(false),
            "The configuration names these hosts: a b. a resolves to an address of this machine. Name this host with \
             -N a, or with --auto-name."
        );
        let several = names(&["a", "b"], &["a", "b"]);
        assert!(several.advice(false).contains("These resolve to an address of this machine: a b. Choose one with -N"));
        assert!(several.advice(true).contains("so --auto-name takes none: a b."));
        assert_eq!(names(&[], &[]).advice(false), "The configuration names no host at all.");
        assert!(names(&["a"], &[]).advice(true).contains("None of them resolves to an address of this machine."));
    }

    #[tokio::test]
    async fn this_machine_has_its_own_addresses() {
        let hosts = ["localhost", "127.1.2.3", "198.51.100.1", "no.such.host.invalid"].map(str::to_owned);
        let found = Names::find(&hosts).await;
        assert_eq!(found.ours, ["127.1.2.3", "localhost"].map(str::to_owned).into());
        assert_eq!(found.all.len(), 4);
    }
}
