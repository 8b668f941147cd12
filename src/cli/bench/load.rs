//! A load generator that costs little beside what it measures: plain HTTP/1.1 over kept-alive connections, one request
//! in flight on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Sends requests over `connections` connections for a time, or until there are no more.
pub async fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    expected_status: u16,
    make: MakeRequest,
) -> std::io::Result<Outcome> {
    let next = Arc::new(AtomicU64::new(0));
    let unexpected = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let deadline = started + time;
    let mut tasks = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (next, unexpected, make) = (Arc::clone(&next), Arc::clone(&unexpected), Arc::clone(&make));
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = Vec::with_capacity(8 * 1024);
            let mut latencies_us: Vec<u32> = Vec::new();
            while Instant::now() < deadline {
                let Some(request) = make(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let sent = Instant::now();
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
    let mut whole = None;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the service closed the connection"));
        }
        if whole.is_none()
            && let Some(end) = find(buffer, b"\r\n\r\n")
        {
            whole = Some(end + 4 + content_length(&buffer[..end]));
        }
        if whole.is_some_and(|whole| buffer.len() >= whole) {
            let status = buffer.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
            return Ok(status.and_then(|code| code.parse().ok()).unwrap_or(0));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}
