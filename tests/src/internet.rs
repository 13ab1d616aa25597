//! A made-up machine on a made-up internet: two network namespaces and a cable between them. The test, its emulator and
//! all that it starts are on the machine; servers are at the other end. Nothing of the real network is in either.
//!
//! The test runs in a second process, made by running this test program again, since only a process with one thread can
//! change its user namespace. The namespaces go with their processes, so nothing has to be cleaned up.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    process::Command,
    sync::{Arc, mpsc},
};

use nix::sched::{CloneFlags, unshare};

use crate::own_process::this_test_again;

/// Says to a test program that it is on the machine already.
const MARK: &str = "ON_THE_INTERNET";

/// The machine's own address.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Two hosts of the internet. (Addresses set aside for documentation, RFC 5737.)
pub const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The other.
pub const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// The machine in IPv6.
pub const MACHINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The first host in IPv6.
pub const HERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// On both: answers every line it gets with its own address, a blank and the line; over TCP and UDP.
pub const ECHO: u16 = 7000;
/// On both: accepts TLS for any name, and says its own address.
pub const TLS: u16 = 443;

/// What a test may do to the real machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// What whoever runs it may.
    Own,
    /// Nothing: even root is shut in, as its only user, in a user namespace, where it may do no more than anybody else.
    Nobodys,
}

/// Runs a test on the machine: the one that calls this, which has to be the whole of it.
///
/// # Panics
///
/// With the test, or if the machine cannot be made.
pub fn on_the_internet(powers: Powers, test: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        let _internet = connect();
        return test();
    }
    let root = nix::unistd::geteuid().is_root();
    let shut_in = powers == Powers::Nobodys || !root;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    let mut again = this_test_again();
    again.env(MARK, "");
    // Safety: system calls and short writes only, on what was prepared above.
    unsafe {
        again.pre_exec(move || {
            if !shut_in {
                return Ok(unshare(CloneFlags::CLONE_NEWNET)?);
            }
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            maps.iter().try_for_each(|(file, map)| std::fs::write(file, map))
        });
    }
    let ended = again.status().expect("this test makes namespaces: run it as root, or where users may make their own");
    assert!(ended.success(), "it failed on the made-up machine ({ended}); its output is above");
}

/// Lays the cable and starts the servers; they end with the process.
fn connect() -> std::thread::JoinHandle<()> {
    let (told, tells) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let internet = std::thread::spawn(move || internet(&told, &is_ready));
    let id = tells.recv().expect("the other end");
    ip(&format!("link add wire0 type veth peer name wire1 netns {id}"));
    ip("link set lo up");
    ip("link set wire0 up");
    ip(&format!("addr add {MACHINE}/24 dev wire0"));
    ip(&format!("addr add {MACHINE6}/64 dev wire0 nodad"));
    ready.send(()).expect("the other end");
    tells.recv().expect("servers");
    internet
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("the program `ip` (package iproute2) is needed to make a network");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn internet(tell: &mpsc::Sender<i32>, cable: &mpsc::Receiver<()>) {
    // Of this thread alone.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    tell.send(nix::unistd::gettid().as_raw()).unwrap();
    cable.recv().unwrap();
    ip("link set lo up");
    for address in [HERE, THERE] {
        ip(&format!("addr add {address}/24 dev wire1"));
    }
    ip(&format!("addr add {HERE6}/64 dev wire1 nodad"));
    ip("link set wire1 up");
    let mut servers = Vec::new();
    for address in [HERE.into(), THERE.into(), HERE6.into()] {
        let tcp = TcpListener::bind((address, ECHO)).unwrap();
        servers.push(std::thread::spawn(move || echo(&tcp, address)));
        let udp = UdpSocket::bind((address, ECHO)).unwrap();
        servers.push(std::thread::spawn(move || echo_datagrams(&udp, address)));
        let tls = TcpListener::bind((address, TLS)).unwrap();
        servers.push(std::thread::spawn(move || speak_tls(&tls, address)));
    }
    tell.send(0).unwrap();
    for server in servers {
        let _ = server.join();
    }
}

fn echo(listener: &TcpListener, address: IpAddr) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                if stream.write_all(format!("{address} {line}\n").as_bytes()).is_err() {
                    break;
                }
            }
        });
    }
}

fn echo_datagrams(socket: &UdpSocket, address: IpAddr) {
    let mut buffer = [0; 65_535];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let answer = [address.to_string().as_bytes(), b" ", &buffer[..length]].concat();
        let _ = socket.send_to(&answer, peer);
    }
}

fn speak_tls(listener: &TcpListener, address: IpAddr) {
    let made = rcgen::generate_simple_self_signed(["anything".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    for stream in listener.incoming() {
        let (mut stream, config) = (stream.unwrap(), config.clone());
        std::thread::spawn(move || {
            let mut tls = rustls::ServerConnection::new(config).unwrap();
            let mut tls = rustls::Stream::new(&mut tls, &mut stream);
            let _ = tls.write_all(format!("{address}\n").as_bytes());
            // Until the client has had enough.
            let _ = tls.read_to_end(&mut Vec::new());
        });
    }
}
