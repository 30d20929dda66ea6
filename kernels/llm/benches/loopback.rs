//! A server on loopback that answers every request after a fixed time, and the barest client of it: what
//! `benches/labelling.py` compares `argent run` with.
//!
//! ```text
//! loopback serve ANSWER_FILE MILLISECONDS        prints its port, then answers with the file until it is killed
//! loopback ask URL BODIES_FILE CONCURRENCY       posts each line of the file, prints the seconds that it took
//! ```

#![allow(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = |threads: usize| builder.worker_threads(threads).enable_all().build().unwrap();
    match words[..] {
        ["serve", answer, milliseconds] => {
            let answer = std::fs::read(answer).unwrap();
            let wait = Duration::from_millis(milliseconds.parse().unwrap());
            let mut runtime = runtime;
            runtime(1).block_on(serve(answer, wait));
        }
        ["ask", url, bodies, concurrency] => {
            let bodies = std::fs::read_to_string(bodies).unwrap();
            let bodies: Vec<String> = bodies.lines().map(str::to_owned).collect();
            let mut runtime = runtime;
            runtime(2).block_on(ask(url, bodies, concurrency.parse().unwrap()));
        }
        // `cargo bench` runs every bench without words.
        _ => println!("give `serve ANSWER_FILE MILLISECONDS` or `ask URL BODIES_FILE CONCURRENCY`"),
    }
}

async fn serve(answer: Vec<u8>, wait: Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    let reply: Arc<[u8]> = [head.as_bytes(), &answer].concat().into();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer_all(stream, reply.clone(), wait));
    }
}

/// Answers the requests of one connection until it is closed.
async fn answer_all(mut stream: TcpStream, reply: Arc<[u8]>, wait: Duration) {
    stream.set_nodelay(true).unwrap();
    let mut got: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let end = loop {
            if let Some(end) = request_end(&got) {
                break end;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
            }
        };
        got.drain(..end);
        tokio::time::sleep(wait).await;
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}

/// Where the first whole request ends.
fn request_end(got: &[u8]) -> Option<usize> {
    let head = got.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&got[..head]).to_lowercase();
    let length = text.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
    (got.len() >= head + length).then_some(head + length)
}

async fn ask(url: &str, bodies: Vec<String>, concurrency: usize) {
    // The program that this stands beside gives reqwest its provider of TLS too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let (bodies, next, answered) =
        (Arc::new(bodies), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..concurrency {
        let (client, url, bodies) = (client.clone(), url.to_owned(), bodies.clone());
        let (next, answered) = (next.clone(), answered.clone());
        tasks.push(tokio::spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = client.post(&url).header("content-type", "application/json").body(body.clone());
                let bytes = request.send().await.unwrap().bytes().await.unwrap();
                let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
                let labels: serde_json::Value = serde_json::from_str(text).unwrap();
                assert!(labels.is_object());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), bodies.len());
    println!("{}", start.elapsed().as_secs_f64());
}
