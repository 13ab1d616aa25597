"""What sandboxes reach, and how they are reached.

The servers are those of the made-up internet that `tests/src/internet.rs` describes and `tests/tests/sdk.rs` makes.
"""

from typing import Any
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import modal
import modal.experimental
from harness import app, equal, raises, sandbox, sh
from modal import exception

MACHINE, HERE, THERE = "198.51.100.1", "198.51.100.2", "198.51.100.3"
ECHO = 7000

# Programs for the inside: each prints what came of it in one line.
PRELUDE = """
import errno, socket, ssl
socket.setdefaulttimeout(20)
def attempt(function, *args):
    try:
        return function(*args)
    except socket.gaierror:
        return "no-name"
    except OSError as error:
        return errno.errorcode.get(error.errno, repr(error))
def tcp(host, port):
    with socket.create_connection((host, port)) as s:
        s.sendall(b"hi\\n")
        return s.makefile().readline().strip()
def udp(host, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, port))
    s.send(b"hi")
    return s.recv(65535).decode()
def tls(name, host=None):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host or name, 443)) as raw:
        with context.wrap_socket(raw, server_hostname=name) as s:
            return s.makefile().readline().strip()
"""

# Shows the request it gets.
WEB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers.get('X-Verified-User-Data')}".encode())
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("up", flush=True)
server.serve_forever()
"""


def inside(where: Any, expression: str) -> str:
    hint = "these checks need the made-up internet: cargo test -p system-tests --test sdk"
    assert "SERVER_URL_WITHOUT_NETWORK" in os.environ, hint
    process = where.exec("python3", "-c", f"{PRELUDE}\nprint(attempt(lambda: {expression}))")
    out, errors = process.stdout.read(), process.stderr.read()
    equal(errors, "")
    return str(out).strip()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def web(port: int = 8080, **options: Any) -> Any:
    with sandbox("python3", "-c", WEB, str(port), **options) as own:
        equal(next(iter(own.stdout)), "up\n")
        yield own


def test_network_open_reaches_addresses_and_names_over_tcp_udp_and_tls() -> None:
    """network: open reaches addresses and names, over TCP, UDP and TLS"""
    with sandbox() as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")
        equal(inside(own, f"udp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(own, f"tcp('api.example.com', {ECHO})"), f"{HERE} hi")
        equal(inside(own, "tls('other.example.org')"), THERE)


def test_network_a_closed_port_and_an_unknown_name_say_so_at_once() -> None:
    """network: a closed port and an unknown name say so at once"""
    with sandbox() as own:
        equal(inside(own, f"tcp('{HERE}', 1)"), "ECONNREFUSED")
        equal(inside(own, "tcp('no-such-name.invalid', 1)"), "no-name")


def test_network_open_does_not_reach_the_machine_itself_neither_its_loopback_nor_its_address() -> None:
    """network: open does not reach the machine itself, neither its loopback nor its address"""
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.create_server((MACHINE, 0)) as own_address:
        with sandbox() as own:
            equal(inside(own, f"tcp('127.0.0.1', {loopback.getsockname()[1]})"), "ECONNREFUSED")
            equal(inside(own, f"tcp('{MACHINE}', {own_address.getsockname()[1]})"), "EHOSTUNREACH")
            equal(inside(own, "tcp('169.254.169.254', 80)"), "EHOSTUNREACH")
        for server in (loopback, own_address):
            server.setblocking(False)
            raises(BlockingIOError, server.accept)


def test_network_a_server_is_reached_on_the_loopback_inside_and_not_on_the_one_of_another() -> None:
    """network: a server is reached on the loopback inside, and not on the one of another sandbox or the machine"""
    with web() as one, sandbox() as two:
        fetch = "__import__('urllib.request').request.urlopen('http://127.0.0.1:8080/x').read().decode()"
        equal(inside(one, fetch), "/x None")
        assert "refused" in inside(two, fetch)
        raises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", 8080))


def test_network_nothing_leaves_open_or_not_unless_the_emulator_was_started_with_leave() -> None:
    """network: nothing leaves, open or not, unless the emulator was started with leave"""
    script = (
        "import modal; a = modal.App.lookup('x', create_if_missing=True); s = modal.Sandbox.create(app=a);"
        f"p = s.exec('python3', '-c', 'import socket; socket.create_connection((\"{HERE}\", {ECHO}))');"
        "print(p.stderr.read()); s.terminate()"
    )
    url = os.environ["SERVER_URL_WITHOUT_NETWORK"]
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "MODAL_SERVER_URL": url}, capture_output=True, text=True
    )
    assert "Network is unreachable" in done.stdout, done


def test_network_blocked_has_a_loopback_and_nothing_else() -> None:
    """network: blocked has a loopback and nothing else"""
    with sandbox(block_network=True) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "ENETUNREACH")
        equal(inside(own, "tls('api.example.com')"), "no-name")
        equal(inside(own, "[name for _, name in socket.if_nameindex()]"), "['lo']")


def test_network_an_address_list_lets_tcp_and_udp_through_to_what_is_on_it() -> None:
    """network: an address list lets TCP and UDP through to what is on it"""
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")
        equal(inside(own, f"udp('{HERE}', {ECHO})"), f"{HERE} hi")


def test_network_an_address_list_lets_nothing_else_through_and_no_question_about_a_name() -> None:
    """network: an address list lets nothing else through, and no question about a name"""
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, f"udp('{THERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, "tcp('other.example.org', 443)"), "no-name")


def test_network_a_name_list_lets_tls_through_to_what_is_on_it_and_to_what_is_below_a() -> None:
    """network: a name list lets TLS through to what is on it, and to what is below a wildcard"""
    with sandbox(outbound_domain_allowlist=["api.example.com", "*.example.org"]) as own:
        equal(inside(own, "tls('api.example.com')"), HERE)
        equal(inside(own, "tls('other.example.org')"), THERE)


def test_network_a_name_list_lets_no_other_name_port_or_protocol_through() -> None:
    """network: a name list lets no other name, port or protocol through"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, "tls('other.example.org')"), "no-name")
        equal(inside(own, f"tls('other.example.org', '{THERE}')"), "ECONNRESET")
        equal(inside(own, f"tcp('api.example.com', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, "tcp('api.example.com', 443)"), "ECONNRESET")


def test_network_with_a_name_list_tls_goes_where_its_name_is_not_where_it_was_sent() -> None:
    """network: with a name list, TLS goes where its name is, not where it was sent"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, f"tls('api.example.com', '{THERE}')"), HERE)


def test_network_the_name_list_is_every_name_but_still_only_tls() -> None:
    """network: the name list * is every name, but still only TLS"""
    with sandbox(outbound_domain_allowlist=["*"]) as own:
        equal(inside(own, "tls('other.example.org')"), THERE)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")


def test_network_with_both_lists_what_either_permits_with_empty_ones_nothing() -> None:
    """network: with both lists, what either permits; with empty ones, nothing"""
    with sandbox(outbound_cidr_allowlist=[f"{THERE}/32"], outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(own, "tls('api.example.com')"), HERE)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")
    with sandbox(outbound_cidr_allowlist=[]) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")


def test_network_what_is_no_address_range_and_no_name_is_refused() -> None:
    """network: what is no address range and no name is refused"""
    bad = {"outbound_cidr_allowlist": "10.0.0.0", "outbound_domain_allowlist": "a b", "inbound_cidr_allowlist": "x/8"}
    for option, value in bad.items():
        options: Any = {option: [value]}
        raises(exception.InvalidError, modal.Sandbox.create, app=app(), containing="Invalid", **options)


def test_network_a_change_cuts_what_is_established_and_no_longer_permitted_and_nothing_else() -> None:
    """network: a change cuts what is established and no longer permitted, and nothing else"""
    program = f"""{PRELUDE}
streams = [socket.create_connection((host, {ECHO})) for host in ('{HERE}', '{THERE}')]
print("connected", flush=True)
input()
for s in streams:
    print(attempt(lambda: (s.sendall(b"again\\n"), s.makefile().readline().strip())[1]), flush=True)
"""
    with sandbox() as own:
        process = own.exec("python3", "-c", program)
        lines = iter(process.stdout)
        equal(next(lines), "connected\n")
        own._experimental_set_outbound_network_policy(outbound_cidr_allowlist=[f"{HERE}/32"])
        process.stdin.write("go\n")
        process.stdin.drain()
        equal("".join(lines), f"{HERE} again\nECONNRESET\n")
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), "EHOSTUNREACH")


def test_network_a_list_can_be_opened_again_and_a_name_list_closed() -> None:
    """network: a list can be opened again, and a name list closed"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        own._experimental_set_outbound_network_policy()
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        own._experimental_set_outbound_network_policy(outbound_domain_allowlist=[])
        equal(inside(own, "tls('api.example.com')"), "no-name")


def test_network_a_blocked_sandbox_stays_blocked_and_a_bad_list_changes_nothing() -> None:
    """network: a blocked sandbox stays blocked, and a bad list changes nothing"""
    with sandbox(block_network=True) as own:
        raises(exception.ConflictError, own._experimental_set_outbound_network_policy)
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        bad: Any = {"outbound_cidr_allowlist": ["nonsense"]}
        raises(exception.InvalidError, own._experimental_set_outbound_network_policy, containing="Invalid CIDR", **bad)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")


def test_network_replacing_headers_would_mean_to_decrypt_it_is_refused_not_ignored() -> None:
    """network: replacing headers would mean to decrypt; it is refused, not ignored"""
    policy = modal.experimental.OutboundPolicy().with_header_replacement(domain="example.com", headers={"X-A": "b"})
    raises(exception.UnimplementedError, modal.Sandbox.create, app=app(), _experimental_outbound_policy=policy)
    with sandbox() as own:
        raises(exception.ConflictError, own._experimental_update_outbound_policy, policy)


def test_network_a_sidecar_has_a_policy_of_its_own() -> None:
    """network: a sidecar has a policy of its own"""
    with sandbox(outbound_cidr_allowlist=[]) as own:
        image = modal.Image.debian_slim().build(app())
        manager = own._experimental_sidecars
        side = manager.create("sleep", "60", name="a", image=image, outbound_cidr_allowlist=[f"{THERE}/32"])
        equal(inside(side, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(side, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), "EHOSTUNREACH")


OWN_ADDRESS = "(lambda s: [s.connect(('192.0.2.1', 9)), s.getsockname()[0]][1])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))"


def test_network_containers_of_one_sandbox_reach_each_other_whatever_may_leave_others_do_not() -> None:
    """network: containers of one sandbox reach each other, whatever may leave; others do not"""
    image = modal.Image.debian_slim().build(app())
    listen = "import socket; s = socket.create_server(('', 8000))\nwhile True:\n c = s.accept()[0]; c.sendall(b'%s\\n'); c.close()"
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(sandbox("python3", "-c", listen % "main", outbound_cidr_allowlist=[]))
        create = own._experimental_sidecars.create
        side = create("python3", "-c", listen % "side", name="side", image=image, outbound_cidr_allowlist=[])
        more = create("sleep", "600", name="more", image=image)
        addresses = [inside(container, OWN_ADDRESS) for container in (own, side, more)]
        equal(len(set(addresses)), 3)
        reach = "(lambda f: next(x for x in iter(f, None) if x != 'ECONNREFUSED'))(lambda: attempt(tcp, '%s', 8000))"
        for container, target, answer in [(own, 1, "side"), (side, 0, "main"), (more, 0, "main"), (more, 1, "side")]:
            equal(inside(container, reach % addresses[target]), answer)
        equal(inside(own, f"tcp('{addresses[2]}', 8000)"), "ECONNREFUSED")
        stranger = stack.enter_context(sandbox())
        equal(inside(stranger, f"tcp('{addresses[1]}', 8000)"), "EHOSTUNREACH")
        side.terminate(wait=True)
        equal(inside(own, f"tcp('{addresses[1]}', 8000)"), "EHOSTUNREACH")
    with sandbox(block_network=True) as own:
        create = own._experimental_sidecars.create
        one = create("python3", "-c", listen % "one", name="one", image=image)
        two = create("sleep", "600", name="two", image=image, outbound_cidr_allowlist=[])
        equal(inside(two, reach % inside(one, OWN_ADDRESS)), "one")
        equal(inside(own, f"tcp('{inside(one, OWN_ADDRESS)}', 8000)"), "ENETUNREACH")


def test_network_builds_reach_the_internet_and_not_the_machine() -> None:
    """network: builds reach the internet, and not the machine"""
    fetch = f"exec 3<>/dev/tcp/{HERE}/{ECHO}; echo hi >&3; head -n 1 <&3 > /answer"
    image = modal.Image.debian_slim().run_commands(f"bash -c '{fetch}'", f"! bash -c 'echo > /dev/tcp/{MACHINE}/22'")
    with sandbox(image=image) as own:
        equal(sh(own, "cat /answer")[0], f"{HERE} hi\n")


def test_tunnels_a_port_for_http_2_agrees_on_it() -> None:
    """tunnels: a port for HTTP/2 agrees on it"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with sandbox(h2_ports=[8000]) as own:
        host, port = own.tunnels()[8000].tls_socket
        with socket.create_connection((host, port)) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
            equal(tls.selected_alpn_protocol(), "h2")


def test_connect_tokens_requests_with_one_reach_port_8080_and_say_what_its_maker_said() -> None:
    """connect tokens: requests with one reach port 8080, and say what its maker said"""
    with web() as own:
        made = own.create_connect_token(user_metadata={"user": "u-1"})
        bearer = {"Authorization": f"Bearer {made.token}"}
        equal(get(f"{made.url}/path?q=1", **bearer), (200, '/path?q=1 {"user": "u-1"}'))
        forged = {"X-Verified-User-Data": "forged", **bearer}
        equal(get(f"{made.url}/", **forged), (200, '/ {"user": "u-1"}'))


def test_connect_tokens_for_another_port_where_nobody_listens_a_bad_gateway() -> None:
    """connect tokens: for another port; where nobody listens, a bad gateway"""
    with web(9000) as own:
        made = own.create_connect_token(port=9000)
        equal(get(made.url, Authorization=f"Bearer {made.token}"), (200, "/ None"))
        equal(get(made.url, Authorization=f"Bearer {own.create_connect_token().token}")[0], 502)


def test_connect_tokens_none_a_wrong_one_and_one_of_an_ended_sandbox() -> None:
    """connect tokens: none, a wrong one, and one of an ended sandbox"""
    with web() as own:
        made = own.create_connect_token()
        equal(get(made.url)[0], 401)
        equal(get(made.url, Authorization=f"Bearer {made.token}x")[0], 401)
        own.terminate(wait=True)
        equal(get(made.url, Authorization=f"Bearer {made.token}")[0], 404)


def test_connect_tokens_whoever_is_not_on_the_inbound_list_stays_outside() -> None:
    """connect tokens: whoever is not on the inbound list stays outside"""
    with web(inbound_cidr_allowlist=["192.0.2.0/24"]) as own:
        made = own.create_connect_token()
        equal(get(made.url, Authorization=f"Bearer {made.token}")[0], 403)
