"""Network policies, tunnels and connect tokens.

The servers are those of the simulated internet that `tests/src/internet.rs` describes and `tests/tests/sdk.rs` starts.
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

# Python programs that run in a sandbox. Each prints its result on one line.
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

# Answers with the path and a header of the request.
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
    hint = "these checks need the simulated internet: cargo xtask test system --filter official_python_sdk"
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


def test_network_an_open_sandbox_reaches_addresses_and_names_over_tcp_udp_and_tls() -> None:
    """network: an open sandbox reaches addresses and names over TCP, UDP and TLS"""
    with sandbox() as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")
        equal(inside(own, f"udp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(own, f"tcp('api.example.com', {ECHO})"), f"{HERE} hi")
        equal(inside(own, "tls('other.example.org')"), THERE)


def test_network_a_closed_port_and_an_unknown_name_fail_at_once() -> None:
    """network: a closed port and an unknown name fail at once"""
    with sandbox() as own:
        equal(inside(own, f"tcp('{HERE}', 1)"), "ECONNREFUSED")
        equal(inside(own, "tcp('no-such-name.invalid', 1)"), "no-name")


def test_network_an_open_sandbox_reaches_neither_the_loopback_nor_the_address_of_the_machine() -> None:
    """network: an open sandbox reaches neither the loopback nor the address of the machine"""
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.create_server((MACHINE, 0)) as own_address:
        with sandbox() as own:
            equal(inside(own, f"tcp('127.0.0.1', {loopback.getsockname()[1]})"), "ECONNREFUSED")
            equal(inside(own, f"tcp('{MACHINE}', {own_address.getsockname()[1]})"), "EHOSTUNREACH")
            equal(inside(own, "tcp('169.254.169.254', 80)"), "EHOSTUNREACH")
        for server in (loopback, own_address):
            server.setblocking(False)
            raises(BlockingIOError, server.accept)


def test_network_the_loopback_of_a_sandbox_is_not_that_of_another_sandbox_or_of_the_machine() -> None:
    """network: the loopback of a sandbox is not that of another sandbox or of the machine"""
    with web() as one, sandbox() as two:
        fetch = "__import__('urllib.request').request.urlopen('http://127.0.0.1:8080/x').read().decode()"
        equal(inside(one, fetch), "/x None")
        assert "refused" in inside(two, fetch)
        raises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", 8080))


def test_network_without_permission_of_the_emulator_no_sandbox_reaches_the_network() -> None:
    """network: without permission of the emulator, no sandbox reaches the network"""
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


def test_network_a_blocked_sandbox_has_only_a_loopback() -> None:
    """network: a blocked sandbox has only a loopback"""
    with sandbox(block_network=True) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "ENETUNREACH")
        equal(inside(own, "tls('api.example.com')"), "no-name")
        equal(inside(own, "[name for _, name in socket.if_nameindex()]"), "['lo']")


def test_network_an_address_list_permits_tcp_and_udp_to_its_addresses() -> None:
    """network: an address list permits TCP and UDP to its addresses"""
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")
        equal(inside(own, f"udp('{HERE}', {ECHO})"), f"{HERE} hi")


def test_network_an_address_list_permits_no_other_address_and_no_name_lookup() -> None:
    """network: an address list permits no other address and no name lookup"""
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, f"udp('{THERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, "tcp('other.example.org', 443)"), "no-name")


def test_network_a_name_list_permits_tls_to_its_names_and_to_names_below_a_wildcard() -> None:
    """network: a name list permits TLS to its names and to names below a wildcard"""
    with sandbox(outbound_domain_allowlist=["api.example.com", "*.example.org"]) as own:
        equal(inside(own, "tls('api.example.com')"), HERE)
        equal(inside(own, "tls('other.example.org')"), THERE)


def test_network_a_name_list_permits_no_other_name_port_or_protocol() -> None:
    """network: a name list permits no other name, port or protocol"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, "tls('other.example.org')"), "no-name")
        equal(inside(own, f"tls('other.example.org', '{THERE}')"), "ECONNRESET")
        equal(inside(own, f"tcp('api.example.com', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, "tcp('api.example.com', 443)"), "ECONNRESET")


def test_network_with_a_name_list_tls_is_routed_by_its_server_name_not_by_its_address() -> None:
    """network: with a name list, TLS is routed by its server name, not by its address"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, f"tls('api.example.com', '{THERE}')"), HERE)


def test_network_the_name_list_permits_every_name_but_only_tls() -> None:
    """network: the name list * permits every name, but only TLS"""
    with sandbox(outbound_domain_allowlist=["*"]) as own:
        equal(inside(own, "tls('other.example.org')"), THERE)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")


def test_network_two_lists_permit_what_either_permits_and_empty_lists_permit_nothing() -> None:
    """network: two lists permit what either permits, and empty lists permit nothing"""
    with sandbox(outbound_cidr_allowlist=[f"{THERE}/32"], outbound_domain_allowlist=["api.example.com"]) as own:
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(own, "tls('api.example.com')"), HERE)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")
    with sandbox(outbound_cidr_allowlist=[]) as own:
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")


def test_network_invalid_address_ranges_and_names_are_refused() -> None:
    """network: invalid address ranges and names are refused"""
    bad = {"outbound_cidr_allowlist": "10.0.0.0", "outbound_domain_allowlist": "a b", "inbound_cidr_allowlist": "x/8"}
    for option, value in bad.items():
        options: Any = {option: [value]}
        raises(exception.InvalidError, modal.Sandbox.create, app=app(), containing="Invalid", **options)


def test_network_a_policy_change_cuts_only_connections_that_are_no_longer_permitted() -> None:
    """network: a policy change cuts only connections that are no longer permitted"""
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


def test_network_an_address_list_can_be_opened_again_and_a_name_list_closed() -> None:
    """network: an address list can be opened again and a name list closed"""
    with sandbox(outbound_domain_allowlist=["api.example.com"]) as own:
        own._experimental_set_outbound_network_policy()
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        own._experimental_set_outbound_network_policy(outbound_domain_allowlist=[])
        equal(inside(own, "tls('api.example.com')"), "no-name")


def test_network_a_blocked_sandbox_stays_blocked_and_an_invalid_list_changes_nothing() -> None:
    """network: a blocked sandbox stays blocked, and an invalid list changes nothing"""
    with sandbox(block_network=True) as own:
        raises(exception.ConflictError, own._experimental_set_outbound_network_policy)
    with sandbox(outbound_cidr_allowlist=[f"{HERE}/32"]) as own:
        bad: Any = {"outbound_cidr_allowlist": ["nonsense"]}
        raises(exception.InvalidError, own._experimental_set_outbound_network_policy, containing="Invalid CIDR", **bad)
        equal(inside(own, f"tcp('{HERE}', {ECHO})"), f"{HERE} hi")


def test_network_header_replacement_is_refused_not_ignored() -> None:
    """network: header replacement is refused, not ignored"""
    policy = modal.experimental.OutboundPolicy().with_header_replacement(domain="example.com", headers={"X-A": "b"})
    raises(exception.UnimplementedError, modal.Sandbox.create, app=app(), _experimental_outbound_policy=policy)
    with sandbox() as own:
        raises(exception.ConflictError, own._experimental_update_outbound_policy, policy)


def test_network_a_sidecar_has_its_own_network_policy() -> None:
    """network: a sidecar has its own network policy"""
    with sandbox(outbound_cidr_allowlist=[]) as own:
        image = modal.Image.debian_slim().build(app())
        manager = own._experimental_sidecars
        side = manager.create("sleep", "60", name="a", image=image, outbound_cidr_allowlist=[f"{THERE}/32"])
        equal(inside(side, f"tcp('{THERE}', {ECHO})"), f"{THERE} hi")
        equal(inside(side, f"tcp('{HERE}', {ECHO})"), "EHOSTUNREACH")
        equal(inside(own, f"tcp('{THERE}', {ECHO})"), "EHOSTUNREACH")


OWN_ADDRESS = "(lambda s: [s.connect(('192.0.2.1', 9)), s.getsockname()[0]][1])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))"


def test_network_the_containers_of_a_sandbox_reach_each_other_but_not_those_of_others() -> None:
    """network: the containers of a sandbox reach each other, but not those of others"""
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


def test_network_builds_reach_the_internet_but_not_the_machine() -> None:
    """network: builds reach the internet, but not the machine"""
    fetch = f"exec 3<>/dev/tcp/{HERE}/{ECHO}; echo hi >&3; head -n 1 <&3 > /answer"
    image = modal.Image.debian_slim().run_commands(f"bash -c '{fetch}'", f"! bash -c 'echo > /dev/tcp/{MACHINE}/22'")
    with sandbox(image=image) as own:
        equal(sh(own, "cat /answer")[0], f"{HERE} hi\n")


def test_tunnels_a_port_for_http_2_negotiates_it() -> None:
    """tunnels: a port for HTTP/2 negotiates it"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with sandbox(h2_ports=[8000]) as own:
        host, port = own.tunnels()[8000].tls_socket
        with socket.create_connection((host, port)) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
            equal(tls.selected_alpn_protocol(), "h2")


def test_connect_tokens_a_request_with_a_token_reaches_port_8080_and_carries_the_user_metadata() -> None:
    """connect tokens: a request with a token reaches port 8080 and carries the user metadata"""
    with web() as own:
        made = own.create_connect_token(user_metadata={"user": "u-1"})
        bearer = {"Authorization": f"Bearer {made.token}"}
        equal(get(f"{made.url}/path?q=1", **bearer), (200, '/path?q=1 {"user": "u-1"}'))
        forged = {"X-Verified-User-Data": "forged", **bearer}
        equal(get(f"{made.url}/", **forged), (200, '/ {"user": "u-1"}'))


def test_connect_tokens_a_token_can_be_for_another_port_and_without_a_listener_the_answer_is_502() -> None:
    """connect tokens: a token can be for another port, and without a listener the answer is 502"""
    with web(9000) as own:
        made = own.create_connect_token(port=9000)
        equal(get(made.url, Authorization=f"Bearer {made.token}"), (200, "/ None"))
        equal(get(made.url, Authorization=f"Bearer {own.create_connect_token().token}")[0], 502)


def test_connect_tokens_a_missing_or_wrong_token_and_one_of_an_ended_sandbox_are_refused() -> None:
    """connect tokens: a missing or wrong token, and one of an ended sandbox, are refused"""
    with web() as own:
        made = own.create_connect_token()
        equal(get(made.url)[0], 401)
        equal(get(made.url, Authorization=f"Bearer {made.token}x")[0], 401)
        own.terminate(wait=True)
        equal(get(made.url, Authorization=f"Bearer {made.token}")[0], 404)


def test_connect_tokens_clients_outside_the_inbound_list_are_refused() -> None:
    """connect tokens: clients outside the inbound list are refused"""
    with web(inbound_cidr_allowlist=["192.0.2.0/24"]) as own:
        made = own.create_connect_token()
        equal(get(made.url, Authorization=f"Bearer {made.token}")[0], 403)
