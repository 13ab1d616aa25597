// Files and directories.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { SandboxError } from "sandbox-host";

import { fails, openModal, startEmulator } from "./support.mjs";

let provider;
let sandbox;
let local;

before(async () => {
  provider = await openModal(await startEmulator());
  sandbox = await provider.create({ image: "debian" });
  local = await mkdtemp(join(tmpdir(), "sandbox-host-"));
});

after(async () => {
  await provider?.close();
  await rm(local, { recursive: true });
});

test("a text is written and read", async () => {
  await sandbox.writeFile("/data/deep/text", "grüße\n");
  assert.equal(await sandbox.readFile("/data/deep/text", { encoding: "utf8" }), "grüße\n");
  assert.equal(await sandbox.readFile("/data/deep/text", { encoding: "hex" }), Buffer.from("grüße\n").toString("hex"));
});

test("bytes are written and read", async () => {
  const bytes = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, index) => (index * 7) % 256));
  await sandbox.writeFile("/data/bytes", bytes);
  assert.ok((await sandbox.readFile("/data/bytes")).equals(bytes));
});

test("an empty file is written and read", async () => {
  await sandbox.writeFile("/data/empty", "");
  assert.equal((await sandbox.readFile("/data/empty")).length, 0);
});

test("a file is appended to, and created only if it is new", async () => {
  await sandbox.writeFile("/data/log", "a");
  await sandbox.writeFile("/data/log", "b", { mode: "append" });
  assert.equal(await sandbox.readFile("/data/log", { encoding: "utf8" }), "ab");
  await fails("file:already-exists", sandbox.writeFile("/data/log", "c", { mode: "create-new" }));
});

test("permissions are set and shown", async () => {
  await sandbox.writeFile("/data/secret", "x", { permissions: 0o600 });
  assert.equal((await sandbox.stat("/data/secret")).mode & 0o777, 0o600);
  await sandbox.chmod("/data/secret", 0o644);
  const info = await sandbox.stat("/data/secret");
  assert.equal(info.mode & 0o777, 0o644);
  assert.deepEqual(info.type, { kind: "file" });
  assert.equal(info.size, 1);
  assert.ok(Math.abs(info.modifiedMs - Date.now()) < 3_600_000);
});

test("a missing file has a kind of its own", async () => {
  const error = await fails("file:not-found", sandbox.readFile("/data/none"));
  assert.ok(error.message.includes("/data/none"), error.message);
  await fails("file:is-a-directory", sandbox.readFile("/data"));
});

test("a file that is too large is not read", async () => {
  await sandbox.writeFile("/data/large", "x".repeat(100));
  await fails("file:too-large", sandbox.readFile("/data/large", { max: 99 }));
});

test("a directory is listed", async () => {
  await sandbox.makeDirectory("/list/inner");
  await sandbox.writeFile("/list/file", "four");
  const entries = (await sandbox.readDirectory("/list")).sort((a, b) => a.name.localeCompare(b.name));
  assert.deepEqual(entries.map(({ name, type }) => [name, type.kind]), [["file", "file"], ["inner", "directory"]]);
  assert.equal(entries[0].path, "/list/file");
});

test("directories are made and removed", async () => {
  await fails("file:not-found", sandbox.makeDirectory("/dirs/a/b", { parents: false }));
  await sandbox.makeDirectory("/dirs/a/b");
  await fails("file:not-empty", sandbox.remove("/dirs"));
  await sandbox.remove("/dirs", { recursive: true });
  await fails("file:not-found", sandbox.stat("/dirs"));
});

test("a file is renamed, and replaces another one only if that is wanted", async () => {
  await sandbox.writeFile("/data/old", "old");
  await sandbox.writeFile("/data/new", "new");
  await fails("file:already-exists", sandbox.rename("/data/old", "/data/new", { replace: false }));
  await sandbox.rename("/data/old", "/data/new");
  assert.equal(await sandbox.readFile("/data/new", { encoding: "utf8" }), "old");
});

test("links are made and followed", async () => {
  await sandbox.writeFile("/data/target", "x");
  await sandbox.symlink("target", "/data/link");
  assert.deepEqual((await sandbox.stat("/data/link", { follow: false })).type, { kind: "symlink", target: "target" });
  assert.equal((await sandbox.stat("/data/link")).type.kind, "file");
});

test("files of this machine are copied in and out", async () => {
  const bytes = Buffer.alloc(2_000_000, "abc");
  await writeFile(join(local, "in"), bytes);
  assert.equal(await sandbox.upload(join(local, "in"), "/data/copied", { permissions: 0o755 }), bytes.length);
  assert.equal((await sandbox.stat("/data/copied")).mode & 0o777, 0o755);
  assert.equal(await sandbox.download("/data/copied", join(local, "out")), bytes.length);
  assert.ok((await readFile(join(local, "out"))).equals(bytes));
});

test("a missing local file is an error that names it", async () => {
  const upload = sandbox.upload(join(local, "none"), "/data/x");
  await assert.rejects(upload, (error) => error instanceof SandboxError && error.message.includes(join(local, "none")));
});

test("directories are copied in and out", async () => {
  await mkdir(join(local, "tree/inner"), { recursive: true });
  await writeFile(join(local, "tree/inner/file"), "content");
  await symlink("inner/file", join(local, "tree/link"));
  const sent = await sandbox.uploadDirectory(join(local, "tree"), "/tree");
  assert.deepEqual(sent.skipped, []);
  assert.equal(await sandbox.readFile("/tree/link", { encoding: "utf8" }), "content");
  const received = await sandbox.downloadDirectory("/tree", join(local, "back"));
  assert.ok(received.bytes > 0);
  assert.equal(await readFile(join(local, "back/inner/file"), "utf8"), "content");
});

test("entries that cannot be sent are skipped and named", async () => {
  await mkdir(join(local, "special/inner"), { recursive: true });
  await writeFile(join(local, "special/inner/file"), "content");
  execFileSync("mkfifo", [join(local, "special/inner/pipe")]);
  const sent = await sandbox.uploadDirectory(join(local, "special"), "/special");
  assert.deepEqual([sent.skipped, sent.skippedTotal], [[{ path: "inner/pipe", reason: "a pipe" }], 1]);
  assert.deepEqual((await sandbox.readDirectory("/special/inner")).map(({ name }) => name), ["file"]);
});

test("a copy reports its progress", async () => {
  const size = 3_000_000;
  await mkdir(join(local, "much"));
  await writeFile(join(local, "much/file"), Buffer.alloc(size, "abc"));
  const copies = [
    [size, (options) => sandbox.upload(join(local, "much/file"), "/data/much", options)],
    [size, (options) => sandbox.download("/data/much", join(local, "much/file"), options)],
    [null, async (options) => (await sandbox.uploadDirectory(join(local, "much"), "/much", options)).bytes],
    [null, async (options) => (await sandbox.downloadDirectory("/much", join(local, "again"), options)).bytes],
  ];
  for (const [total, copy] of copies) {
    const seen = [];
    const bytes = await copy({ onProgress: (progress) => seen.push(progress) });
    assert.ok(bytes >= size);
    assert.deepEqual(seen.at(-1), { bytes, total });
    assert.ok(seen.every((progress, index) => index === 0 || progress.bytes >= seen[index - 1].bytes), JSON.stringify(seen));
  }
});

test("an error of the callback for progress cancels the copy", async () => {
  await writeFile(join(local, "cancelled"), Buffer.alloc(1000));
  const onProgress = () => {
    throw new RangeError("in the callback");
  };
  await assert.rejects(sandbox.upload(join(local, "cancelled"), "/data/x", { onProgress }), { message: "in the callback" });
  await fails("invalid-argument", sandbox.upload(join(local, "cancelled"), "/data/x", { onProgress: 1 }));
  await fails("io:not-found", sandbox.upload(join(local, "none"), "/data/x", { onProgress: () => {} }));
});

test("changes of files are watched", async () => {
  await sandbox.makeDirectory("/watched");
  const watch = await sandbox.watch("/watched");
  const seen = [];
  // The watch may begin shortly after its call has returned, so the file is written until an event is seen.
  let found = false;
  const writing = (async () => {
    while (!found) {
      await sandbox.writeFile("/watched/file", "x");
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  })();
  for await (const event of watch) {
    seen.push(event);
    if (event.paths.some((path) => path.endsWith("/file"))) {
      break;
    }
  }
  found = true;
  await writing;
  assert.ok(["created", "modified"].includes(seen.at(-1).kind), JSON.stringify(seen));
  await fails("closed", watch.next());
});

test("a user for file operations is passed on", async () => {
  // The provider for Modal has no such users, and says so.
  const error = await fails("unsupported", sandbox.as("nobody").writeFile("/shared/file", "x"));
  assert.equal(error.subject, "files.user");
});

test("an aborted transfer rejects with the reason", async () => {
  const signal = AbortSignal.abort(new Error("no more"));
  await assert.rejects(sandbox.readFile("/data/bytes", { signal }), { message: "no more" });
  await assert.rejects(sandbox.writeFile("/data/never", "x", { signal }), { message: "no more" });
  await fails("file:not-found", sandbox.stat("/data/never"));
});
