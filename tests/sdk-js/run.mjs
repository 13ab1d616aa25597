// The official JavaScript SDK, unmodified, against the emulator that MODAL_SERVER_URL names.
//
//     MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test node run.mjs [WORD…]
//
// Words choose the checks whose text contains one of them.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";

import * as modal from "modal";

const client = new modal.ModalClient();
const checks = [];
const check = (name, body) => checks.push([name, body]);
const app = await client.apps.fromName("sdk-checks-js", { createIfMissing: true });
const image = client.images.fromRegistry("debian:bookworm");
const open = [];

async function sandbox(options = {}, from = image) {
  const made = await client.sandboxes.create(app, from, { timeoutMs: 120_000, ...options });
  open.push(made);
  return made;
}

let common;
async function shared() {
  return (common ??= await sandbox({ timeoutMs: 600_000 }));
}

async function sh(where, script, options = {}) {
  const process = await where.exec(["sh", "-c", script], options);
  const [out, err, code] = await Promise.all([process.stdout.readText(), process.stderr.readText(), process.wait()]);
  return [out, err, code];
}

const fresh = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`;

check("apps: the same name is the same app, an unknown one is not found", async () => {
  const again = await client.apps.fromName("sdk-checks-js");
  assert.equal(again.appId, app.appId);
  await assert.rejects(client.apps.fromName(fresh("missing")), modal.NotFoundError);
});

check("create: ids of the second backend", async () => {
  assert.equal((await shared()).sandboxId.length, 29);
});

check("exec: stdout, stderr and exit code", async () => {
  assert.deepEqual(await sh(await shared(), "echo out; echo err >&2; exit 7"), ["out\n", "err\n", 7]);
});

check("exec: arguments as they are", async () => {
  const process = await (await shared()).exec(["printf", "%s|", "a b", "", "$HOME", "é"]);
  assert.equal(await process.stdout.readText(), "a b||$HOME|é|");
});

check("exec: bytes", async () => {
  const process = await (await shared()).exec(["printf", "\\000\\377"], { mode: "binary" });
  assert.deepEqual([...(await process.stdout.readBytes())], [0, 255]);
});

check("exec: env and workdir", async () => {
  const options = { env: { A: "x y" }, workdir: "/usr/lib" };
  assert.deepEqual(await sh(await shared(), 'echo "$A"; pwd', options), ["x y\n/usr/lib\n", "", 0]);
});

check("exec: secrets", async () => {
  const secret = await client.secrets.fromObject({ S: "1" });
  assert.equal((await sh(await shared(), "echo $S", { secrets: [secret] }))[0], "1\n");
});

check("exec: standard input and its end", async () => {
  const process = await (await shared()).exec(["cat"]);
  await process.stdin.writeText("one\n");
  await process.stdin.writeText("two\n");
  await process.stdin.close();
  assert.equal(await process.stdout.readText(), "one\ntwo\n");
  assert.equal(await process.wait(), 0);
});

check("exec: output is there after the end", async () => {
  const process = await (await shared()).exec(["seq", "1", "50000"]);
  assert.equal(await process.wait(), 0);
  const text = await process.stdout.readText();
  assert.equal(text.split("\n").length, 50001);
});

check("exec: death by signal", async () => {
  assert.equal((await sh(await shared(), "kill -9 $$"))[2], 137);
});

check("exec: a missing program", async () => {
  const process = await (await shared()).exec(["no-such-program"]);
  assert.equal(await process.wait(), 127);
  assert.match(await process.stderr.readText(), /no-such-program/);
});

check("exec: time limit", async () => {
  const process = await (await shared()).exec(["sleep", "60"], { timeoutMs: 1000 });
  // The server kills at the same moment as the client gives up waiting: whichever is seen first.
  const ended = await process.wait().catch((error) => String(error));
  assert.ok(ended === 137 || /deadline/i.test(ended), String(ended));
});

check("exec: a terminal", async () => {
  const process = await (await shared()).exec(["sh", "-c", "stty size; echo $TERM"], { pty: true });
  assert.equal(await process.stdout.readText(), "24 80\r\nxterm-256color\r\n");
});

check("exec: 30 at the same time", async () => {
  const where = await shared();
  const all = await Promise.all(Array.from({ length: 30 }, (_, n) => sh(where, `echo ${n}; exit ${n}`)));
  assert.deepEqual(all, Array.from({ length: 30 }, (_, n) => [`${n}\n`, "", n]));
});

check("exec: 32 MiB of output", async () => {
  const process = await (await shared()).exec(["head", "-c", "33554432", "/dev/zero"], { mode: "binary" });
  assert.equal((await process.stdout.readBytes()).length, 33554432);
});

check("files: text and bytes", async () => {
  const { filesystem } = await shared();
  await filesystem.writeText("grüße", "/tmp/js/a/text");
  assert.equal(await filesystem.readText("/tmp/js/a/text"), "grüße");
  const data = randomBytes(1 << 20);
  await filesystem.writeBytes(data, "/tmp/js/bytes");
  assert.ok(data.equals(await filesystem.readBytes("/tmp/js/bytes")));
});

check("files: list and stat", async () => {
  const where = await shared();
  await sh(where, "mkdir -p /tmp/jl/sub; echo 123 > /tmp/jl/b; ln -s b /tmp/jl/link; chmod 640 /tmp/jl/b");
  const entries = await where.filesystem.listFiles("/tmp/jl");
  assert.deepEqual(entries.map((e) => [e.name, e.type]), [["b", "file"], ["link", "symlink"], ["sub", "directory"]]);
  const info = await where.filesystem.stat("/tmp/jl/b");
  assert.deepEqual([info.size, info.permissions], [4, "0640"]);
});

check("files: directories and removal", async () => {
  const { filesystem } = await shared();
  await filesystem.makeDirectory("/tmp/jm/a/b");
  await assert.rejects(filesystem.remove("/tmp/jm"), modal.SandboxFilesystemDirectoryNotEmptyError);
  await filesystem.remove("/tmp/jm", { recursive: true });
  await assert.rejects(filesystem.stat("/tmp/jm"), modal.SandboxFilesystemNotFoundError);
});

check("files: what is not there, and what is a directory", async () => {
  const { filesystem } = await shared();
  await assert.rejects(filesystem.readText("/tmp/nowhere"), modal.SandboxFilesystemNotFoundError);
  await assert.rejects(filesystem.readText("/tmp"), modal.SandboxFilesystemIsADirectoryError);
  await assert.rejects(filesystem.writeText("x", "/tmp"), modal.SandboxFilesystemIsADirectoryError);
});

check("create: a command, its output, its code", async () => {
  const own = await sandbox({ command: ["sh", "-c", "echo out; echo err >&2; exit 42"] });
  assert.equal(await own.stdout.readText(), "out\n");
  assert.equal(await own.stderr.readText(), "err\n");
  assert.equal(await own.wait(), 42);
  assert.equal(await own.poll(), 42);
});

check("create: input of the command", async () => {
  const own = await sandbox({ command: ["cat"] });
  await own.stdin.writeText("typed\n");
  await own.stdin.close();
  assert.equal(await own.stdout.readText(), "typed\n");
});

check("create: env and workdir", async () => {
  const own = await sandbox({ command: ["sh", "-c", "echo $A; pwd"], env: { A: "1" }, workdir: "/usr" });
  assert.equal(await own.stdout.readText(), "1\n/usr\n");
});

check("poll, terminate, wait", async () => {
  const own = await sandbox();
  assert.equal(await own.poll(), null);
  const other = await client.sandboxes.fromId(own.sandboxId);
  await own.terminate();
  assert.equal(await other.wait(), 137);
});

check("create: a life time", async () => {
  const own = await sandbox({ timeoutMs: 1000 });
  assert.equal(await own.wait(), 124);
});

check("names: found by name, unique", async () => {
  const name = fresh("name");
  const own = await sandbox({ name });
  const found = await client.sandboxes.fromName("sdk-checks-js", name);
  assert.equal(found.sandboxId, own.sandboxId);
  await assert.rejects(sandbox({ name }), modal.AlreadyExistsError);
  await assert.rejects(client.sandboxes.fromName("sdk-checks-js", fresh("no")), modal.NotFoundError);
});

check("tags and list", async () => {
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

check("images: RUN, ENV, WORKDIR", async () => {
  const built = image.dockerfileCommands(["ENV A=1", "WORKDIR /w", "RUN echo $A > file"]);
  assert.deepEqual(await sh(await sandbox({}, built), "cat file; pwd; echo $A"), ["1\n/w\n1\n", "", 0]);
});

check("images: a failing build", async () => {
  await assert.rejects(sandbox({}, image.dockerfileCommands(["RUN exit 9"])), /code 9/);
});

check("images: a registry image that does not exist", async () => {
  await assert.rejects(sandbox({}, client.images.fromRegistry("does-not-exist:1")), /not found/);
});

check("images: by id", async () => {
  const built = await image.dockerfileCommands(["RUN echo x > /x"]).build(app);
  const found = await client.images.fromId(built.imageId);
  assert.equal((await sh(await sandbox({}, found), "cat /x"))[0], "x\n");
  await assert.rejects(client.images.fromId("im-0000000000000000000000"), modal.NotFoundError);
});

check("snapshots: files become an image", async () => {
  const own = await sandbox();
  await sh(own, "echo kept > /kept");
  const taken = await own.snapshotFilesystem();
  assert.equal((await sh(await sandbox({}, taken), "cat /kept"))[0], "kept\n");
});

check("volumes: shared", async () => {
  const volume = await client.volumes.fromName(fresh("vol"), { createIfMissing: true });
  const [one, two] = [await sandbox({ volumes: { "/v": volume } }), await sandbox({ volumes: { "/v": volume } })];
  await sh(one, "echo shared > /v/f");
  assert.equal((await sh(two, "cat /v/f"))[0], "shared\n");
});

check("secrets: named ones that are missing", async () => {
  await assert.rejects(client.secrets.fromName(fresh("no")), modal.NotFoundError);
});

check("first backend: for a GPU", async () => {
  const own = await sandbox({ gpu: "T4", command: ["sh", "-c", "echo v1; sleep 60"] });
  assert.equal(own.sandboxId.length, 25);
  assert.deepEqual(await sh(own, "echo hi"), ["hi\n", "", 0]);
  await own.terminate();
});

const wanted = process.argv.slice(2);
let [passed, failed] = [0, 0];
for (const [name, body] of checks) {
  if (wanted.length && !wanted.some((word) => name.includes(word))) continue;
  const began = performance.now();
  try {
    await body();
    passed += 1;
    console.log(`ok   ${name} (${Math.round(performance.now() - began)} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}`);
    console.error(error);
  }
}
await Promise.all(open.map((one) => one.terminate().catch(() => {})));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
