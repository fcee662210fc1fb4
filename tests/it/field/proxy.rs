//! Networks that let nothing out but through a proxy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Emulate, Scratch, expect_text, fleetmint, run};

/// An address that is this machine's and that no rule takes for it, so that it is reached through a proxy if there is one.
const ELSEWHERE: &str = "[::ffff:127.0.0.1]:0";

/// What was asked of a proxy: target and `Proxy-Authorization`.
pub(super) type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A proxy that takes one user, in this process; it ends with it.
pub(super) fn proxy(authorization: &'static str) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&seen);
            thread::spawn(move || tunnel(client, authorization, &seen));
        }
    });
    (port, asked)
}

fn tunnel(mut client: TcpStream, authorization: &str, asked: &Asked) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
    let field = |line: &str| {
        line.split_once(": ")
            .filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
            .map(|(_, value)| value.to_owned())
    };
    let given = head.lines().find_map(field).unwrap_or_default();
    asked.lock().unwrap().push((target.clone(), given.clone()));
    if given != authorization {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n").ok()?;
        return None;
    }
    // Whatever the name, it is here.
    let port = target.rsplit(':').next()?.parse().ok()?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    back.join().ok()
}

/// An emulator's port.
pub(super) fn port_of(emulator: &Emulate) -> u16 {
    emulator.text("endpoint").trim_end_matches("/mqtt").rsplit(':').next().unwrap().parse().unwrap()
}

/// The names of the emulator's two doors as AWS's are; nothing but a proxy can tell where they are.
fn far_away(emulator: &Emulate) -> [String; 2] {
    let (region, port) = (emulator.text("region"), port_of(emulator));
    ["a1b2c3-ats.iot", "iot"].map(|name| format!("{name}.{region}.amazonaws.com:{port}"))
}

/// A run against these two doors, with nothing of this machine's network in its environment.
fn provision(emulator: &Emulate, doors: &[String; 2], lot: &Path) -> Command {
    let mut command = fleetmint();
    command
        .arg("provision")
        .arg(lot)
        .args(["--endpoint", &doors[0], "--control-endpoint", &format!("https://{}", doors[1])])
        .args(["--region", emulator.text("region"), "--template", emulator.text("template")])
        .args(["--ca-file", emulator.text("ca_file")])
        .env("AWS_ACCESS_KEY_ID", emulator.text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", emulator.text("secret_access_key"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// The operator behind a proxy with a password: neither door was ever reached.
#[test]
fn both_doors_go_through_the_proxy() {
    let (port, asked) = proxy("Basic b3BlcmF0b3I6cEBzcw==");
    let emulator = Emulate::start(&[]);
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 3);
    let doors = far_away(&emulator);
    let url = format!("http://operator:p%40ss@127.0.0.1:{port}");
    let said = run(provision(&emulator, &doors, &lot).env("HTTPS_PROXY", &url))
        .expect_code(0)
        .expect_err(&[&format!("through the proxy http://127.0.0.1:{port}")]);
    assert!(!said.err.contains("p@ss") && !said.err.contains("p%40ss"), "{}", said.err);
    let asked = asked.lock().unwrap().clone();
    for door in &doors {
        let found = asked.iter().any(|(target, given)| target == door && given.starts_with("Basic "));
        assert!(found, "{door}: {asked:?}");
    }
}

/// The same with a password that is wrong: it is named, and not shown.
#[test]
fn a_proxy_that_refuses_is_named_without_the_password() {
    let (port, _) = proxy("Basic b3BlcmF0b3I6cEBzcw==");
    let emulator = Emulate::start(&[]);
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let url = format!("http://operator:hunter2@127.0.0.1:{port}");
    let said = run(provision(&emulator, &far_away(&emulator), &lot).env("ALL_PROXY", &url))
        .expect_err(&["refuses its user and password", &format!("http://127.0.0.1:{port}")]);
    assert_ne!(said.code, Some(0));
    assert!(!said.err.contains("hunter2") && !said.err.contains("aHVudGVy"), "{}", said.err);
}

/// Names in NO_PROXY, and this machine, are reached without it.
#[test]
fn exceptions_and_loopback_never_go_through_it() {
    let (port, asked) = proxy("");
    let scratch = Scratch::new();
    let url = format!("http://127.0.0.1:{port}");
    let lot = scratch.lot("a.csv", 1);
    let emulator = Emulate::start(&[]);
    let here = ["localhost", "127.0.0.1"].map(|host| format!("{host}:{}", port_of(&emulator)));
    run(provision(&emulator, &here, &lot).env("HTTPS_PROXY", &url)).expect_code(0);
    let elsewhere = Emulate::start_on(ELSEWHERE, &[]);
    let lot = scratch.lot("b.csv", 1);
    let doors = [(); 2].map(|()| format!("[::ffff:127.0.0.1]:{}", port_of(&elsewhere)));
    let no_proxy = "example.com, ::ffff:127.0.0.1";
    run(provision(&elsewhere, &doors, &lot).env("https_proxy", &url).env("no_proxy", no_proxy))
        .expect_code(0);
    assert_eq!(asked.lock().unwrap().len(), 0);
}

/// Whoever has a SOCKS proxy in the environment: it is named and refused, unless it is not needed.
#[test]
fn socks_is_named_and_refused() {
    let emulator = Emulate::start_on(ELSEWHERE, &[]);
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let doors = [(); 2].map(|()| format!("[::ffff:127.0.0.1]:{}", port_of(&emulator)));
    let socks = "socks5h://u:hunter2@127.0.0.1:1080";
    let refused = run(provision(&emulator, &doors, &lot).env("ALL_PROXY", socks));
    expect_text("proxy-socks", &scratch, &refused, &[]);
    run(provision(&emulator, &doors, &lot).env("ALL_PROXY", "socks5h://127.0.0.1:1080").env("NO_PROXY", "*"))
        .expect_code(0);
}

/// The region that a name gives and the one that was typed: a signature for another is never right.
#[test]
fn a_region_that_contradicts_the_endpoint_is_refused() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    for endpoint in ["a1b2c3-ats.iot.eu-west-1.amazonaws.com", "a1b2c3.iot.cn-north-1.amazonaws.com.cn"] {
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).args([
            "--template",
            "T",
            "--endpoint",
            endpoint,
            "--region",
            "us-east-1",
        ]);
        run(&mut command).expect_code(64).expect_err(&["--region", "us-east-1"]);
    }
}
