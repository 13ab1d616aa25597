// Network policies, tunnels and connect tokens. The servers are those of the simulated internet that
// `tests/src/internet.rs` describes and `tests/tests/sdk.rs` starts.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { connect as connectTls } from "node:tls";
import { once } from "node:events";
import { test } from "node:test";

import * as modal from "modal";

import { app, client, image, sandbox } from "./harness.mjs";

const [MACHINE, HERE, THERE] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
const ECHO = 7000;

const PRELUDE = `
import errno, socket, ssl
socket.setdefaulttimeout(20)
def attempt(function):
    try:
        return function()
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
`;

const WEB = `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers.get('X-Verified-User-Data')}".encode())
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 8080), Handler)
print("up", flush=True)
server.serve_forever()
`;

/** Evaluates a Python expression with the functions above in a sandbox and returns its value as text. */
async function inside(where, expression) {
  const hint = "these checks need the simulated internet: cargo xtask test system --filter official_javascript_sdk";
  assert.ok(process.env.SERVER_URL_WITHOUT_NETWORK, hint);
  const running = await where.exec(["python3", "-c", `${PRELUDE}\nprint(attempt(lambda: ${expression}))`]);
  const [out, errors] = await Promise.all([running.stdout.readText(), running.stderr.readText()]);
  assert.equal(errors, "");
  return out.trim();
}

/** Creates a sandbox whose command is a web server, and waits until it listens. */
async function web(options = {}) {
  const own = await sandbox({ command: ["python3", "-c", WEB], ...options });
  const reader = own.stdout.getReader();
  assert.equal((await reader.read()).value, "up\n");
  reader.releaseLock();
  return own;
}

const bearer = (token) => ({ headers: { Authorization: `Bearer ${token}` } });

test("network: an open sandbox reaches addresses and names over TCP, UDP and TLS", async () => {
  const own = await sandbox();
  assert.equal(await inside(own, `tcp('${HERE}', ${ECHO})`), `${HERE} hi`);
  assert.equal(await inside(own, `udp('${THERE}', ${ECHO})`), `${THERE} hi`);
  assert.equal(await inside(own, "tls('other.example.org')"), THERE);
});

test("network: an open sandbox reaches neither the loopback nor the address of the machine", async () => {
  const own = await sandbox();
  for (const [listen, host, answer] of [
    ["127.0.0.1", "127.0.0.1", "ECONNREFUSED"],
    [MACHINE, MACHINE, "EHOSTUNREACH"],
  ]) {
    const server = createServer(() => assert.fail("a connection reached the machine"));
    await once(server.listen(0, listen), "listening");
    assert.equal(await inside(own, `tcp('${host}', ${server.address().port})`), answer);
    server.close();
  }
});

test("network: without permission of the emulator, no sandbox reaches the network", async () => {
  const { MODAL_SERVER_URL, SERVER_URL_WITHOUT_NETWORK } = process.env;
  // The client reads the URL only from this variable.
  process.env.MODAL_SERVER_URL = SERVER_URL_WITHOUT_NETWORK;
  const other = new modal.ModalClient();
  process.env.MODAL_SERVER_URL = MODAL_SERVER_URL;
  const home = await other.apps.fromName("elsewhere", { createIfMissing: true });
  const own = await other.sandboxes.create(home, other.images.fromRegistry("debian:bookworm"));
  assert.equal(await inside(own, `tcp('${HERE}', ${ECHO})`), "ENETUNREACH");
  await own.terminate();
});

test("network: a blocked sandbox has only a loopback", async () => {
  const own = await sandbox({ blockNetwork: true });
  assert.equal(await inside(own, `tcp('${HERE}', ${ECHO})`), "ENETUNREACH");
  assert.equal(await inside(own, "[name for _, name in socket.if_nameindex()]"), "['lo']");
});

test("network: an address list permits only its addresses", async () => {
  const own = await sandbox({ outboundCidrAllowlist: [`${HERE}/32`] });
  assert.equal(await inside(own, `tcp('${HERE}', ${ECHO})`), `${HERE} hi`);
  assert.equal(await inside(own, `tcp('${THERE}', ${ECHO})`), "EHOSTUNREACH");
  assert.equal(await inside(own, `udp('${THERE}', ${ECHO})`), "EHOSTUNREACH");
});

test("network: a name list permits only TLS to its names", async () => {
  const own = await sandbox({ outboundDomainAllowlist: ["*.example.com"] });
  assert.equal(await inside(own, "tls('api.example.com')"), HERE);
  assert.equal(await inside(own, "tls('other.example.org')"), "no-name");
  assert.equal(await inside(own, `tls('other.example.org', '${THERE}')`), "ECONNRESET");
  assert.equal(await inside(own, `tcp('api.example.com', ${ECHO})`), "EHOSTUNREACH");
});

test("network: invalid lists are refused", async () => {
  for (const options of [{ outboundCidrAllowlist: ["x"] }, { outboundDomainAllowlist: ["a b"] }]) {
    await assert.rejects(client.sandboxes.create(app, image, options), /Invalid/);
  }
});

test("network: a policy change cuts connections that are no longer permitted", async () => {
  const own = await sandbox();
  const held = await own.exec([
    "python3",
    "-c",
    `${PRELUDE}
s = socket.create_connection(('${THERE}', ${ECHO}))
print("connected", flush=True)
input()
print(attempt(lambda: (s.sendall(b"again\\n"), s.makefile().readline().strip())[1]))`,
  ]);
  const reader = held.stdout.getReader();
  assert.equal((await reader.read()).value, "connected\n");
  await own.updateNetworkPolicy({ outboundCidrAllowlist: [`${HERE}/32`], outboundDomainAllowlist: [] });
  await held.stdin.writeText("go\n");
  assert.equal((await reader.read()).value, "ECONNRESET\n");
  assert.equal(await inside(own, `tcp('${HERE}', ${ECHO})`), `${HERE} hi`);
  await own.updateNetworkPolicy({ outboundCidrAllowlist: ["0.0.0.0/0"], outboundDomainAllowlist: [] });
  assert.equal(await inside(own, `tcp('${THERE}', ${ECHO})`), `${THERE} hi`);
});

test("network: a blocked sandbox stays blocked", async () => {
  const own = await sandbox({ blockNetwork: true });
  const lists = { outboundCidrAllowlist: [], outboundDomainAllowlist: [] };
  await assert.rejects(own.updateNetworkPolicy(lists), /blocked/);
});

test("network: header replacement is refused, not ignored", async () => {
  const policy = new modal.ExperimentalOutboundPolicy().withHeaderReplacement({
    domain: "example.com",
    headers: { "X-A": "b" },
  });
  await assert.rejects(client.sandboxes.create(app, image, { experimentalOutboundPolicy: policy }), /decrypt/);
  await assert.rejects((await sandbox()).experimentalUpdateOutboundPolicy(policy), /without an outbound policy/);
});

test("tunnels: a plain tunnel reaches the sandbox", async () => {
  const own = await web({ unencryptedPorts: [8080] });
  const tunnel = (await own.tunnels())[8080];
  const [host, port] = tunnel.tcpSocket;
  const answer = await fetch(`http://${host}:${port}/path`);
  assert.equal(await answer.text(), "/path None");
});

test("tunnels: a TLS tunnel reaches the sandbox, with HTTP/2 on request", async () => {
  const own = await web({ encryptedPorts: [8080], h2Ports: [8081] });
  for (const [port, protocol] of [
    [8080, "http/1.1"],
    [8081, "h2"],
  ]) {
    const [host, at] = (await own.tunnels())[port].tlsSocket;
    const options = { host, port: at, rejectUnauthorized: false, ALPNProtocols: ["h2", "http/1.1"] };
    const stream = connectTls(options);
    await once(stream, "secureConnect");
    assert.equal(stream.alpnProtocol, protocol);
    stream.destroy();
  }
});

test("tunnels: clients outside the inbound list are refused", async () => {
  const own = await web({ unencryptedPorts: [8080], inboundCidrAllowlist: ["192.0.2.0/24"] });
  const [host, port] = (await own.tunnels())[8080].tcpSocket;
  const stream = connect({ host, port });
  stream.on("error", () => {});
  stream.end("GET / HTTP/1.0\r\n\r\n");
  let answer = "";
  stream.on("data", (piece) => (answer += piece));
  await new Promise((closed) => stream.on("close", closed));
  assert.equal(answer, "");
});

test("connect tokens: a request with a token reaches the server", async () => {
  const own = await web();
  const made = await own.createConnectToken({ userMetadata: "u-1" });
  const answer = await fetch(`${made.url}/path?q=1`, bearer(made.token));
  assert.deepEqual([answer.status, await answer.text()], [200, "/path?q=1 u-1"]);
  const elsewhere = await own.createConnectToken({ port: 9000 });
  assert.equal((await fetch(elsewhere.url, bearer(elsewhere.token))).status, 502);
});

test("connect tokens: missing and wrong tokens are refused", async () => {
  const made = await (await web()).createConnectToken();
  assert.equal((await fetch(made.url)).status, 401);
  assert.equal((await fetch(made.url, bearer(`${made.token}x`))).status, 401);
});
