//! A load generator that costs little beside what it measures: plain HTTP/1.1 over kept-alive connections, one request
//! in flight on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections of an open loop: requests that can be under way at a time.
const MAX_WAITING: usize = 512;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests answered as expected, each second.
    pub rate: f64,
    /// Requests answered otherwise; a run with any is worth nothing.
    pub unexpected: u64,
    /// Milliseconds.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Makes the n-th request of a run; `None` when there are no more.
pub type MakeRequest = Arc<dyn Fn(u64) -> Option<Vec<u8>> + Send + Sync>;

/// Renders a request.
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends requests over `connections` connections for a time, or until there are no more, each as soon as the one before it
/// was answered.
pub async fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    expected_status: u16,
    make: MakeRequest,
) -> std::io::Result<Outcome> {
    send(address, connections, time, expected_status, make, None).await
}

/// Sends requests at a steady rate for a time, whether or not those before were answered (an open loop). A request's
/// latency counts from when it was to be sent, so whatever keeps it waiting is in it.
pub async fn run_at_rate(
    address: SocketAddr,
    rate: f64,
    time: Duration,
    expected_status: u16,
    make: MakeRequest,
) -> std::io::Result<Outcome> {
    let pace = Arc::new(Pace { interval: Duration::from_secs_f64(1.0 / rate), due: Semaphore::new(0) });
    send(address, MAX_WAITING, time, expected_status, make, Some(pace)).await
}

/// Says when requests are due.
struct Pace {
    interval: Duration,
    due: Semaphore,
}

impl Pace {
    /// Finer than timers of the runtime, which go by milliseconds.
    fn run(&self, started: Instant, time: Duration) {
        const TICK: Duration = Duration::from_micros(100);
        let mut given = 0;
        while started.elapsed() < time {
            let due = (started.elapsed().as_secs_f64() / self.interval.as_secs_f64()) as usize;
            self.due.add_permits(due.saturating_sub(given));
            given = due.max(given);
            std::thread::sleep(TICK);
        }
        self.due.close();
    }
}

async fn send(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    expected_status: u16,
    make: MakeRequest,
    pace: Option<Arc<Pace>>,
) -> std::io::Result<Outcome> {
    let next = Arc::new(AtomicU64::new(0));
    let unexpected = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let started = Instant::now();
    let deadline = started + time;
    if let Some(pace) = pace.clone() {
        tokio::task::spawn_blocking(move || pace.run(started, time));
    }
    let mut tasks = Vec::with_capacity(connections);
    for mut stream in streams {
        let (next, unexpected, make) = (Arc::clone(&next), Arc::clone(&unexpected), Arc::clone(&make));
        let pace = pace.clone();
        tasks.push(tokio::spawn(async move {
            let mut buffer = Vec::with_capacity(8 * 1024);
            let mut latencies_us: Vec<u32> = Vec::new();
            while Instant::now() < deadline {
                if let Some(pace) = &pace {
                    let Ok(turn) = pace.due.acquire().await else { break };
                    turn.forget();
                }
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = make(n) else { break };
                let sent = match &pace {
                    None => Instant::now(),
                    Some(pace) => started + pace.interval.mul_f64(n as f64),
                };
                stream.write_all(&request).await?;
                let status = read_response(&mut stream, &mut buffer).await?;
                if status == expected_status {
                    latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                } else if unexpected.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("unexpected {status}: {}", String::from_utf8_lossy(&buffer));
                }
            }
            Ok::<_, std::io::Error>(latencies_us)
        }));
    }
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.map_err(std::io::Error::other)??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let percentile = |share: f64| {
        let at = ((latencies_us.len() as f64 * share) as usize).min(latencies_us.len().saturating_sub(1));
        latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    };
    Ok(Outcome {
        rate: latencies_us.len() as f64 / elapsed,
        unexpected: unexpected.load(Ordering::Relaxed),
        p50_ms: percentile(0.5),
        p99_ms: percentile(0.99),
    })
}

/// Reads one whole response, and answers its status.
async fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<u16> {
    buffer.clear();
    let mut head = None;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the service closed the connection"));
        }
        if head.is_none() {
            head = read_head(buffer)?;
        }
        if let Some(Head { status, whole }) = head
            && buffer.len() >= whole
        {
            return Ok(status);
        }
    }
}

/// What a response begins with.
#[derive(Clone, Copy)]
struct Head {
    status: u16,
    /// Bytes of head and body.
    whole: usize,
}

fn read_head(buffer: &[u8]) -> std::io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(buffer).map_err(std::io::Error::other)?;
    let httparse::Status::Complete(head_bytes) = parsed else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    Ok(Some(Head { status: response.code.unwrap_or(0), whole: head_bytes + length.unwrap_or(0) }))
}
