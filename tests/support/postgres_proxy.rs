//! Stands between a program and its PostgreSQL server, and lets one statement fail as a server or a network does.
//!
//! What fails is real: a refused statement is replaced by one that raises the error on the server, which gives up the
//! transaction it is in; a connection that is cut is closed at both ends, before the server has seen the statement or after
//! it has answered.

#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Makes the function that raises errors; in the database, before the proxy is used.
pub(crate) const RAISE: &str = "CREATE FUNCTION raise_injected(state text) RETURNS void LANGUAGE plpgsql AS \
     $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = state; END $$";

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server refuses it with this SQLSTATE.
    Refuse(&'static str),
    /// The server never sees it, and the connection is gone.
    CutBefore,
    /// The server carries it out, and the connection is gone before its answer arrives.
    CutAfter,
}

/// A proxy; it serves until the process ends.
pub(crate) struct PostgresProxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    /// Statements to let pass before it.
    left: usize,
    fired: bool,
    connections: Vec<TcpStream>,
}

impl PostgresProxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let accepting = Arc::clone(&plan);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let plan = Arc::clone(&accepting);
                thread::spawn(move || drop(serve(client, server, &plan)));
            }
        });
        Self { port, plan }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The statement behind `before` others meets this fault, on whatever connection.
    pub(crate) fn arm(&self, fault: Fault, before: usize) {
        let mut plan = self.plan();
        (plan.fault, plan.left, plan.fired) = (Some(fault), before, false);
    }

    /// Nothing fails any more. Returns whether something did.
    pub(crate) fn disarm(&self) -> bool {
        let mut plan = self.plan();
        plan.fault = None;
        plan.fired
    }

    /// Cuts all connections.
    pub(crate) fn cut_all(&self) {
        for connection in self.plan().connections.drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ours of the statements that are counted.
fn next_fault(plan: &Mutex<Plan>) -> Option<Fault> {
    let mut plan = lock(plan);
    let fault = plan.fault?;
    if plan.left > 0 {
        plan.left -= 1;
        return None;
    }
    (plan.fault, plan.fired) = (None, true);
    Some(fault)
}

/// Answers that are due, and whether the connection ends when the last of them is there.
#[derive(Default)]
struct Due {
    answers: usize,
    cut: bool,
}

fn serve(mut client: TcpStream, server: u16, plan: &Arc<Mutex<Plan>>) -> io::Result<()> {
    let mut startup = untyped(&mut client)?;
    if startup[4..8] == 80_877_103_u32.to_be_bytes() {
        // TLS: not here.
        client.write_all(b"N")?;
        startup = untyped(&mut client)?;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        lock(plan).connections.push(stream.try_clone()?);
    }
    server.write_all(&startup)?;
    // The server is ready once without being asked.
    let due = Arc::new(Mutex::new(Due { answers: 1, cut: false }));
    let back = (server.try_clone()?, client.try_clone()?, Arc::clone(&due));
    let answering = thread::spawn(move || {
        let (mut server, mut client, due) = back;
        drop(answer(&mut server, &mut client, &due));
        end(&server, &client);
    });
    drop(ask(&mut client, &mut server, plan, &due));
    if !lock(&due).cut {
        end(&server, &client);
    }
    drop(answering.join());
    Ok(())
}

fn end(server: &TcpStream, client: &TcpStream) {
    drop((server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both)));
}

/// Passes on what the client says, with the fault in it.
fn ask(client: &mut TcpStream, server: &mut TcpStream, plan: &Mutex<Plan>, due: &Mutex<Due>) -> io::Result<()> {
    let mut ends_behind_sync = false;
    loop {
        let mut message = typed(client)?;
        let is_query = message[0] == b'Q';
        if is_query && body(&message).windows(12).any(|text| text == b"lock_timeout") {
            // A new connection is made ready, also for what refuses statements.
            let prepare = |state| format!("; PREPARE \"{state}\" AS SELECT raise_injected('{state}')");
            let prepared = ["40001", "40P01"].map(prepare).concat();
            message = query(&[body(&message), prepared.as_bytes()].concat());
        } else if (is_query && body(&message) != b"ROLLBACK") || message[0] == b'B' {
            match next_fault(plan) {
                None => {}
                Some(Fault::Refuse(state)) => {
                    // A COMMIT that fails has ended the transaction.
                    let end = if is_query && body(&message) == b"COMMIT" { "ROLLBACK; " } else { "" };
                    message = if is_query {
                        query(format!("{end}SELECT raise_injected('{state}')").as_bytes())
                    } else {
                        bind(state)
                    };
                }
                Some(Fault::CutBefore) => return Ok(()),
                Some(Fault::CutAfter) => ends_behind_sync = true,
            }
        }
        let is_last = ends_behind_sync && matches!(message[0], b'Q' | b'S');
        if matches!(message[0], b'Q' | b'S') {
            let mut due = lock(due);
            due.answers += 1;
            due.cut = is_last;
        }
        server.write_all(&message)?;
        if is_last {
            return Ok(());
        }
    }
}

/// Passes on what the server answers.
fn answer(server: &mut TcpStream, client: &mut TcpStream, due: &Mutex<Due>) -> io::Result<()> {
    loop {
        let message = typed(server)?;
        if message[0] == b'Z' {
            let mut due = lock(due);
            due.answers -= 1;
            if due.cut && due.answers == 0 {
                return Ok(());
            }
        }
        client.write_all(&message)?;
    }
}

/// A message without a type: its length, and the rest.
fn untyped(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message)?;
    let length = u32::from_be_bytes(message[..4].try_into().expect("four bytes"));
    message.resize(length.max(4) as usize, 0);
    stream.read_exact(&mut message[4..])?;
    Ok(message)
}

fn typed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok([&kind[..], &untyped(stream)?].concat())
}

/// What stands in a query, without the NUL at its end.
fn body(query: &[u8]) -> &[u8] {
    &query[5..query.len() - 1]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &[u8]) -> Vec<u8> {
    message(b'Q', &[text, b"\0"].concat())
}

/// Binds a prepared statement without parameters to the unnamed portal.
fn bind(statement: &str) -> Vec<u8> {
    message(b'B', &[b"\0", statement.as_bytes(), b"\0", &[0; 6]].concat())
}
