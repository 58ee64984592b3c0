//! Several hosts on one machine: network namespaces on a bridge that has a namespace of its own, so that
//! nothing of the machine's own network is touched.
//!
//! A link between two of them is cut as a cable is: packets leave, and nobody gets them. Each host knows
//! the others by fixed MAC addresses; to cut a link is to tell both ends a wrong one, which the bridge
//! carries to nobody. So no packet filter is needed, and an established connection notices nothing
//! but silence.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::skipped;

/// What the names of our namespaces begin with; the id of the process that has made them comes next.
const PREFIX: &str = "quartet-test";

/// Where `ip` has them.
const NAMESPACES: &str = "/run/netns";

/// Nobody has the MAC address with this number.
const NOBODY: u8 = 0xff;

/// The most hosts of a network.
const HOSTS_MAX: usize = 250;

/// Hosts that reach each other. Dropping it removes them; what runs on one loses its network then.
pub struct Network {
    bridge: String,
    hosts: Vec<Host>,
}

/// A host: a namespace with a loopback interface and an address.
#[derive(Clone)]
pub struct Host {
    namespace: String,
    number: u8,
}

impl Network {
    /// A network of this many hosts; `None`, and a word of it, if there can be none here.
    ///
    /// # Panics
    /// If there are too many.
    #[track_caller]
    pub fn new(hosts: usize) -> Option<Self> {
        static NETWORKS: AtomicUsize = AtomicUsize::new(0);
        assert!(hosts <= HOSTS_MAX);
        remove_those_of_the_dead();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}", std::process::id());
        let host = |number: usize| Host {
            namespace: format!("{name}-{number}"),
            number: number as u8,
        };
        let network = Self {
            bridge: format!("{name}-bridge"),
            hosts: (1..=hosts).map(host).collect(),
        };
        if !network.make() {
            skipped("no network namespaces can be made here");
            return None;
        }
        Some(network)
    }

    fn make(&self) -> bool {
        let bridge = "link add bridge type bridge\nlink set bridge up\n";
        add(&self.bridge)
            && batch(&self.bridge, bridge)
            && self.hosts.iter().all(|host| self.connect(host))
    }

    /// Makes a host and its cable.
    fn connect(&self, host: &Host) -> bool {
        let (number, bridge, addr) = (host.number, &self.bridge, host.addr());
        let mac = mac(number);
        let cable = format!(
            "link add eth0 address {mac} type veth peer name port{number} netns {bridge}\n\
             addr add {addr}/24 dev eth0\nlink set lo up\nlink set eth0 up\n"
        );
        let neighbours = self.hosts.iter().filter(|other| other.number != number);
        let neighbours = neighbours.map(|other| neighbour(other, other.number));
        let plug = format!("link set port{number} master bridge up\n");
        add(&host.namespace)
            && batch(&host.namespace, &(cable + &neighbours.collect::<String>()))
            && batch(bridge, &plug)
    }

    /// One of the hosts, counted from 0.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// From now on no packet goes from one of the two to the other, or back.
    #[track_caller]
    pub fn cut(&self, a: &Host, b: &Host) {
        a.find(b, NOBODY);
        b.find(a, NOBODY);
    }

    /// The link between the two is whole again.
    #[track_caller]
    pub fn heal(&self, a: &Host, b: &Host) {
        a.find(b, b.number);
        b.find(a, a.number);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(&host.namespace);
        }
        remove(&self.bridge);
    }
}

impl Host {
    /// Its address in the network.
    pub fn addr(&self) -> IpAddr {
        Ipv4Addr::new(10, 18, 0, self.number).into()
    }

    /// A program that runs on it. A signal to the child is one to the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(self.words()).arg(program.as_ref());
        command
    }

    /// Moves the calling thread onto it for as long as it runs, with all that it connects to and starts from now on.
    #[track_caller]
    pub fn enter(&self) {
        let namespace = File::open(Path::new(NAMESPACES).join(&self.namespace)).unwrap();
        let network = LinkNameSpaceType::Network;
        move_into_link_name_space(namespace.as_fd(), Some(network)).unwrap();
    }

    /// What stands behind `ip` and before a program that runs on it.
    pub fn words(&self) -> [&str; 3] {
        ["netns", "exec", &self.namespace]
    }

    /// It takes the MAC address with this number for the other one's.
    #[track_caller]
    fn find(&self, other: &Self, number: u8) {
        assert!(batch(&self.namespace, &neighbour(other, number)));
    }
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn neighbour(host: &Host, number: u8) -> String {
    let (addr, mac) = (host.addr(), mac(number));
    format!("neigh replace {addr} lladdr {mac} dev eth0 nud permanent\n")
}

fn add(namespace: &str) -> bool {
    quietly(Command::new("ip").args(["netns", "add", namespace]), "")
}

fn remove(namespace: &str) {
    // It need not be there, if not all could be made.
    quietly(Command::new("ip").args(["netns", "del", namespace]), "");
}

/// Has `ip` do all of these lines in a namespace.
fn batch(namespace: &str, lines: &str) -> bool {
    quietly(Command::new("ip").args(["-n", namespace, "-b", "-"]), lines)
}

fn quietly(command: &mut Command, input: &str) -> bool {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    // One that ends without reading has failed anyway.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait().unwrap().success()
}

/// Removes what runs have left that were killed.
fn remove_those_of_the_dead() {
    let names = std::fs::read_dir(NAMESPACES).into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names {
        let rest = name.strip_prefix(PREFIX);
        let process = rest.and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            remove(&name);
        }
    }
}

/// Tests of it, with programs on two hosts that talk over TCP.
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::ChildStdin;

    use super::*;
    use crate::harness::{Running, is_installed};

    /// Says its port, and then says back what it is told.
    const ECHO: &str = "
import socket
listener = socket.create_server(('', 0))
print(listener.getsockname()[1], flush=True)
stream, _ = listener.accept()
while data := stream.recv(100): stream.sendall(data)";

    /// Connects to a host and a port, sends what it reads, and shows what comes back.
    const CALLER: &str = "
import socket, sys, threading
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def show():
    while data := stream.recv(100): print(data.decode(), end='', flush=True)
threading.Thread(target=show, daemon=True).start()
for line in sys.stdin: stream.sendall(line.encode())";

    /// Whether a host can connect to another one, where somebody listens or refuses.
    fn reaches(from: &Host, to: &Host) -> bool {
        let connect = "
import socket, sys
try: socket.create_connection((sys.argv[1], 9), timeout=float(sys.argv[2]))
except ConnectionRefusedError: pass
except OSError: sys.exit(1)";
        let patience = "0.5";
        let mut python = from.command("python3");
        python.args(["-c", connect, &to.addr().to_string(), patience]);
        quietly(&mut python, "")
    }

    fn say(stdin: &mut ChildStdin, line: &str) {
        writeln!(stdin, "{line}").unwrap();
    }

    #[test]
    fn a_link_that_is_cut_is_silent_and_one_that_is_healed_goes_on() {
        if !is_installed("python3") {
            return skipped("there is no python3");
        }
        let Some(network) = Network::new(3) else {
            return;
        };
        let [a, b, c] = [0, 1, 2].map(|index| network.host(index));
        let mut echo = b.command("python3");
        echo.args(["-c", ECHO]);
        let (_echo, stdout) = Running::start_unread(echo);
        let mut port = String::new();
        BufReader::new(stdout).read_line(&mut port).unwrap();
        let mut caller = a.command("python3");
        caller.args(["-c", CALLER, &b.addr().to_string(), port.trim_end()]);
        let (caller, mut stdin) = Running::start_fed(caller);
        let has_come = |said: &str| {
            crate::harness::eventually(said, || caller.stdout_text() == said);
        };
        say(&mut stdin, "before");
        has_come("before\n");
        network.cut(a, b);
        say(&mut stdin, "meanwhile");
        // Neither way, and to nobody else.
        assert!(!reaches(a, b) && !reaches(b, a));
        assert!(reaches(a, c) && reaches(c, b));
        assert_eq!(caller.stdout_text(), "before\n");
        assert_eq!(caller.ended(), None);
        network.heal(a, b);
        // TCP repeats what was lost.
        has_come("before\nmeanwhile\n");
        assert!(reaches(a, b) && reaches(b, a));
    }

    #[test]
    fn a_network_that_is_dropped_leaves_nothing() {
        let Some(network) = Network::new(2) else {
            return;
        };
        let own = network.hosts.iter().map(|host| &host.namespace);
        let own = own.chain([&network.bridge]);
        let paths: Vec<_> = own.map(|name| Path::new(NAMESPACES).join(name)).collect();
        assert!(paths.iter().all(|path| path.exists()));
        drop(network);
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
