// Providers, sandboxes, images, the network.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Provider, SandboxError } from "sandbox-host";

import { fails, openMemory, openModal, startEmulator, until } from "./support.mjs";

let url;
let provider;
let sandbox;

before(async () => {
  url = await startEmulator();
  provider = await openModal(url);
  sandbox = await provider.create({ image: "debian", ports: [8080, { number: 8081, kind: "tcp" }] });
});

after(() => provider?.close());

test("a provider describes itself", async () => {
  assert.equal(provider.name, "modal");
  assert.match(provider.interfaceVersion, /^\d+\.\d+\.\d+$/);
  assert.equal(provider.runId, null);
  const description = await provider.describe();
  assert.equal(description.name, "modal");
  assert.ok(description.capabilities.some(({ name, support }) => name === "create.tags" && support === "native"));
  assert.equal(description.optionsSchema.type, "object");
  assert.ok(description.environment.some(({ name }) => name === "MODAL_SERVER_URL"));
});

test("a provider checks the connection and warms up", async () => {
  await provider.check();
  await provider.warmUp(2);
  const nowhere = await openModal("http://127.0.0.1:1");
  const error = await fails("unavailable", nowhere.check());
  assert.equal(error.happened, "no");
  await nowhere.close();
});

test("a specification is checked without a request", async () => {
  const before = (await provider.metrics()).requests;
  await provider.checkSpec({ image: "debian", lifetimeMs: 60_000 });
  const error = await fails("invalid-argument", provider.checkSpec({ image: "debian", options: { nonsense: 1 } }));
  assert.match(error.message, /nonsense/);
  assert.equal((await provider.metrics()).requests, before);
});

test("metrics are numbers, and text for Prometheus", async () => {
  const metrics = await provider.metrics();
  assert.ok(metrics.calls > 0);
  assert.ok(Object.values(metrics).every((value) => typeof value === "number"));
  assert.match(await provider.prometheus(), /^sandbox_host_calls/m);
  assert.deepEqual(await provider.throttled(), { count: 0, remainingMs: 0 });
});

test("the granted origins are named", async () => {
  const [grant] = await provider.grants();
  assert.equal(grant.origin, url);
  assert.equal(grant.learnedFrom, null);
  assert.equal(grant.privateAddresses, true);
});

test("sandboxes are listed by their tags", async () => {
  const tagged = await provider.create({ image: "debian", tags: { team: "red" } });
  assert.deepEqual((await provider.list({ tags: { team: "red" } })).map(({ id }) => id), [tagged.id]);
  await tagged.setTags({ team: "green", shift: "night" });
  assert.deepEqual(await tagged.tags(), { team: "green", shift: "night" });
  assert.deepEqual(await provider.list({ tags: { team: "red" } }), []);
  assert.equal((await provider.list({ max: 1 })).length, 1);
  await tagged.terminate();
});

test("a sandbox is found by its name", async () => {
  const named = await provider.create({ image: "debian", name: "box" });
  assert.equal((await provider.find("box")).id, named.id);
  await fails("already-exists", provider.create({ image: "debian", name: "box" }));
  await named.terminate();
  await fails("not-found", provider.find("no-such-name"));
});

test("the state and the end of a sandbox are told", async () => {
  const short = await provider.create({ image: "debian" });
  assert.equal((await short.info()).state.kind, "running");
  assert.equal(await short.wait({ timeoutMs: 10 }), null);
  const ended = short.wait();
  await short.terminate();
  assert.deepEqual(await ended, { kind: "terminated" });
  assert.deepEqual((await short.info()).state, { kind: "ended", reason: { kind: "terminated" } });
  await fails("sandbox-ended", short.run(["true"]));
});

test("the main process is a command with a log", async () => {
  const main = await provider.create({ image: "debian", command: ["sh", "-c", "echo logged; exit 4"] });
  assert.deepEqual(await main.wait({ timeoutMs: 60_000 }), { kind: "finished", exitCode: 4 });
  const page = await until(async () => {
    const found = await main.logs();
    return found.items.length > 0 && found;
  }, "the log");
  assert.equal(page.items.map(({ text }) => text).join(""), "logged\n");
});

test("the end of a block terminates a sandbox, also an ended one", async () => {
  const box = await provider.create({ image: "debian" });
  await box[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
  assert.deepEqual(await box.wait({ timeoutMs: 60_000 }), { kind: "terminated" });
});

test("an aborted creation leaves no sandbox", async () => {
  const controller = new AbortController();
  const creating = provider.create({ image: "debian", tags: { test: "aborted" } }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 1);
  await creating.then((box) => box.terminate(), (error) => assert.equal(error.name, "AbortError"));
  await until(async () => (await provider.list({ tags: { test: "aborted" } })).length === 0, "the end of the sandbox");
});

test("what a provider cannot do is an error of its own kind", async () => {
  for (const call of [() => sandbox.pause(), () => sandbox.stop(), () => sandbox.resume(), () => sandbox.waitRunning()]) {
    const error = await fails("unsupported", call);
    assert.equal(error.happened, "no");
    assert.equal(error.subject, "lifecycle");
  }
});

test("an image is built with its log as an async iterator", async () => {
  const context = await mkdtemp(join(tmpdir(), "sandbox-host-"));
  await writeFile(join(context, "greeting"), "from the context\n");
  const text = "FROM debian\nARG WHO\nCOPY greeting /greeting\nRUN echo hello $WHO; echo $WHO > /who\nWORKDIR /srv\n";
  const build = await provider.build({ dockerfile: { text, context, buildArgs: { WHO: "node" } }, force: true });
  let log = "";
  for await (const chunk of build) {
    log += chunk.text;
  }
  assert.match(log, /hello node/);
  const image = await build.image();
  assert.deepEqual(await build.image(), image);
  await build.close();
  const built = await provider.create({ image: { id: image.id } });
  assert.equal(String((await built.run("cat /greeting /who; pwd")).stdout), "from the context\nnode\n/srv\n");
  await built.terminate();
  assert.equal((await provider.image(image.id)).id, image.id);
  await provider.deleteImage(image.id);
  await fails("not-found", provider.image(image.id));
  await rm(context, { recursive: true });
});

test("an image can be built without reading the log", async () => {
  const build = await provider.build({ registry: "debian", commands: ["RUN echo quiet > /quiet"] });
  const { id } = await build.image();
  const built = await provider.create({ image: { id } });
  assert.equal(String((await built.run(["cat", "/quiet"])).stdout), "quiet\n");
  await built[Symbol.asyncDispose]();
});

test("a build that fails is an error with its log", async () => {
  const build = await provider.build({ registry: "debian", commands: ["RUN echo broken; exit 3"] });
  let log = "";
  await fails("build-failed", async () => {
    for await (const chunk of build) {
      log += chunk.text;
    }
  });
  assert.match(log, /broken/);
  await build[Symbol.asyncDispose]();
});

test("the files of a sandbox become an image", async () => {
  await sandbox.writeFile("/kept", "yes");
  const id = await sandbox.snapshotFilesystem();
  const copy = await provider.create({ image: { id } });
  assert.equal(await copy.readFile("/kept", { encoding: "utf8" }), "yes");
  await copy.terminate();
});

test("a directory becomes an image that can be mounted", async () => {
  await sandbox.writeFile("/part/file", "part");
  const image = await sandbox.snapshotDirectory("/part");
  await sandbox.mount("/mounted", { image });
  assert.equal(await sandbox.readFile("/mounted/file", { encoding: "utf8" }), "part");
  await sandbox.unmount("/mounted");
});

test("a local port is forwarded to a port of the sandbox", async () => {
  const server = await sandbox.start(["python3", "-m", "http.server", "8081", "--directory", "/usr"]);
  const forward = await sandbox.forward(8081);
  assert.equal(forward.address, `${forward.host}:${forward.port}`);
  const listing = await until(async () => {
    try {
      return await (await fetch(`http://${forward.address}/`)).text();
    } catch {
      return "";
    }
  }, "an answer of the server");
  assert.match(listing, /Directory listing/);
  await forward.close();
  await forward.close();
  const refused = await new Promise((resolve) => connect(forward.port, forward.host).on("error", resolve).on("connect", () => resolve()));
  assert.equal(refused?.code, "ECONNREFUSED");
  await server.close();
});

test("ports have public addresses, and other ports have none", async () => {
  const tunnels = await sandbox.tunnels();
  assert.deepEqual(tunnels.map(({ port, kind }) => [port, kind]).sort(), [[8080, "tls"], [8081, "tcp"]]);
  assert.ok(tunnels.every(({ publicHost, publicPort }) => publicHost !== "" && publicPort > 0));
  const error = await fails("invalid-argument", sandbox.forward(9999));
  assert.match(error.message, /9999/);
});

test("a token permits HTTP connections to a port", async () => {
  const token = await sandbox.connectToken(8080, { metadata: { user: "me" } });
  assert.match(token.url, /^https?:/);
});

test("the network policy can be changed", async () => {
  await sandbox.setNetwork({ outbound: { allowed: { cidrs: ["10.0.0.0/8"] } } });
  await sandbox.setNetwork({ outbound: "blocked" });
  await fails("invalid-argument", sandbox.setNetwork({ outbound: { allowed: { cidrs: ["nonsense"] } } }));
});

test("sidecars run beside a sandbox", async () => {
  const box = await provider.create({ image: "debian", sidecars: [{ name: "db", image: "debian", entryPoint: "keep-alive" }] });
  assert.deepEqual((await box.sidecars()).map(({ name }) => name), ["db"]);
  const db = box.container("db");
  assert.equal(db.id, box.id);
  await db.writeFile("/only-here", "db");
  assert.equal(String((await db.run(["cat", "/only-here"])).stdout), "db");
  assert.notEqual((await box.run(["cat", "/only-here"])).exitCode, 0);
  await box.createSidecar({ name: "cache", image: "debian", command: ["sleep", "600"] });
  await box.terminateSidecar("cache");
  assert.notEqual(await box.waitSidecar("cache", { timeoutMs: 60_000 }), null);
  await box.terminate();
});

test("the usage of a sandbox is reported", async () => {
  const report = await sandbox.usage();
  assert.equal(typeof report.totals.cpuCoreMillis, "number");
  assert.ok(Array.isArray(report.distributions));
});

test("sandboxes of an owner have leases, and a sweep spares them", async () => {
  const owner = await openModal(url, { owner: "node-tests", leaseMs: 60_000 });
  assert.match(owner.runId, /./);
  const box = await owner.create({ image: "debian" });
  const tags = Object.entries(await box.tags());
  assert.ok(tags.some(([name, value]) => name === "sandbox-owner" && value === "node-tests"), JSON.stringify(tags));
  const free = await owner.create({ image: "debian", lease: false });
  assert.deepEqual(await free.tags(), {});
  assert.deepEqual(await provider.sweep("node-tests", { dryRun: true }), []);
  await box.release();
  await Promise.all([box.terminate(), free.terminate()]);
  await owner.close();
  await fails("invalid-argument", openModal(url, { leaseMs: 60_000 }));
  await fails("invalid-argument", openModal(url, { owner: "x", leaseMs: 10 }));
});

test("two creations with one key make one sandbox", async () => {
  const spec = { image: "debian", key: "the-key" };
  const [one, two] = await Promise.all([provider.create(spec), provider.create(spec)]);
  assert.equal(one.id, two.id);
  await one.terminate();
});

test("the provider in memory runs commands without a service", async () => {
  const memory = await openMemory();
  const box = await memory.create();
  assert.equal(String((await box.run(["echo", "from", "memory"])).stdout), "from memory\n");
  await memory[Symbol.asyncDispose]();
  await fails("closed", box.run(["echo"]));
});

test("a component is loaded by its path", async () => {
  const file = fileURLToPath(new URL("components/memory-provider.wasm", import.meta.resolve("sandbox-host")));
  const memory = await Provider.open(file);
  assert.equal(memory.name, "memory");
  await memory.close();
});

test("all components of the package can be opened", async () => {
  for (const name of ["modal", "docker", "memory"]) {
    const one = await Provider.open(name, { anonymous: true, inheritEnv: false, readProfiles: false });
    assert.equal((await one.describe()).name, name);
    await one.close();
  }
});

test("credentials are needed unless the provider is anonymous", async () => {
  const error = await fails("unauthenticated", Provider.open("modal", { inheritEnv: false, readProfiles: false }));
  assert.match(error.message, /token/i);
});

test("a shutdown cancels what takes too long, and closes", async () => {
  const other = await openModal(url);
  const running = other.sandbox(sandbox.id).run(["sleep", "600"]).catch((error) => error);
  await until(async () => (await other.metrics()).requests > 0, "a request");
  assert.equal(typeof (await other.shutdown({ graceMs: 50 })), "number");
  assert.ok((await running) instanceof SandboxError);
  await fails("closed", other.check());
  await fails("closed", other.shutdown());
  await other.close();
});
