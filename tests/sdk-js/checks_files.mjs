// Files, through the SDK's file system object.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import * as modal from "modal";

import { sandbox, sh, shared } from "./harness.mjs";

test("files: text and bytes are read as they were written", async () => {
  const { filesystem } = await shared();
  await filesystem.writeText("grüße", "/tmp/js/a/text");
  assert.equal(await filesystem.readText("/tmp/js/a/text"), "grüße");
  const data = randomBytes(1 << 20);
  await filesystem.writeBytes(data, "/tmp/js/bytes");
  assert.ok(data.equals(await filesystem.readBytes("/tmp/js/bytes")));
});

test("files: list and stat describe entries", async () => {
  const where = await shared();
  await sh(where, "mkdir -p /tmp/jl/sub; echo 123 > /tmp/jl/b; ln -s b /tmp/jl/link; chmod 640 /tmp/jl/b");
  const entries = await where.filesystem.listFiles("/tmp/jl");
  assert.deepEqual(entries.map((e) => [e.name, e.type]), [["b", "file"], ["link", "symlink"], ["sub", "directory"]]);
  const info = await where.filesystem.stat("/tmp/jl/b");
  assert.deepEqual([info.size, info.permissions], [4, "0640"]);
});

test("files: directories are created and removed", async () => {
  const { filesystem } = await shared();
  await filesystem.makeDirectory("/tmp/jm/a/b");
  await assert.rejects(filesystem.remove("/tmp/jm"), modal.SandboxFilesystemDirectoryNotEmptyError);
  await filesystem.remove("/tmp/jm", { recursive: true });
  await assert.rejects(filesystem.stat("/tmp/jm"), modal.SandboxFilesystemNotFoundError);
});

test("files: missing files and directories are errors", async () => {
  const { filesystem } = await shared();
  await assert.rejects(filesystem.readText("/tmp/nowhere"), modal.SandboxFilesystemNotFoundError);
  await assert.rejects(filesystem.readText("/tmp"), modal.SandboxFilesystemIsADirectoryError);
  await assert.rejects(filesystem.writeText("x", "/tmp"), modal.SandboxFilesystemIsADirectoryError);
});

test("files: 40 MiB are copied from and to local paths unchanged", async () => {
  const { filesystem } = await shared();
  const folder = await mkdtemp(join(tmpdir(), "sdk-js-"));
  try {
    const data = Buffer.concat(Array.from({ length: 40 }, () => randomBytes(1 << 20)));
    await writeFile(join(folder, "there"), data);
    await filesystem.copyFromLocal(join(folder, "there"), "/tmp/jc/deep/big");
    assert.equal((await filesystem.stat("/tmp/jc/deep/big")).size, 40 << 20);
    await filesystem.copyToLocal("/tmp/jc/deep/big", join(folder, "sub", "back"));
    assert.ok(data.equals(await readFile(join(folder, "sub", "back"))));
    await assert.rejects(filesystem.copyFromLocal(join(folder, "none"), "/tmp/jc/x"), { code: "ENOENT" });
    await assert.rejects(
      filesystem.copyToLocal("/tmp/jc/none", join(folder, "x")),
      modal.SandboxFilesystemNotFoundError,
    );
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("files: files may be empty, and names may contain any characters", async () => {
  const { filesystem } = await shared();
  for (const name of ["/tmp/jn/empty", "/tmp/jn/a b", "/tmp/jn/ünï", "/tmp/jn/-dash", "/tmp/jn/new\nline"]) {
    await filesystem.writeBytes(new Uint8Array(), name);
    assert.equal((await filesystem.readBytes(name)).length, 0);
  }
  const names = (await filesystem.listFiles("/tmp/jn")).map((entry) => entry.name);
  assert.deepEqual(names, ["-dash", "a b", "empty", "new\nline", "ünï"]);
});

test("files: stat describes a link, not its target", async () => {
  const where = await shared();
  await sh(where, "mkdir -p /tmp/jk; ln -sfn nowhere /tmp/jk/link");
  const info = await where.filesystem.stat("/tmp/jk/link");
  assert.deepEqual([info.type, info.symlinkTarget, info.owner], ["symlink", "nowhere", "root"]);
});

test("files: a write replaces the content and keeps the mode", async () => {
  const where = await shared();
  await sh(where, "mkdir -p /tmp/jo; echo a long line of text > /tmp/jo/f; chmod 751 /tmp/jo/f");
  await where.filesystem.writeText("b", "/tmp/jo/f");
  assert.equal((await sh(where, "cat /tmp/jo/f; stat -c ' %a' /tmp/jo/f"))[0], "b 751\n");
});

test("files: missing parents and files in the place of directories are errors", async () => {
  const { filesystem } = await shared();
  await filesystem.writeText("x", "/tmp/jw/file");
  const alone = { createParents: false };
  await assert.rejects(filesystem.makeDirectory("/tmp/jw/a/b", alone), modal.SandboxFilesystemNotFoundError);
  await assert.rejects(filesystem.makeDirectory("/tmp/jw", alone), modal.SandboxFilesystemPathAlreadyExistsError);
  await assert.rejects(filesystem.makeDirectory("/tmp/jw/file"), modal.SandboxFilesystemPathAlreadyExistsError);
  await assert.rejects(filesystem.makeDirectory("/tmp/jw/file/x"), modal.SandboxFilesystemNotADirectoryError);
  await assert.rejects(filesystem.writeText("y", "/tmp/jw/file/x"), modal.SandboxFilesystemNotADirectoryError);
  await assert.rejects(filesystem.listFiles("/tmp/jw/file"), modal.SandboxFilesystemNotADirectoryError);
  await assert.rejects(filesystem.stat("/tmp/jw/file/x"), modal.SandboxFilesystemNotADirectoryError);
  await filesystem.makeDirectory("/tmp/jw/new", alone);
  assert.equal((await filesystem.stat("/tmp/jw/new")).type, "directory");
});

test("files: operations that the file system does not permit are errors", async () => {
  const { filesystem } = await shared();
  await assert.rejects(filesystem.writeText("x", "/proc/version"), modal.SandboxFilesystemError);
  await assert.rejects(filesystem.remove("/proc/version"), modal.SandboxFilesystemError);
  await assert.rejects(filesystem.readText("relative"), modal.InvalidError);
});

test("files: a file of more than 5 GiB is not read", async () => {
  const where = await shared();
  await sh(where, "truncate -s 6G /tmp/js-huge");
  await assert.rejects(where.filesystem.readBytes("/tmp/js-huge"), modal.SandboxFilesystemFileTooLargeError);
  await where.filesystem.remove("/tmp/js-huge");
});

/** Returns the first matching event, while a command repeats a change. */
async function seen(where, path, params, script, fits) {
  const looping = await where.exec(["sh", "-c", `n=0; while :; do n=$((n+1)); ${script}; sleep 0.05; done`]);
  const events = where.filesystem.watch(path, { timeoutMs: 30_000, ...params });
  try {
    for await (const event of events) if (fits(event)) return event;
  } finally {
    await looping.stdout.cancel();
  }
  throw new Error("the watch reported no event");
}

test("files: a watch reports creations, changes and removals", async () => {
  const own = await sandbox();
  await sh(own, "mkdir /tmp/w; : > /tmp/w/old");
  const made = await seen(own, "/tmp/w", {}, ": > /tmp/w/new$n", (event) => event.eventType === "Create");
  assert.match(made.paths[0], /^\/tmp\/w\/new\d+$/);
  const changed = await seen(own, "/tmp/w/old", {}, "echo x >> /tmp/w/old", (event) => event.eventType === "Modify");
  assert.deepEqual(changed.paths, ["/tmp/w/old"]);
});

test("files: a recursive watch can be filtered", async () => {
  const own = await sandbox();
  await sh(own, "mkdir -p /tmp/w/a/b");
  const params = { recursive: true, filter: ["Remove"] };
  const gone = await seen(own, "/tmp/w", params, ": > /tmp/w/a/b/f; rm /tmp/w/a/b/f", () => true);
  assert.deepEqual([gone.eventType, gone.paths], ["Remove", ["/tmp/w/a/b/f"]]);
});

test("files: a watch ends with its timeout and needs an existing path", async () => {
  const { filesystem } = await shared();
  const events = [];
  for await (const event of filesystem.watch("/usr/share", { timeoutMs: 1000 })) events.push(event);
  assert.deepEqual(events, []);
  const missing = async () => {
    for await (const event of filesystem.watch("/tmp/nowhere", { timeoutMs: 1000 })) throw new Error(String(event));
  };
  await assert.rejects(missing(), modal.SandboxFilesystemNotFoundError);
});
