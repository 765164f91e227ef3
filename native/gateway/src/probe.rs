//! Asking a gateway on loopback, without an HTTP library: a few bytes out, a bounded answer back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use aasm_wire::shapes::Health;

use crate::{home, proof};

/// Longer answers than this are not asked for.
const LONGEST: u64 = 8 << 20;

/// The body of a 200 answer.
pub fn get(port: u16, path: &str, bearer: Option<&str>, timeout: Duration) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let authorization = bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // HTTP/1.0: the answer's end is the connection's end.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{authorization}\r\n")?;
    let (mut answer, deadline) = (Vec::new(), Instant::now() + timeout);
    let mut chunk = [0; 16 << 10];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if answer.len() as u64 > LONGEST || Instant::now() > deadline {
            return Err(io::Error::other("the answer does not end"));
        }
    }
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    let status = answer.get(9..12).unwrap_or_default();
    if status != b"200" {
        return Err(io::Error::other(format!("it answers with status {}", String::from_utf8_lossy(status))));
    }
    Ok(answer.split_off(end + 4))
}

/// The health of the gateway of this home; an error when somebody else answers.
pub fn health(port: u16, secret: &str, timeout: Duration) -> io::Result<Health> {
    let challenge = home::random_hex(16)?;
    let body = get(port, &format!("/healthz?challenge={challenge}"), None, timeout)?;
    let health: Health = serde_json::from_slice(&body)?;
    if health.proof.is_none() || health.proof != proof::health(secret, &challenge, port) {
        return Err(io::Error::other("what answers there is not the gateway of this home"));
    }
    Ok(health)
}
