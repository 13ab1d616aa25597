// Apps and sandboxes: creation, lookup, tags, readiness, logs and termination.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as modal from "modal";

import { app, appName, client, fresh, sandbox, sh, shared } from "./harness.mjs";

test("apps: the same name is the same app, and an unknown one is not found", async () => {
  const again = await client.apps.fromName(appName);
  assert.equal(again.appId, app.appId);
  await assert.rejects(client.apps.fromName(fresh("missing")), modal.NotFoundError);
});

test("create: ids have the format of the V2 backend", async () => {
  assert.equal((await shared()).sandboxId.length, 29);
});

test("create: the output and the exit code of the command are returned", async () => {
  const own = await sandbox({ command: ["sh", "-c", "echo out; echo err >&2; exit 42"] });
  assert.equal(await own.stdout.readText(), "out\n");
  assert.equal(await own.stderr.readText(), "err\n");
  assert.equal(await own.wait(), 42);
  assert.equal(await own.poll(), 42);
});

test("create: the command reads standard input", async () => {
  const own = await sandbox({ command: ["cat"] });
  await own.stdin.writeText("typed\n");
  await own.stdin.close();
  assert.equal(await own.stdout.readText(), "typed\n");
});

test("create: env and workdir apply to the command", async () => {
  const own = await sandbox({ command: ["sh", "-c", "echo $A; pwd"], env: { A: "1" }, workdir: "/usr" });
  assert.equal(await own.stdout.readText(), "1\n/usr\n");
});

test("poll, terminate and wait report the state", async () => {
  const own = await sandbox();
  assert.equal(await own.poll(), null);
  const other = await client.sandboxes.fromId(own.sandboxId);
  await own.terminate();
  assert.equal(await other.wait(), 137);
});

test("create: a sandbox ends after its timeout", async () => {
  const own = await sandbox({ timeoutMs: 1000 });
  assert.equal(await own.wait(), 124);
});

test("names: a sandbox is found by its name, which is unique", async () => {
  const name = fresh("name");
  const own = await sandbox({ name });
  const found = await client.sandboxes.fromName(appName, name);
  assert.equal(found.sandboxId, own.sandboxId);
  await assert.rejects(sandbox({ name }), modal.AlreadyExistsError);
  await assert.rejects(client.sandboxes.fromName(appName, fresh("no")), modal.NotFoundError);
});

test("tags: sandboxes are listed by tags, which can be changed", async () => {
  const value = fresh("tag");
  const own = await sandbox({ tags: { key: value } });
  await sandbox();
  assert.deepEqual(await own.getTags(), { key: value });
  const seen = [];
  for await (const one of client.sandboxes.list({ appId: app.appId, tags: { key: value } })) seen.push(one.sandboxId);
  assert.deepEqual(seen, [own.sandboxId]);
  await own.setTags({ other: "1" });
  assert.deepEqual(await own.getTags(), { other: "1" });
});

test("V1 backend: a sandbox with a GPU runs there", async () => {
  const own = await sandbox({ gpu: "T4", command: ["sh", "-c", "echo v1; sleep 60"] });
  assert.equal(own.sandboxId.length, 25);
  assert.deepEqual(await sh(own, "echo hi"), ["hi\n", "", 0]);
  await own.terminate();
});

test("client: parameters are used and the version is known", async () => {
  const { MODAL_SERVER_URL: endpoint } = process.env;
  const own = new modal.ModalClient({ tokenId: "ak-other", tokenSecret: "as-other", endpoint });
  assert.equal((await own.apps.fromName(appName)).appId, app.appId);
  assert.equal(own.version(), "0.11.1");
  own.close();
});

test("environments: an environment is created, listed, and has its own apps", async () => {
  const name = fresh("env");
  await assert.rejects(client.environments.fromName(name), modal.NotFoundError);
  const made = await client.environments.fromName(name, { createIfMissing: true });
  assert.match(made.environmentId, /^en-\w{22}$/);
  const inside = await client.apps.fromName(appName, { environment: name, createIfMissing: true });
  assert.notEqual(inside.appId, app.appId);
  const listed = [];
  for await (const one of client.environments.objects.list()) listed.push(one.name);
  assert.ok(listed.includes("main") && listed.includes(name), String(listed));
  const apps = [];
  for await (const one of made.apps.list()) apps.push([one.appId, one.name]);
  assert.deepEqual(apps, [[inside.appId, appName]]);
});

test("apps: the information about an app is returned", async () => {
  const info = await app.info();
  assert.deepEqual([info.appId, info.description, info.lifecycle.state], [app.appId, appName, "deployed"]);
  assert.deepEqual([info.functions, info.servers], [{}, {}]);
});

test("names: a name can be given later, and only once", async () => {
  const [name, other] = [fresh("later"), fresh("other")];
  const own = await sandbox();
  await own.experimentalSetName(name);
  assert.equal((await client.sandboxes.fromName(appName, name)).sandboxId, own.sandboxId);
  await own.experimentalSetName(name);
  await assert.rejects(own.experimentalSetName(other), modal.ConflictError);
  await assert.rejects((await sandbox()).experimentalSetName(name), modal.AlreadyExistsError);
});

test("names: an ended sandbox is found on request, and its name is free", async () => {
  const name = fresh("again");
  const first = await sandbox({ name });
  assert.equal(await first.terminate({ wait: true }), 137);
  await assert.rejects(client.sandboxes.fromName(appName, name), modal.NotFoundError);
  const ended = await client.sandboxes.fromName(appName, name, { includeTerminated: true });
  assert.equal(ended.sandboxId, first.sandboxId);
  const second = await sandbox({ name });
  assert.equal((await client.sandboxes.fromName(appName, name)).sandboxId, second.sandboxId);
});

test("names and tags: invalid ones are refused", async () => {
  await assert.rejects(sandbox({ name: "no spaces" }), modal.InvalidError);
  const own = await sandbox();
  await assert.rejects(own.setTags({ "": "x" }), modal.InvalidError);
  await own.setTags({ a: "1", b: "" });
  assert.deepEqual(await own.getTags(), { a: "1", b: "" });
  await own.setTags({});
  assert.deepEqual(await own.getTags(), {});
});

test("list: sandboxes are listed newest first, by several tags, without ended ones", async () => {
  const value = fresh("list");
  const made = [];
  for (let number = 0; number < 3; number += 1) made.push(await sandbox({ tags: { key: value, n: String(number) } }));
  const ids = async (tags) => {
    const found = [];
    for await (const one of client.sandboxes.list({ appId: app.appId, tags })) found.push(one.sandboxId);
    return found;
  };
  assert.deepEqual(await ids({ key: value }), made.map((one) => one.sandboxId).reverse());
  assert.deepEqual(await ids({ key: value, n: "1" }), [made[1].sandboxId]);
  await made[2].terminate({ wait: true });
  assert.deepEqual(await ids({ key: value }), [made[1].sandboxId, made[0].sandboxId]);
});

test("detach: a detached sandbox continues to run", async () => {
  const own = await sandbox();
  const { sandboxId } = own;
  own.detach();
  await assert.rejects(own.exec(["true"]), modal.ClientClosedError);
  assert.throws(() => own.filesystem, modal.ClientClosedError);
  const other = await client.sandboxes.fromId(sandboxId);
  assert.deepEqual(await sh(other, "echo on"), ["on\n", "", 0]);
  await other.terminate();
});

test("ids: an unknown sandbox is not found", async () => {
  const unknown = await client.sandboxes.fromId("sb-01AAAAAAAAAAAAAAAAAAAAAAAA");
  await assert.rejects(unknown.poll(), /not found/);
  await assert.rejects(unknown.exec(["true"]), /not found/);
});

test("idle time: a sandbox ends when it is idle", async () => {
  const own = await sandbox({ idleTimeoutMs: 1000 });
  assert.equal((await sh(own, "sleep 2; echo busy"))[0], "busy\n");
  assert.notEqual(await own.wait(), 0);
});

test("readiness: a probe can be a command or a port, or be missing", async () => {
  const readinessProbe = modal.Probe.withExec(["test", "-e", "/tmp/ready"], { intervalMs: 50 });
  const own = await sandbox({ readinessProbe });
  await assert.rejects(own.waitUntilReady(500), modal.TimeoutError);
  await own.filesystem.writeText("", "/tmp/ready");
  await own.waitUntilReady(20_000);
  const script = "import socket,time; s=socket.create_server(('127.0.0.1',8123)); time.sleep(60)";
  const listening = await sandbox({
    command: ["python3", "-c", script],
    readinessProbe: modal.Probe.withTcp(8123, { intervalMs: 50 }),
  });
  await listening.waitUntilReady(20_000);
  await assert.rejects((await shared()).waitUntilReady(1000), /probe/i);
  assert.throws(() => modal.Probe.withTcp(0), modal.InvalidError);
});

test("create: the command can have a terminal", async () => {
  const own = await sandbox({ command: ["sh", "-c", "test -t 0 && echo yes; echo err >&2"], pty: true });
  assert.equal(await own.stdout.readText(), "yes\r\nerr\r\n");
});

test("create: an identity token is provided on request", async () => {
  const own = await sandbox({ includeOidcIdentityToken: true });
  assert.equal((await sh(own, "echo $MODAL_IDENTITY_TOKEN"))[0].trim().split(".").length, 3);
  assert.equal((await sh(await shared(), "echo $MODAL_IDENTITY_TOKEN"))[0], "\n");
});

test("create: invalid settings are refused as by the service", async () => {
  await assert.rejects(sandbox({ cloud: "nowhere" }), /cloud/i);
  await assert.rejects(sandbox({ regions: ["mars-north"] }), /mars-north/);
  await assert.rejects(sandbox({ timeoutMs: 7 * 86_400_000 }), /timeout/i);
  await assert.rejects(sandbox({ workdir: "relative" }), /absolute/);
  await assert.rejects(sandbox({ runtime: "abacus" }), /runtime/);
});

test("create: a command that does not exist is a failure", async () => {
  const own = await sandbox({ command: ["no-such-program"] });
  assert.equal(await own.wait(), 127);
  assert.match(await own.stderr.readText(), /no-such-program/);
});

test("create: large output can be read from the beginning after the end", async () => {
  const own = await sandbox({ command: ["sh", "-c", "seq 1 100000"] });
  assert.equal(await own.wait(), 0);
  const again = await client.sandboxes.fromId(own.sandboxId);
  const all = Array.from({ length: 100_000 }, (_, n) => `${n + 1}\n`).join("");
  assert.equal(await own.stdout.readText(), all);
  assert.equal(await again.stdout.readText(), all);
});

test("logs: the lines of the command are filtered by stream and text", async () => {
  const own = await sandbox({ command: ["sh", "-c", "echo one; echo two >&2; echo three"] });
  await own.wait();
  const texts = async (entries) => {
    const all = [];
    for await (const entry of entries) all.push([entry.source, entry.message.trim(), entry.objectId]);
    return all.sort();
  };
  const since = new Date(Date.now() - 3_600_000);
  const of = (source, text) => [source, text, own.sandboxId];
  const stdout = [of("stdout", "one"), of("stdout", "three")];
  assert.deepEqual(await texts(own.logs.fetch({ since })), [of("stderr", "two"), ...stdout]);
  assert.deepEqual(await texts(own.logs.fetch({ since, source: "stdout" })), stdout);
  assert.deepEqual(await texts(own.logs.fetch({ since, searchText: "thr" })), [of("stdout", "three")]);
  assert.deepEqual(await texts(own.logs.fetch({ since, until: new Date(since.getTime() + 60_000) })), []);
  assert.deepEqual(await texts(own.logs.tail({ entries: 1, source: "stdout" })), [of("stdout", "three")]);
});

test("V1 backend: names, tags, lists, input, output and readiness work", async () => {
  process.env["MODAL_SANDBOX_V2"] = "0";
  const v1 = new modal.ModalClient({ logLevel: "error" });
  delete process.env["MODAL_SANDBOX_V2"];
  const [name, value] = [fresh("v1"), fresh("tag")];
  const from = v1.images.fromRegistry("debian:bookworm");
  const options = {
    name,
    tags: { key: value },
    command: ["sh", "-c", "read x; echo got $x; echo e >&2; cat; exit 5"],
    readinessProbe: modal.Probe.withExec(["true"], { intervalMs: 50 }),
  };
  const own = await v1.sandboxes.create(app, from, options);
  assert.equal(own.sandboxId.length, 25);
  await own.waitUntilReady(20_000);
  assert.equal((await v1.sandboxes.fromName(appName, name)).sandboxId, own.sandboxId);
  await assert.rejects(v1.sandboxes.create(app, from, { name }), modal.AlreadyExistsError);
  const seen = [];
  for await (const one of v1.sandboxes.list({ appId: app.appId, tags: { key: value } })) seen.push(one.sandboxId);
  assert.deepEqual(seen, [own.sandboxId]);
  await own.stdin.writeText("typed\n");
  await own.stdin.close();
  assert.equal(await own.stdout.readText(), "got typed\n");
  assert.equal(await own.stderr.readText(), "e\n");
  assert.equal(await own.wait(), 5);
  v1.close();
});
