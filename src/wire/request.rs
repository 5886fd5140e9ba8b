//! The commands a client sends, as values: parsing and encoding of one line. No sockets, no meaning.
//!
//! Parsing is lenient where the C program is (blanks and tabs in any number, case of the command, missing fields count
//! as empty, what is beyond thirty fields is dropped) and strict where a guess could do harm: a number that is none is
//! refused.

use std::fmt::Write;

use crate::model::{Timestamp, encoding};

/// At most so many fields after the command count.
const MAX_FIELDS: usize = 30;

/// One command. `key` is the group's pre-shared key; `file` is decoded but not checked in any way: whether it is a
/// proper name is for the server to say, with an answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The TLS handshake follows.
    Ssl,
    /// Name of the configuration; empty: the server's own.
    Config {
        name: Vec<u8>,
    },
    /// Only these groups exist for the session.
    Group {
        names: Vec<String>,
    },
    /// The name under which the client acts.
    Hello {
        name: String,
    },
    /// `ATOMICPATCH` with nothing behind it: asks which dialect the server speaks.
    AtomicDialect,
    /// `BATCH LOWEST HIGHEST`: asks whether the server speaks one of these versions of the batch dialect.
    BatchDialect {
        lowest: u32,
        highest: u32,
    },
    /// `BATCH VERSION`: frames follow (see `batch`).
    Batch {
        version: u32,
    },
    Sig {
        key: String,
        file: Vec<u8>,
    },
    Mark {
        key: String,
        file: Vec<u8>,
    },
    /// The client wants the file: PUSH is to bring it.
    Fetch {
        key: String,
        file: Vec<u8>,
    },
    /// The server is to push what the client lacks.
    Push,
    Type {
        key: String,
        file: Vec<u8>,
    },
    GetTm {
        key: String,
        file: Vec<u8>,
    },
    GetSz {
        key: String,
        file: Vec<u8>,
    },
    Flush {
        key: String,
        file: Vec<u8>,
    },
    Del {
        key: String,
        file: Vec<u8>,
    },
    Patch {
        key: String,
        file: Vec<u8>,
    },
    AtomicPatch {
        key: String,
        file: Vec<u8>,
        attributes: Attributes,
    },
    /// The attributes stand there in the second dialect only.
    MkDir {
        key: String,
        file: Vec<u8>,
        attributes: Option<Attributes>,
    },
    /// `device` is the `st_rdev`; the C program sends none.
    MkChr {
        key: String,
        file: Vec<u8>,
        device: Option<u64>,
    },
    MkBlk {
        key: String,
        file: Vec<u8>,
        device: Option<u64>,
    },
    MkFifo {
        key: String,
        file: Vec<u8>,
    },
    MkLink {
        key: String,
        file: Vec<u8>,
        target: Vec<u8>,
    },
    MkSock {
        key: String,
        file: Vec<u8>,
    },
    SetOwn {
        key: String,
        file: Vec<u8>,
        uid: u32,
        gid: u32,
    },
    /// `mode` is the whole `st_mode`.
    SetMod {
        key: String,
        file: Vec<u8>,
        mode: u32,
    },
    /// `mtime` is in the unit of the session's dialect: seconds or nanoseconds since 1970.
    SeTime {
        key: String,
        file: Vec<u8>,
        mtime: i64,
    },
    /// `server` is the server's own name; no file: all of them.
    List {
        server: String,
        file: Option<Vec<u8>>,
        keys: Vec<String>,
    },
    Bye,
}

/// What the second dialect sends along with a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// The whole `st_mode`.
    pub mode: u32,
    /// Nanoseconds since 1970 on the wire.
    pub mtime: Timestamp,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing but blanks: the C program gives no answer inside a session.
    #[error("empty line")]
    Empty,
    #[error("unknown command")]
    Unknown,
    #[error("malformed command: {0}")]
    Malformed(&'static str),
}

impl Request {
    /// Reads one line, without its line end.
    ///
    /// # Errors
    /// [`RequestError`]: the line is empty, its command is none of ours, or one of its numbers is not one.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
        let command = words.next().ok_or(RequestError::Empty)?.to_ascii_uppercase();
        let mut fields =
            Fields { decoded: words.take(MAX_FIELDS).map(encoding::decode).collect::<Vec<_>>().into_iter() };
        let fields = &mut fields;

        if let Some(request) = Self::parse_session_command(&command, fields) {
            return Ok(request);
        }
        // Behind all of these stand a key and a file; `rest` is what follows them.
        let build: fn(String, Vec<u8>, &mut Fields) -> Result<Self, RequestError> = match command.as_slice() {
            b"SIG" => |key, file, _| Ok(Self::Sig { key, file }),
            b"MARK" => |key, file, _| Ok(Self::Mark { key, file }),
            b"FETCH" => |key, file, _| Ok(Self::Fetch { key, file }),
            b"TYPE" => |key, file, _| Ok(Self::Type { key, file }),
            b"GETTM" => |key, file, _| Ok(Self::GetTm { key, file }),
            b"GETSZ" => |key, file, _| Ok(Self::GetSz { key, file }),
            b"FLUSH" => |key, file, _| Ok(Self::Flush { key, file }),
            b"DEL" => |key, file, _| Ok(Self::Del { key, file }),
            b"PATCH" => |key, file, _| Ok(Self::Patch { key, file }),
            b"ATOMICPATCH" => |key, file, rest| Ok(Self::AtomicPatch { key, file, attributes: rest.attributes()? }),
            // Fewer than the four fields are no attributes: upstream ignores whatever follows the name.
            b"MKDIR" => |key, file, rest| {
                let attributes = if rest.decoded.len() < 4 { None } else { Some(rest.attributes()?) };
                Ok(Self::MkDir { key, file, attributes })
            },
            b"MKCHR" => |key, file, rest| Ok(Self::MkChr { key, file, device: rest.device()? }),
            b"MKBLK" => |key, file, rest| Ok(Self::MkBlk { key, file, device: rest.device()? }),
            b"MKFIFO" => |key, file, _| Ok(Self::MkFifo { key, file }),
            b"MKLINK" => |key, file, rest| Ok(Self::MkLink { key, file, target: rest.bytes() }),
            b"MKSOCK" => |key, file, _| Ok(Self::MkSock { key, file }),
            b"SETOWN" => |key, file, rest| Ok(Self::SetOwn { key, file, uid: rest.id()?, gid: rest.id()? }),
            b"SETMOD" => |key, file, rest| Ok(Self::SetMod { key, file, mode: rest.number("a mode is no number")? }),
            b"SETIME" => |key, file, rest| Ok(Self::SeTime { key, file, mtime: rest.number("a time is no number")? }),
            _ => return Err(RequestError::Unknown),
        };
        build(fields.text(), fields.bytes(), fields)
    }

    /// The commands that carry no key and file of one group.
    fn parse_session_command(command: &[u8], fields: &mut Fields) -> Option<Self> {
        Some(match command {
            b"SSL" => Self::Ssl,
            b"CONFIG" => Self::Config { name: fields.bytes() },
            b"GROUP" => {
                let names = fields.text();
                Self::Group { names: names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect() }
            }
            b"HELLO" => Self::Hello { name: fields.text() },
            b"ATOMICPATCH" if fields.decoded.len() == 0 => Self::AtomicDialect,
            b"BATCH" => Self::parse_batch(fields)?,
            b"LIST" => Self::List {
                server: fields.text(),
                file: Some(fields.bytes()).filter(|file| file != b"-"),
                keys: fields.decoded.by_ref().map(|key| text(&key)).collect(),
            },
            b"PUSH" => Self::Push,
            b"BYE" => Self::Bye,
            _ => return None,
        })
    }

    /// One number begins, two ask; anything else is no command.
    fn parse_batch(fields: &mut Fields) -> Option<Self> {
        let numbers: Option<Vec<u32>> =
            fields.decoded.by_ref().map(|field| std::str::from_utf8(&field).ok()?.parse().ok()).collect();
        match *numbers?.as_slice() {
            [version] => Some(Self::Batch { version }),
            [lowest, highest] => Some(Self::BatchDialect { lowest, highest }),
            _ => None,
        }
    }

    /// The line, with its `\n`. A name of some thousand bytes can make it longer than a peer reads: the connection
    /// refuses to send such a line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Line::new(self.command());
        match self {
            Self::Ssl | Self::AtomicDialect | Self::Push | Self::Bye => {}
            Self::BatchDialect { lowest, highest } => {
                line.number(lowest);
                line.number(highest);
            }
            Self::Batch { version } => line.number(version),
            Self::Config { name } => line.field(name),
            Self::Group { names } => line.field(names.join(",").as_bytes()),
            Self::Hello { name } => line.field(name.as_bytes()),
            Self::Sig { key, file }
            | Self::Mark { key, file }
            | Self::Fetch { key, file }
            | Self::Type { key, file }
            | Self::GetTm { key, file }
            | Self::GetSz { key, file }
            | Self::Flush { key, file }
            | Self::Del { key, file }
            | Self::Patch { key, file }
            | Self::MkFifo { key, file }
            | Self::MkSock { key, file } => line.key_and_file(key, file),
            Self::AtomicPatch { key, file, attributes } => {
                line.key_and_file(key, file);
                line.attributes(attributes);
            }
            Self::MkDir { key, file, attributes } => {
                line.key_and_file(key, file);
                if let Some(attributes) = attributes {
                    line.attributes(attributes);
                }
            }
            Self::MkChr { key, file, device } | Self::MkBlk { key, file, device } => {
                line.key_and_file(key, file);
                if let Some(device) = device {
                    line.number(device);
                }
            }
            Self::MkLink { key, file, target } => {
                line.key_and_file(key, file);
                line.field(target);
            }
            Self::SetOwn { key, file, uid, gid } => {
                line.key_and_file(key, file);
                line.id(*uid);
                line.id(*gid);
            }
            Self::SetMod { key, file, mode } => {
                line.key_and_file(key, file);
                line.number(mode);
            }
            Self::SeTime { key, file, mtime } => {
                line.key_and_file(key, file);
                line.number(mtime);
            }
            Self::List { server, file, keys } => {
                line.field(server.as_bytes());
                line.field(file.as_deref().unwrap_or(b"-"));
                for key in keys {
                    line.field(key.as_bytes());
                }
            }
        }
        line.finish()
    }

    /// The command word as it is sent.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Ssl => "SSL",
            Self::Config { .. } => "CONFIG",
            Self::Group { .. } => "GROUP",
            Self::Hello { .. } => "HELLO",
            Self::AtomicDialect | Self::AtomicPatch { .. } => "ATOMICPATCH",
            Self::BatchDialect { .. } | Self::Batch { .. } => "BATCH",
            Self::Sig { .. } => "SIG",
            Self::Mark { .. } => "MARK",
            Self::Fetch { .. } => "FETCH",
            Self::Push => "PUSH",
            Self::Type { .. } => "TYPE",
            Self::GetTm { .. } => "GETTM",
            Self::GetSz { .. } => "GETSZ",
            Self::Flush { .. } => "FLUSH",
            Self::Del { .. } => "DEL",
            Self::Patch { .. } => "PATCH",
            Self::MkDir { .. } => "MKDIR",
            Self::MkChr { .. } => "MKCHR",
            Self::MkBlk { .. } => "MKBLK",
            Self::MkFifo { .. } => "MKFIFO",
            Self::MkLink { .. } => "MKLINK",
            Self::MkSock { .. } => "MKSOCK",
            Self::SetOwn { .. } => "SETOWN",
            Self::SetMod { .. } => "SETMOD",
            Self::SeTime { .. } => "SETIME",
            Self::List { .. } => "LIST",
            Self::Bye => "BYE",
        }
    }
}

/// The decoded fields behind the command. A missing one counts as empty, as in the C program: an empty key or name
/// is then refused like any wrong one.
struct Fields {
    decoded: std::vec::IntoIter<Vec<u8>>,
}

impl Fields {
    fn bytes(&mut self) -> Vec<u8> {
        self.decoded.next().unwrap_or_default()
    }

    fn text(&mut self) -> String {
        text(&self.bytes())
    }

    fn number<T: std::str::FromStr>(&mut self, otherwise: &'static str) -> Result<T, RequestError> {
        let field = self.bytes();
        let digits = std::str::from_utf8(&field).ok();
        digits.and_then(|digits| digits.parse().ok()).ok_or(RequestError::Malformed(otherwise))
    }

    /// A uid or gid: the C program prints them as `int`, so 4294967294 may come as -2.
    fn id(&mut self) -> Result<u32, RequestError> {
        let otherwise = "an owner is no number";
        let number: i64 = self.number(otherwise)?;
        let signed = i32::try_from(number).map(i32::cast_unsigned);
        signed.or_else(|_| u32::try_from(number)).map_err(|_| RequestError::Malformed(otherwise))
    }

    fn device(&mut self) -> Result<Option<u64>, RequestError> {
        if self.decoded.len() == 0 { Ok(None) } else { self.number("a device is no number").map(Some) }
    }

    fn attributes(&mut self) -> Result<Attributes, RequestError> {
        Ok(Attributes {
            uid: self.id()?,
            gid: self.id()?,
            mode: self.number("a mode is no number")?,
            mtime: Timestamp::from_nanoseconds(self.number("a time is no number")?),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line in the making.
struct Line(String);

impl Line {
    fn new(command: &str) -> Self {
        Self(command.to_owned())
    }

    fn field(&mut self, value: &[u8]) {
        self.0.push(' ');
        self.0.push_str(&encoding::encode(value));
    }

    fn number(&mut self, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {value}");
    }

    /// As the C program prints and reads them: as `int`.
    fn id(&mut self, id: u32) {
        self.number(id.cast_signed());
    }

    fn key_and_file(&mut self, key: &str, file: &[u8]) {
        self.field(key.as_bytes());
        self.field(file);
    }

    fn attributes(&mut self, attributes: &Attributes) {
        self.id(attributes.uid);
        self.id(attributes.gid);
        self.number(attributes.mode);
        self.number(attributes.mtime.as_nanoseconds());
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push('\n');
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Request, RequestError> {
        Request::parse(line.as_bytes())
    }

    #[test]
    fn blanks_case_and_missing_fields_are_forgiven() {
        let sig = Request::Sig { key: "k".into(), file: b"%d%/a b".to_vec() };
        assert_eq!(parse("SIG k %25d%25/a%20b"), Ok(sig.clone()));
        assert_eq!(parse("  sig \t k\t%25d%25/a%20b   "), Ok(sig));
        assert_eq!(parse("SIG"), Ok(Request::Sig { key: String::new(), file: Vec::new() }));
        assert_eq!(parse("CONFIG "), Ok(Request::Config { name: Vec::new() }));
        assert_eq!(parse("config x1"), Ok(Request::Config { name: b"x1".to_vec() }));
        assert_eq!(parse(" \t "), Err(RequestError::Empty));
        assert_eq!(parse("SIGN k f"), Err(RequestError::Unknown));
        assert_eq!(parse("SI\rG k f"), Err(RequestError::Unknown));
    }

    #[test]
    fn numbers_must_be_numbers() {
        let own = |uid, gid| Request::SetOwn { key: "k".into(), file: b"/f".to_vec(), uid, gid };
        assert_eq!(parse("SETOWN k /f 1000 -2"), Ok(own(1000, u32::MAX - 1)));
        assert_eq!(parse("SETOWN k /f 4294967294 0"), Ok(own(u32::MAX - 1, 0)));
        for line in ["SETOWN k /f 1", "SETOWN k /f root 0", "SETOWN k /f 4294967296 0", "SETMOD k /f -1", "SETIME k /f"]
        {
            assert!(matches!(parse(line), Err(RequestError::Malformed(_))), "{line}");
        }
        assert_eq!(parse("SETIME k /f -1"), Ok(Request::SeTime { key: "k".into(), file: b"/f".to_vec(), mtime: -1 }));
    }

    #[test]
    fn both_dialects_are_understood() {
        assert_eq!(parse("ATOMICPATCH"), Ok(Request::AtomicDialect));
        assert_eq!(parse("BATCH 1 3"), Ok(Request::BatchDialect { lowest: 1, highest: 3 }));
        assert_eq!(parse("batch 1"), Ok(Request::Batch { version: 1 }));
        assert_eq!(parse("BATCH"), Err(RequestError::Unknown));
        assert_eq!(parse("BATCH one"), Err(RequestError::Unknown));
        let mtime = Timestamp { seconds: -1, nanoseconds: 999_999_999 };
        let attributes = Attributes { uid: 1, gid: 2, mode: 16872, mtime };
        let (key, file) = (String::from("k"), b"/d".to_vec());
        let patch = Request::AtomicPatch { key: key.clone(), file: file.clone(), attributes };
        assert_eq!(parse("ATOMICPATCH k /d 1 2 16872 -1"), Ok(patch));
        let long = Request::MkDir { key: key.clone(), file: file.clone(), attributes: Some(attributes) };
        assert_eq!(parse("MKDIR k /d 1 2 16872 -1"), Ok(long));
        assert_eq!(parse("MKDIR k /d"), Ok(Request::MkDir { key: key.clone(), file: file.clone(), attributes: None }));
        assert_eq!(parse("MKCHR k /d"), Ok(Request::MkChr { key: key.clone(), file: file.clone(), device: None }));
        assert_eq!(parse("MKCHR k /d 259"), Ok(Request::MkChr { key, file, device: Some(259) }));
        assert!(matches!(parse("ATOMICPATCH k /d 1 2 16872"), Err(RequestError::Malformed(_))));
    }

    #[test]
    fn thirty_fields_count() {
        let line = format!("LIST me - {}", "key ".repeat(40));
        let Ok(Request::List { server, file: None, keys }) = parse(&line) else { panic!("no LIST") };
        assert_eq!((server.as_str(), keys.len()), ("me", 28));
    }

    fn word() -> impl Strategy<Value = String> {
        "[A-Za-z0-9._]{1,20}"
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8.., 1..40)
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<i64>()).prop_map(|(uid, gid, mode, nanoseconds)| Attributes {
            uid,
            gid,
            mode,
            mtime: Timestamp::from_nanoseconds(nanoseconds),
        })
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            Just(Request::Ssl),
            Just(Request::Bye),
            Just(Request::AtomicDialect),
            Just(Request::Push),
            (word(), name()).prop_map(|(key, file)| Request::Fetch { key, file }),
            any::<(u32, u32)>().prop_map(|(lowest, highest)| Request::BatchDialect { lowest, highest }),
            any::<u32>().prop_map(|version| Request::Batch { version }),
            "[a-z0-9]{0,9}".prop_map(|name| Request::Config { name: name.into_bytes() }),
            prop::collection::vec("[a-z]{1,5}", 1..4).prop_map(|names| Request::Group { names }),
            word().prop_map(|name| Request::Hello { name }),
            (word(), name()).prop_map(|(key, file)| Request::Patch { key, file }),
            (word(), name(), attributes()).prop_map(|(key, file, attributes)| Request::AtomicPatch {
                key,
                file,
                attributes
            }),
            (word(), name(), prop::option::of(attributes())).prop_map(|(key, file, attributes)| Request::MkDir {
                key,
                file,
                attributes
            }),
            (word(), name(), prop::option::of(any::<u64>())).prop_map(|(key, file, device)| Request::MkBlk {
                key,
                file,
                device
            }),
            (word(), name(), name()).prop_map(|(key, file, target)| Request::MkLink { key, file, target }),
            (word(), name(), any::<u32>(), any::<u32>()).prop_map(|(key, file, uid, gid)| Request::SetOwn {
                key,
                file,
                uid,
                gid
            }),
            (word(), name(), any::<i64>()).prop_map(|(key, file, mtime)| Request::SeTime { key, file, mtime }),
            (word(), prop::option::of("/[a-z ]{0,9}"), prop::collection::vec(word(), 0..5))
                .prop_map(|(server, file, keys)| Request::List { server, file: file.map(String::into_bytes), keys }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_back(request in request()) {
            let line = request.encode();
            prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
            prop_assert_eq!(Request::parse(&line[..line.len() - 1]), Ok(request));
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Request::parse(&line);
        }

        #[test]
        fn no_fields_make_the_parser_panic(
            command in "(ATOMICPATCH|MKDIR|MKCHR|SETOWN|SETMOD|SETIME|LIST|GROUP|MKLINK)",
            fields in "[ \t0-9%-]{0,60}",
        ) {
            let _ = Request::parse(format!("{command} {fields}").as_bytes());
        }
    }
}
