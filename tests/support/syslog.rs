//! A syslog daemon of a test's own, which a program finds at /dev/log: in a mount namespace, so that the machine's stays
//! as it is.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::process::wrap;

/// Gives the program a /dev of its own, with a link to the socket in it.
const IN_A_NAMESPACE: &str = r#"
set -e
mount -t tmpfs none "$1"
for device in null zero urandom random; do
    touch "$1/$device"
    mount --bind "/dev/$device" "$1/$device"
done
ln -s "$2" "$1/log"
mount --rbind "$1" /dev
shift 2
exec "$@"
"#;

/// What programs told it, in datagrams.
pub(crate) struct Syslog {
    directory: TempDir,
    datagrams: mpsc::Receiver<String>,
}

/// Ends what has been said before it.
const END: &str = "end";

impl Syslog {
    /// Reads at once: the C program waits for a syslog daemon that does not.
    pub(crate) fn start() -> Syslog {
        let directory = tempfile::tempdir().expect("make a directory");
        std::fs::create_dir(directory.path().join("dev")).expect("make a directory");
        let socket = UnixDatagram::bind(directory.path().join("log")).expect("make a socket");
        let (sender, datagrams) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 10_000];
            while let Ok(length) = socket.recv(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Syslog { directory, datagrams }
    }

    /// The command, with this syslog at /dev/log.
    pub(crate) fn serving(&self, command: &Command) -> Command {
        let path = |name: &str| self.directory.path().join(name).to_str().expect("UTF-8").to_owned();
        wrap(&["unshare", "-m", "sh", "-c", IN_A_NAMESPACE, "sh", &path("dev"), &path("log")], command)
    }

    /// What has come in since the last time, each message as `<priority> text` without time and process.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<String> {
        self.say(END);
        let mut messages = Vec::new();
        for datagram in self.datagrams.iter().take_while(|datagram| datagram != END) {
            let (priority, rest) = datagram.split_once('>').expect("a priority");
            let (header, text) = rest.split_once("]: ").expect("a header");
            assert!(header.contains(" csync2["), "{datagram}");
            messages.push(format!("{priority}> {}", text.trim_end_matches('\n')));
        }
        messages
    }

    fn say(&self, text: &str) {
        let socket = UnixDatagram::unbound().expect("make a socket");
        socket.send_to(text.as_bytes(), self.directory.path().join("log")).expect("send");
    }
}

impl Drop for Syslog {
    /// The thread ends with the next datagram that nobody wants.
    fn drop(&mut self) {
        self.datagrams = mpsc::channel().1;
        self.say(END);
    }
}
