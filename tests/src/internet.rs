//! A simulated machine on a simulated internet: two network namespaces, connected by a pair of virtual Ethernet
//! devices. The test, its emulator and all its processes run in the namespace of the machine; echo servers run in the
//! other one. Neither namespace is connected to the real network.
//!
//! The test runs in a second process, which runs this test program again, because only a process with one thread can
//! change its user namespace. The kernel removes the namespaces when their processes end, so there is nothing to clean
//! up.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    process::Command,
    sync::{Arc, mpsc},
};

use nix::sched::{CloneFlags, unshare};

use self::sys::start_in_new_network;
use crate::own_process::this_test_again;

// The emulator's tests include this file from another directory.
#[path = "sys.rs"]
mod sys;

/// Environment variable that tells the second process that it already runs in the namespace.
const MARK: &str = "ON_THE_INTERNET";

/// The address of the machine.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The first host of the internet. The addresses are reserved for documentation by RFC 5737.
pub const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The second host of the internet.
pub const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// The IPv6 address of the machine, reserved for documentation by RFC 3849.
pub const MACHINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The IPv6 address of the first host.
pub const HERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The port of the echo servers, TCP and UDP, on every host. The answer to a line is the address of the server, a blank
/// and the line.
pub const ECHO: u16 = 7000;
/// The port of the TLS servers on every host. They accept any server name and send their own address.
pub const TLS: u16 = 443;

/// The privileges of a test on the real machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// The privileges of the user who runs the test.
    Own,
    /// No privileges: the test runs in a user namespace with a single user, even if root started it.
    Nobodys,
}

/// Runs `test` on the simulated machine. It must be the whole body of the calling test.
///
/// # Panics
///
/// Panics if the test fails or the namespaces cannot be created.
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
    start_in_new_network(&mut again, shut_in.then_some(maps));
    let ended = again
        .status()
        .expect("this test creates namespaces: run it as root, or where users may create user namespaces");
    assert!(ended.success(), "the test failed on the simulated machine ({ended}); its output is above");
}

/// Creates the virtual devices and starts the servers, which end with the process.
fn connect() -> std::thread::JoinHandle<()> {
    let (told, tells) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let internet = std::thread::spawn(move || internet(&told, &is_ready));
    let id = tells.recv().expect("the internet thread ended early");
    ip(&format!("link add wire0 type veth peer name wire1 netns {id}"));
    ip("link set lo up");
    ip("link set wire0 up");
    ip(&format!("addr add {MACHINE}/24 dev wire0"));
    ip(&format!("addr add {MACHINE6}/64 dev wire0 nodad"));
    ready.send(()).expect("the internet thread ended early");
    tells.recv().expect("the internet thread ended early");
    internet
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("cannot start the program `ip` (package iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn internet(tell: &mpsc::Sender<i32>, cable: &mpsc::Receiver<()>) {
    // This changes the network namespace of the calling thread only.
    unshare(CloneFlags::CLONE_NEWNET).expect("cannot create a network namespace");
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
            // Reading keeps the connection open until the client closes it.
            let _ = tls.read_to_end(&mut Vec::new());
        });
    }
}
