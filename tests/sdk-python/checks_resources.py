"""Secrets, volumes, tunnels and memory snapshots."""

import concurrent.futures
import hashlib
import io
import ssl
import urllib.request

import modal
from harness import app, equal, fresh, raises, sandbox, sh
from modal import exception


def test_secrets_named_secrets_are_found_and_required_keys_are_checked() -> None:
    """secrets: named secrets are found and required keys are checked"""
    name = fresh("secret")
    modal.Secret.objects.create(name, {"K": "named"})
    with sandbox(secrets=[modal.Secret.from_name(name)]) as own:
        equal(sh(own, "echo $K")[0], "named\n")
        equal(sh(own, "echo $K", secrets=[modal.Secret.from_name(name, required_keys=["K"])])[0], "named\n")
    missing = modal.Secret.from_name(name, required_keys=["OTHER"])
    raises(exception.Error, modal.Sandbox.create, app=app(), secrets=[missing], containing="is missing key(s): OTHER")
    raises(exception.NotFoundError, modal.Sandbox.create, app=app(), secrets=[modal.Secret.from_name(fresh("no"))])


def test_volumes_written_files_are_seen_after_a_reload_and_kept_after_the_end() -> None:
    """volumes: written files are seen after a reload and kept after the end"""
    made = modal.Volume.from_name(fresh("vol"), create_if_missing=True)
    with sandbox(volumes={"/mnt/v": made}) as one, sandbox(volumes={"/mnt/v": made}) as two:
        sh(one, "mkdir /mnt/v/d; echo shared > /mnt/v/d/f; echo old > /mnt/v/g; sync /mnt/v")
        equal(sh(two, "ls /mnt/v")[0], "")
        two.reload_volumes()
        equal(sh(two, "cat /mnt/v/d/f; echo new > /mnt/v/g; rm /mnt/v/d/f; ls /mnt/v/d")[0], "shared\n")
        equal(sh(one, "cat /mnt/v/g /mnt/v/d/f")[0], "old\nshared\n")
        one.reload_volumes()
        equal(sh(one, "cat /mnt/v/g; ls /mnt/v/d")[0], "new\n")
        sh(one, "echo last > /mnt/v/last")
        one.terminate()
        one.wait(raise_on_termination=False)
        equal(sh(two, "ls /mnt/v/last 2>&1; true")[0].strip().endswith("No such file or directory"), True)
        two.reload_volumes()
        equal(sh(two, "cat /mnt/v/last")[0], "last\n")
    with sandbox(volumes={"/other": made}) as three:
        equal(sh(three, "cat /other/g /other/last")[0], "new\nlast\n")


def test_volumes_threads_that_create_one_name_at_the_same_time_use_the_same_volume() -> None:
    """volumes: threads that create one name at the same time use the same volume"""
    name = fresh("vol")

    def write(number: int) -> None:
        made = modal.Volume.from_name(name, create_if_missing=True)
        with made.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"x"), f"/{number}")

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(write, range(8)))
    entries = modal.Volume.from_name(name).listdir("/")
    equal(sorted(entry.path for entry in entries), [str(number) for number in range(8)])


def test_volumes_files_of_both_volume_versions_are_read_and_written_from_outside() -> None:
    """volumes: files of both volume versions are read and written from outside"""
    big = bytes(range(256)) * 40_000
    for version in (1, 2):
        made = modal.Volume.from_name(fresh("vol"), create_if_missing=True, version=version).hydrate()
        with made.batch_upload() as batch:
            batch.put_file(io.BytesIO(big), "/a/big")
            batch.put_file(io.BytesIO(b""), "/empty", mode=0o600)
        with sandbox(volumes={"/v": made}) as own:
            equal(sh(own, "sha256sum < /v/a/big")[0].split()[0], hashlib.sha256(big).hexdigest())
            equal(sh(own, "stat -c %a:%s /v/empty; echo inside > /v/a/inside")[0], "600:0\n")
            equal(b"".join(made.read_file("a/inside")), b"inside\n")
        equal(b"".join(made.read_file("/a/big")), big)
        equal(sorted(e.path for e in made.listdir("/", recursive=True)), ["a", "a/big", "a/inside", "empty"])
        try:
            with made.batch_upload() as batch:
                batch.put_file(io.BytesIO(b"new"), "/empty")
        except FileExistsError:
            pass
        else:
            raise AssertionError("an existing file was replaced")
        with made.batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(b"new"), "/empty")
        made.copy_files(["empty"], "copied")
        equal(b"".join(made.read_file("copied")), b"new")
        raises(Exception, made.remove_file, "a")
        made.remove_file("a", recursive=True)
        equal(sorted(e.path for e in made.listdir("/")), ["copied", "empty"])
        raises(FileNotFoundError, lambda: b"".join(made.read_file("a/big")))


def test_volumes_a_volume_can_be_read_only() -> None:
    """volumes: a volume can be read-only"""
    made = modal.Volume.from_name(fresh("vol"), create_if_missing=True)
    with sandbox(volumes={"/mnt/v": made.with_mount_options(read_only=True)}) as own:
        _, err, code = sh(own, "echo x > /mnt/v/f")
        assert code != 0 and "read-only" in err.lower(), (err, code)


def test_volumes_an_unknown_volume_is_an_error() -> None:
    """volumes: an unknown volume is an error"""
    made = modal.Volume.from_name(fresh("vol"))
    raises(exception.NotFoundError, modal.Sandbox.create, app=app(), volumes={"/mnt/v": made})


def test_network_block_network_leaves_only_a_loopback() -> None:
    """network: block_network leaves only a loopback"""
    script = (
        "import socket\n"
        "s=socket.create_server(('127.0.0.1',0))\n"
        "c=socket.create_connection(s.getsockname()); print('loopback')\n"
        "try: socket.create_connection(('192.0.2.1',80),2); print('out')\n"
        "except OSError: print('blocked')\n"
    )
    with sandbox(block_network=True) as own:
        equal(own.exec("python3", "-c", script).stdout.read(), "loopback\nblocked\n")


def test_network_the_loopback_of_a_sandbox_is_its_own() -> None:
    """network: the loopback of a sandbox is its own"""
    server = "import socket,time; s=socket.create_server(('127.0.0.1',8777)); print('up',flush=True); time.sleep(60)"
    client = "import socket\ntry: socket.create_connection(('127.0.0.1',8777),2); print('reached')\nexcept OSError: print('refused')"
    with sandbox() as one, sandbox() as two:
        process = one.exec("python3", "-c", server)
        equal(next(iter(process.stdout)), "up\n")
        equal(one.exec("python3", "-c", client).stdout.read(), "reached\n")
        equal(two.exec("python3", "-c", client).stdout.read(), "refused\n")


SERVER = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"from inside")
    def log_message(self, *a): pass
s = http.server.HTTPServer(("127.0.0.1", 8000), H)
print("up", flush=True)
s.serve_forever()
"""


def test_tunnels_a_plain_tunnel_reaches_the_loopback_of_the_sandbox_and_ends_with_it() -> None:
    """tunnels: a plain tunnel reaches the loopback of the sandbox and ends with it"""
    with sandbox("python3", "-c", SERVER, unencrypted_ports=[8000]) as own:
        equal(next(iter(own.stdout)), "up\n")
        host, port = own.tunnels()[8000].tcp_socket
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
            equal(answer.read(), b"from inside")
    try:
        urllib.request.urlopen(f"http://{host}:{port}/", timeout=10)
    except OSError:
        return
    raise AssertionError("the tunnel is still open")


def test_tunnels_a_tls_tunnel_reaches_a_server_without_tls() -> None:
    """tunnels: a TLS tunnel reaches a server without TLS"""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with sandbox("python3", "-c", SERVER, encrypted_ports=[8000]) as own:
        equal(next(iter(own.stdout)), "up\n")
        url = own.tunnels()[8000].url
        assert url.startswith("https://"), url
        with urllib.request.urlopen(url, timeout=10, context=unverified) as answer:
            equal(answer.read(), b"from inside")


def test_tunnels_clients_outside_the_inbound_list_are_refused() -> None:
    """tunnels: clients outside the inbound list are refused"""
    options = {"unencrypted_ports": [8000], "inbound_cidr_allowlist": ["192.0.2.0/24"]}
    with sandbox("python3", "-c", SERVER, **options) as own:
        equal(next(iter(own.stdout)), "up\n")
        host, port = own.tunnels()[8000].tcp_socket
        raises(OSError, urllib.request.urlopen, f"http://{host}:{port}/", timeout=10)


def test_network_ports_of_a_blocked_sandbox_are_refused() -> None:
    """network: ports of a blocked sandbox are refused"""
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), block_network=True, encrypted_ports=[80])


def test_memory_snapshots_they_are_refused() -> None:
    """memory snapshots: they are refused"""
    with sandbox() as own:
        raises(exception.Error, own._experimental_snapshot)


def test_create_a_sandbox_has_its_own_host_name() -> None:
    """create: a sandbox has its own host name"""
    with sandbox() as own:
        equal(sh(own, "cat /proc/sys/kernel/hostname")[0], "modal\n")
