//! The one table of options. The parser's definition, the help text (`usage`) and the man page are made from it, and the
//! completions from that definition (tests/packaging.rs): nothing about an option stands anywhere else but what it means.

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, Command, ValueHint};

use self::Section::{Database, KeyFile, Modifiers, Simple, WithFiles, WithoutFiles};
use self::Spelling::{Letter, Long};

/// The key of the operands in the parser's result.
pub(super) const OPERANDS: &str = "operands";

/// The modes, by letter or long name. `c` stands before `u`: of all pairs, only `-cu` is a mode.
pub(super) const MODES: [&str; 22] = [
    "x",
    "c",
    "u",
    "h",
    "o",
    "m",
    "f",
    "H",
    "L",
    "M",
    "S",
    "T",
    "R",
    "i",
    "status",
    "ls-ssl-cert",
    "rm-ssl-cert",
    "init",
    "join",
    "gen-ssl-cert",
    "check-config",
    "import-db",
];

/// An option.
#[derive(Debug)]
pub struct OptionRecord {
    pub spelling: Spelling,
    pub value: Value,
    /// Whether saying it again means more. Any option may be repeated; of a value the last counts.
    pub repeatable: bool,
    pub help: &'static [Help],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `-x`
    Letter(char),
    /// `--name`
    Long(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    None,
    /// Attached, or the next argument. Holds the value's name.
    Required(&'static str),
    /// Attached or not at all. Holds the value's name.
    Attached(&'static str),
    /// Not for getopt: counts only where the option and its value are the whole line. Holds the value's name.
    WholeLine(&'static str),
}

/// An entry of the help text; an option may have several, in different sections.
#[derive(Debug)]
pub struct Help {
    pub section: Section,
    /// The option with what may stand behind it: `-h [-r] file..`.
    pub synopsis: &'static str,
    pub text: &'static str,
}

/// The parts of the help text, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    WithFiles,
    Simple,
    WithoutFiles,
    Modifiers,
    Database,
    KeyFile,
}

const fn switch(letter: char, help: &'static [Help]) -> OptionRecord {
    OptionRecord { spelling: Letter(letter), value: Value::None, repeatable: false, help }
}

const fn counted(letter: char, help: &'static [Help]) -> OptionRecord {
    OptionRecord { repeatable: true, ..switch(letter, help) }
}

const fn valued(letter: char, value: Value, help: &'static [Help]) -> OptionRecord {
    OptionRecord { value, ..switch(letter, help) }
}

const fn long(name: &'static str, help: &'static [Help]) -> OptionRecord {
    OptionRecord { spelling: Long(name), value: Value::None, repeatable: false, help }
}

const fn long_valued(name: &'static str, value: &'static str, help: &'static [Help]) -> OptionRecord {
    OptionRecord { value: Value::Required(value), ..long(name, help) }
}

const fn help(section: Section, synopsis: &'static str, text: &'static str) -> Help {
    Help { section, synopsis, text }
}

/// Every option, in the order of the help text.
pub static OPTIONS: [OptionRecord; 56] = [
    switch('h', &[help(WithFiles, "-h [-r] file..", "Add (recursive) hints for check to db")]),
    switch(
        'c',
        &[
            help(WithFiles, "-c [-r] file..", "Check files and maybe add to dirty db"),
            help(WithoutFiles, "-c", "Check all hints in db and eventually mark files as dirty"),
        ],
    ),
    switch(
        'u',
        &[
            help(WithFiles, "-u [-d] [-r] file..", "Updates files if listed in dirty db"),
            help(WithoutFiles, "-u [-d]", "Update (transfer dirty files to peers and mark as clear)"),
        ],
    ),
    switch('o', &[help(WithFiles, "-o [-r] file..", "Create list of files in compare-mode")]),
    switch('f', &[help(WithFiles, "-f [-r] file..", "Force files to win next conflict resolution")]),
    switch('m', &[help(WithFiles, "-m file..", "Mark files in database as dirty")]),
    switch('x', &[help(Simple, "-x [-d] [[-r] file..]", "Run checks for all given files and update remote hosts.")]),
    switch('H', &[help(WithoutFiles, "-H", "List all pending hints from status db")]),
    switch('L', &[help(WithoutFiles, "-L", "List all file-entries from status db")]),
    switch('M', &[help(WithoutFiles, "-M", "List all dirty files from status db")]),
    switch(
        'S',
        &[help(WithoutFiles, "-S myname peername", "List file-entries from status db for this synchronization pair.")],
    ),
    counted(
        'T',
        &[
            help(WithoutFiles, "-T", "Test if everything is in sync with all peers."),
            help(WithoutFiles, "-T filename", "Test if this file is in sync with all peers."),
            help(WithoutFiles, "-T myname peername", "Test if this synchronization pair is in sync."),
            help(WithoutFiles, "-T myname peer file", "Test only this file in this sync pair."),
            help(WithoutFiles, "-TT", "As -T, but print the unified diffs."),
        ],
    ),
    switch('R', &[help(WithoutFiles, "-R", "Remove files from database which do not match config entries.")]),
    counted(
        'i',
        &[
            help(WithoutFiles, "-i", "Run in inetd server mode."),
            help(WithoutFiles, "-ii", "Run in stand-alone server mode."),
            help(WithoutFiles, "-iii", "Run in stand-alone server mode (one connect only)."),
        ],
    ),
    long(
        "status",
        &[help(
            WithoutFiles,
            "--status [peername..]",
            "Tell how things are: what waits for each peer, and how the last sessions and runs went. For people, and as a \
             plugin of Nagios.",
        )],
    ),
    long(
        "ls-ssl-cert",
        &[help(
            WithoutFiles,
            "--ls-ssl-cert [peername]",
            "List the certificates that are pinned for peers: fingerprint, key, subject and dates.",
        )],
    ),
    long(
        "rm-ssl-cert",
        &[help(
            WithoutFiles,
            "--rm-ssl-cert peername",
            "Forget the certificate that is pinned for a peer: the next one it shows is pinned.",
        )],
    ),
    long(
        "gen-ssl-cert",
        &[help(WithoutFiles, "--gen-ssl-cert", "Make a key and a certificate for this host, where there are none.")],
    ),
    long(
        "init",
        &[help(
            WithoutFiles,
            "--init [host..]",
            "Make csync2.cfg for this host and the given ones, a key and a certificate, where there are none, and say what is \
             still in the way.",
        )],
    ),
    long(
        "join",
        &[help(
            WithoutFiles,
            "--join peername",
            "Bring this host into step with a running one: take over what is equal, and have the rest pushed here.",
        )],
    ),
    long(
        "check-config",
        &[help(
            WithoutFiles,
            "--check-config [file..]",
            "Check csync2.cfg and warn about what it hardly means; of the given files, say why they are in a group or not.",
        )],
    ),
    long(
        "import-db",
        &[help(
            WithoutFiles,
            "--import-db database",
            "Copy the state that another database holds, of any csync2, into the one given by -D, which must be empty.",
        )],
    ),
    switch(
        'l',
        &[help(
            WithoutFiles,
            "-l",
            "Send some messages to syslog instead of stderr to not clobber the protocol in case stdout and stderr \
             point to the same fd. Default for inetd mode.",
        )],
    ),
    switch('r', &[help(Modifiers, "-r", "Recursive operation over subdirectories")]),
    switch('d', &[help(Modifiers, "-d", "Dry-run on all remote update operations")]),
    counted('v', &[help(Modifiers, "-v", "Say more about what is done. May be given up to three times.")]),
    valued(
        'C',
        Value::Required("config-name"),
        &[help(Modifiers, "-C config-name", "Use the configuration csync2_config-name.cfg and a database of its own.")],
    ),
    valued(
        'p',
        Value::Required("port"),
        &[help(Modifiers, "-p port", "Listen on this port and connect to it on the peers (default: 30865).")],
    ),
    switch(
        'B',
        &[help(
            Modifiers,
            "-B",
            "Do not block everything into big SQL transactions. This is always so: the option is accepted for old \
             scripts.",
        )],
    ),
    switch(
        'A',
        &[help(
            Modifiers,
            "-A",
            "Open database in asynchronous mode. This will cause data corruption if the operating system crashes or \
             the computer loses power.",
        )],
    ),
    valued(
        'N',
        Value::Required("address"),
        &[help(
            Modifiers,
            "-N address",
            "When running in stand-alone mode with -ii bind to a specific interface. You can pass either a hostname \
             or ip address. If used, this value must match exactly the host value in each csync2.cfg file.",
        )],
    ),
    switch(
        'I',
        &[help(
            Modifiers,
            "-I",
            "Init-run. Use with care and read the documentation first! You usually do not need this option unless \
             you are initializing groups with really large file lists.",
        )],
    ),
    switch('X', &[help(Modifiers, "-X", "Also add removals to dirty db when doing a -TI run.")]),
    switch('U', &[help(Modifiers, "-U", "Don't mark all other peers as dirty when doing a -TI run.")]),
    valued(
        'G',
        Value::Required("groups"),
        &[help(Modifiers, "-G Group1,Group2,Group3,...", "Only use these groups from config-file.")],
    ),
    valued(
        'P',
        Value::Required("peers"),
        &[help(
            Modifiers,
            "-P peer1,peer1,...",
            "Only update these peers (still mark all as dirty). Only show files for these peers in -o (compare) mode.",
        )],
    ),
    switch('F', &[help(Modifiers, "-F", "Add new entries to dirty database with force flag set.")]),
    switch('t', &[help(Modifiers, "-t", "Print timestamps to debug output (e.g. for profiling).")]),
    valued('s', Value::Required("filename"), &[help(Modifiers, "-s filename", "Print timestamps also to this file.")]),
    valued(
        'W',
        Value::Required("fd"),
        &[help(
            Modifiers,
            "-W fd",
            "Write a list of directories in which relevant files can be found to the specified file descriptor (when \
             doing a -c run). The directory names in this output are zero-terminated.",
        )],
    ),
    valued(
        'O',
        Value::Attached("filename"),
        &[help(
            Modifiers,
            "-O[filename]",
            "Write everything that -vvv would print to a file as well (default: a new file in /tmp). The name must \
             be attached to the option.",
        )],
    ),
    switch(
        'a',
        &[help(
            Modifiers,
            "-a",
            "Send files with their attributes in one step. This is done wherever the peer can; accepted for old scripts.",
        )],
    ),
    switch(
        'b',
        &[help(
            Modifiers,
            "-b",
            "Clear a peer's dirty entries in batches. This is always done; accepted for old scripts.",
        )],
    ),
    long(
        "auto-name",
        &[help(
            Modifiers,
            "--auto-name",
            "Where this host's name is in no group, take the only name in csync2.cfg that resolves to an address of \
             this machine.",
        )],
    ),
    long(
        "allow-mass-removal",
        &[help(
            Modifiers,
            "--allow-mass-removal",
            "Mark for removal what a check found gone even where it looks like a missing directory or an unmounted \
             file system.",
        )],
    ),
    long(
        "no-batches",
        &[help(
            Modifiers,
            "--no-batches",
            "Do not speak the batch dialect, which is for hosts that both run this program, but the one of older ones.",
        )],
    ),
    long(
        "no-legacy-tls",
        &[help(
            Modifiers,
            "--no-legacy-tls",
            "Refuse certificates with RSA keys below 2048 bits and those of X.509 version 1, ours included.",
        )],
    ),
    long_valued(
        "warning",
        "limit",
        &[help(
            Modifiers,
            "--warning limit",
            "With --status: exit with 1 when so many files wait for a peer, or one for so long: 100, 2h or 100,2h \
             (default: 1h).",
        )],
    ),
    long_valued("critical", "limit", &[help(Modifiers, "--critical limit", "The same, with 2 (default: 1d).")]),
    long(
        "json",
        &[help(
            Modifiers,
            "--json",
            "Print the results of -x, -c, -u, --status and the listings as JSON, an object a line.",
        )],
    ),
    long_valued(
        "metrics",
        "file",
        &[help(
            Modifiers,
            "--metrics file",
            "At the end of -x, -c, -u and --status write how things are for Prometheus (the node exporter's textfile \
             collector).",
        )],
    ),
    long(
        "no-progress",
        &[help(Modifiers, "--no-progress", "No progress bars, which -x, -c and -u show on a terminal.")],
    ),
    long("help", &[help(Modifiers, "--help", "Print this text.")]),
    long("version", &[help(Modifiers, "--version", "Print name and version.")]),
    valued('D', Value::Required("database"), &[help(Database, "-D database-dir or url", "default: /var/lib/csync2")]),
    valued('k', Value::WholeLine("filename"), &[help(KeyFile, "csync2 -k filename", "")]),
];

/// The record of `-letter`.
pub(super) fn by_letter(letter: char) -> Option<&'static OptionRecord> {
    OPTIONS.iter().find(|record| record.spelling == Letter(letter))
}

/// The record of `--name`.
pub(super) fn by_name(name: &str) -> Option<&'static OptionRecord> {
    OPTIONS.iter().find(|record| matches!(record.spelling, Long(long) if long == name))
}

/// The definition for clap: of the parser, and of whatever else is made from one.
#[must_use]
pub fn command() -> Command {
    let operands = Arg::new(OPERANDS).value_name("file").num_args(0..).value_parser(OsStringValueParser::new());
    let operands = operands.value_hint(ValueHint::AnyPath);
    Command::new("csync2")
        .version(env!("CARGO_PKG_VERSION"))
        .about("cluster synchronization tool")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .args(OPTIONS.iter().map(OptionRecord::argument))
        .arg(operands)
}

impl OptionRecord {
    fn argument(&self) -> Arg {
        let argument = match self.spelling {
            Letter(letter) => Arg::new(letter.to_string()).short(letter),
            Long(name) => Arg::new(name).long(name),
        };
        let text: Vec<&str> = self.help.iter().map(|entry| entry.text).collect();
        let argument = argument.help(text.join("; "));
        let value = |argument: Arg, name| {
            let hint = match name {
                "filename" => ValueHint::FilePath,
                "database" => ValueHint::AnyPath,
                "address" => ValueHint::Hostname,
                _ => ValueHint::Other,
            };
            let argument = argument.value_name(name).value_hint(hint);
            argument.action(ArgAction::Set).value_parser(OsStringValueParser::new())
        };
        match self.value {
            Value::None => argument.action(ArgAction::Count),
            Value::Required(name) | Value::WholeLine(name) => value(argument, name),
            Value::Attached(name) => {
                value(argument, name).num_args(0..=1).require_equals(true).default_missing_value("")
            }
        }
    }
}
