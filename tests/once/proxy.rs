//! A proxy before Postgres that knows just enough of its protocol to break a connection at the worst moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

/// What happens to a query.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection breaks, and the server never sees it.
    CutBefore,
    /// The connection breaks when the server has seen half of it.
    CutInside,
    /// The connection breaks when the server has all of it; nobody waits for what it does.
    CutWhileRunning,
    /// The connection breaks when the server has answered; the answer is lost.
    CutAfter,
    /// The server does it, and its answer is held back for ever.
    Silence,
    /// It is done and answered, and what is asked next waits for a word.
    Pause(Arc<Pause>),
}

/// The two sides of a pause.
#[derive(Debug, Default)]
pub struct Pause {
    pub reached: Notify,
    pub go_on: Notify,
}

#[derive(Debug, Default)]
struct Shared {
    /// Faults that wait for a query that begins so; each strikes once.
    armed: Mutex<Vec<(&'static str, Fault)>>,
    refuses: AtomicBool,
    /// Replies travel together as far as possible, as they do through a slow network.
    gathers: AtomicBool,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Stands before the database of an address.
    pub async fn before(url: &str) -> Self {
        let (front, rest) = url.rsplit_once('@').expect("an address with a password");
        let (server, database) = rest.split_once('/').expect("a database");
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let in_task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if in_task.refuses.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(relay(client, server, Arc::clone(&in_task)));
            }
        });
        // It listens for what is said, and does not understand a question about encryption.
        Self { url: format!("{front}@{own}/{database}?sslmode=disable"), shared }
    }

    /// The next query that begins so meets this fault.
    pub fn arm(&self, query: &'static str, fault: Fault) {
        self.shared.armed.lock().expect("unpoisoned").push((query, fault));
    }

    /// Whether new connections are turned away.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    pub fn gather_replies(&self) {
        self.shared.gathers.store(true, Ordering::Relaxed);
    }
}

async fn relay(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (told, mut cut) = mpsc::channel(1);
    // Replies counted by their end ("ready for query"), and whether they still reach the client.
    let (ready, answered) = watch::channel(0usize);
    let silent = Arc::new(AtomicBool::new(false));
    let back = tokio::spawn(replies(from_server, to_client, ready, Arc::clone(&silent), Arc::clone(&shared)));
    let forth = tokio::spawn(queries(from_client, to_server, answered, silent, shared, told));
    // Either side's end, or a fault, ends both at once: dropped halves close their sockets.
    cut.recv().await;
    back.abort();
    forth.abort();
}

/// From server to client. Counts the replies, and swallows them when it is told to be silent.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ready: watch::Sender<usize>,
    silent: Arc<AtomicBool>,
    shared: Arc<Shared>,
) {
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut chunk = buffer[..read].to_vec();
        if shared.gathers.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            while let Ok(read @ 1..) = from.try_read(&mut buffer) {
                chunk.extend_from_slice(&buffer[..read]);
            }
        }
        pending.extend_from_slice(&chunk);
        let mut ended = 0;
        while let Some(message) = take_message(&mut pending) {
            ended += usize::from(message[0] == b'Z');
        }
        if !silent.load(Ordering::Relaxed) && to.write_all(&chunk).await.is_err() {
            break;
        }
        ready.send_modify(|count| *count += ended);
    }
    // The client must learn of the server's end.
    let _ = to.shutdown().await;
}

/// From client to server, message by message.
async fn queries(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut answered: watch::Receiver<usize>,
    silent: Arc<AtomicBool>,
    shared: Arc<Shared>,
    told: mpsc::Sender<()>,
) {
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut statements: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut fault: Option<Fault> = None;
    let mut asked = 0;
    let mut started = false;
    'connection: while let Ok(read @ 1..) = from.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..read]);
        if !started {
            // The first message has no type; it is small, and nothing follows it before the server has answered.
            started = true;
            // It is answered with a "ready for query" of its own.
            asked += 1;
            if to.write_all(&std::mem::take(&mut pending)).await.is_err() {
                break;
            }
            continue;
        }
        while let Some(message) = take_message(&mut pending) {
            let body = &message[5..];
            match message[0] {
                b'P' => {
                    let (name, rest) = text(body);
                    statements.insert(name.to_vec(), text(rest).0.to_vec());
                }
                b'B' => {
                    let (_, rest) = text(body);
                    let query = statements.get(text(rest).0).cloned().unwrap_or_default();
                    fault = fault.or_else(|| strike(&shared, &query));
                }
                b'S' => asked += 1,
                b'Q' => {
                    asked += 1;
                    fault = fault.or_else(|| strike(&shared, body));
                }
                _ => {}
            }
            match &fault {
                Some(Fault::CutBefore) => break 'connection,
                Some(Fault::CutInside) => {
                    let _ = to.write_all(&message[..message.len() / 2]).await;
                    break 'connection;
                }
                Some(Fault::CutAfter | Fault::Silence | Fault::CutWhileRunning) => {
                    silent.store(true, Ordering::Relaxed);
                }
                Some(Fault::Pause(_)) | None => {}
            }
            if to.write_all(&message).await.is_err() {
                break 'connection;
            }
            // A query ends with a sync, or is a simple one.
            if !matches!(message[0], b'S' | b'Q') {
                continue;
            }
            match fault.take() {
                Some(Fault::CutAfter) => {
                    let _ = answered.wait_for(|count| *count >= asked).await;
                    break 'connection;
                }
                Some(Fault::CutWhileRunning) => break 'connection,
                Some(Fault::Silence) => std::future::pending::<()>().await,
                Some(Fault::Pause(pause)) => {
                    let _ = answered.wait_for(|count| *count >= asked).await;
                    pause.reached.notify_one();
                    pause.go_on.notified().await;
                }
                _ => {}
            }
        }
    }
    let _ = told.send(()).await;
}

fn strike(shared: &Shared, query: &[u8]) -> Option<Fault> {
    let mut armed = shared.armed.lock().expect("unpoisoned");
    let at = armed.iter().position(|(begin, _)| query.starts_with(begin.as_bytes()))?;
    Some(armed.remove(at).1)
}

/// Takes the first whole message off: its type, its length, and the rest.
fn take_message(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(pending.get(1..5)?.try_into().ok()?) as usize + 1;
    (pending.len() >= length).then(|| pending.drain(..length).collect())
}

/// The text up to the next zero, and what follows it.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}
