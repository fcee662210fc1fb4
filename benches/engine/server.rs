//! The other side: TLS, a WebSocket and prepared answers, with as little work as it can be done with.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::packets::{self, DIGITS, Issued, Numbered};

/// Asks this program to be the server.
pub(crate) const ARGUMENT: &str = "--serve";

/// The server's process; ends with this.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    ca: Vec<u8>,
}

impl Child {
    pub(crate) fn start() -> Self {
        let program = std::env::current_exe().expect("a program has a path");
        let mut command = Command::new(program);
        let mut process = command
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("what runs can be run again");
        let mut said = BufReader::new(process.stdout.take().expect("its stdout is piped")).lines();
        let mut line = || said.next().expect("the server says two lines").expect("in UTF-8");
        let address = line().parse().expect("an address");
        let ca = line().into_bytes().chunks(2).map(hex).collect();
        Self { process, address, ca }
    }

    pub(crate) fn ca(&self) -> &[u8] {
        &self.ca
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(digits: &[u8]) -> u8 {
    let text = std::str::from_utf8(digits).expect("hexadecimal digits");
    u8::from_str_radix(text, 16).expect("hexadecimal digits")
}

/// Serves until stdin ends, which it does with whoever started this.
pub(crate) fn serve() {
    let identity =
        rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]).expect("a name for it");
    let der = identity.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .expect("the key is the certificate's");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    runtime.spawn(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        println!("{}", listener.local_addr().expect("it listens"));
        println!("{}", der.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let answers = Arc::new(Answers::new());
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answers) = (acceptor.clone(), answers.clone());
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true);
                if let Ok(stream) = acceptor.accept(tcp).await {
                    // A client that hangs up is done.
                    let _ = talk(stream, &answers).await;
                }
            });
        }
    });
    let _ = std::io::stdin().lines().count();
}

/// What is answered, framed.
struct Answers {
    connack: Vec<u8>,
    suback: Vec<u8>,
    pong: Vec<u8>,
    issued: Issued,
    registered: Numbered,
    devices: AtomicU64,
}

impl Answers {
    fn new() -> Self {
        Self {
            connack: frame(&packets::connack()),
            suback: frame(&packets::suback()),
            pong: frame(&[0xd0, 0]),
            issued: framed_issued(packets::issued()),
            registered: framed(packets::registered()),
            devices: AtomicU64::new(0),
        }
    }
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match packet.len() {
        length @ ..126 => bytes.push(length as u8),
        length => bytes.extend([126, (length >> 8) as u8, length as u8]),
    }
    bytes.extend_from_slice(packet);
    bytes
}

fn framed(answer: Numbered) -> Numbered {
    let bytes = frame(&answer.bytes);
    let shift = bytes.len() - answer.bytes.len();
    Numbered { bytes, holes: answer.holes.iter().map(|hole| hole + shift).collect() }
}

fn framed_issued(answer: Issued) -> Issued {
    let bytes = frame(&answer.bytes);
    let shift = bytes.len() - answer.bytes.len();
    Issued { id: answer.id + shift, serial: answer.serial + shift, bytes, ..answer }
}

async fn talk(mut stream: TlsStream<TcpStream>, answers: &Answers) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(8192);
    upgrade(&mut stream, &mut bytes).await?;
    let mut out = Vec::with_capacity(8192);
    loop {
        while let Some(end) = take_frame(&mut bytes, answers, &mut out) {
            if end {
                return stream.shutdown().await;
            }
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

async fn upgrade(stream: &mut TlsStream<TcpStream>, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    bytes.drain(..end);
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

/// Takes one frame of a client, and adds the answers to what is in it. `None` if there is none yet; true ends it all.
fn take_frame(bytes: &mut Vec<u8>, answers: &Answers, out: &mut Vec<u8>) -> Option<bool> {
    let (&opcode, &length) = (bytes.first()?, bytes.get(1)?);
    let (length, head) = match length & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        length => (usize::from(length), 2),
    };
    let end = head + 4 + length;
    if bytes.len() < end {
        return None;
    }
    let mask = [bytes[head], bytes[head + 1], bytes[head + 2], bytes[head + 3]];
    let payload = &mut bytes[head + 4..end];
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    if opcode & 0x0f == 8 {
        return Some(true);
    }
    let mut rest = &*payload;
    while !rest.is_empty() {
        let (packet, after) = split_packet(rest);
        answer(packet, answers, out);
        rest = after;
    }
    bytes.drain(..end);
    Some(false)
}

/// The first packet, and what follows it; a client of ours sends whole packets.
fn split_packet(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut length, mut at) = (0, 1);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            break;
        }
    }
    bytes.split_at(at + length)
}

fn answer(packet: &[u8], answers: &Answers, out: &mut Vec<u8>) {
    match packet[0] >> 4 {
        1 => out.extend_from_slice(&answers.connack),
        8 => out.extend_from_slice(&answers.suback),
        12 => out.extend_from_slice(&answers.pong),
        3 => {
            let at = if packet[1] & 0x80 == 0 { 2 } else { 3 };
            let topic_end = at + 2 + usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
            let id = u16::from_be_bytes([packet[topic_end], packet[topic_end + 1]]);
            out.extend_from_slice(&frame(&packets::puback(id)));
            let is_create = packet[at + 2..].starts_with(b"$aws/certificates");
            let start = out.len();
            // Spread out, as a hash is: certificate ids come in no order.
            let number = answers.devices.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if is_create {
                let issued = &answers.issued;
                out.extend_from_slice(&issued.bytes);
                let (serial, id) = issued.digits(number);
                out[start + issued.serial..][..serial.len()].copy_from_slice(serial.as_bytes());
                out[start + issued.id..][..id.len()].copy_from_slice(id.as_bytes());
                return;
            }
            out.extend_from_slice(&answers.registered.bytes);
            let number = format!("{number:0DIGITS$x}");
            for hole in &answers.registered.holes {
                out[start + hole..][..DIGITS].copy_from_slice(number.as_bytes());
            }
        }
        _ => {}
    }
}
