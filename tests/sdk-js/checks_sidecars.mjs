// Sidecars: additional containers of a sandbox, with the same operations as its main container.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as modal from "modal";

import { app, client, eventually, fresh, image, sandbox, sh } from "./harness.mjs";

const built = await image.build(app);

test("sidecars: sidecars are created, found by name and listed, and have their own files", async () => {
  const own = await sandbox();
  const side = await own.experimentalSidecars.create("helper", built, { command: ["sleep", "60"], env: { S: "1" } });
  assert.equal(side.containerName, "helper");
  assert.deepEqual(await sh(side, "echo $S; touch /only-here; echo e >&2; exit 4"), ["1\n", "e\n", 4]);
  assert.equal((await sh(own, "test -e /only-here || echo apart"))[0], "apart\n");
  const found = await own.experimentalSidecars.get("helper");
  assert.equal(found.containerId, side.containerId);
  assert.deepEqual((await own.experimentalSidecars.list()).map((one) => one.containerName), ["helper"]);
  await assert.rejects(own.experimentalSidecars.get("missing"), modal.NotFoundError);
});

test("sidecars: names of running sidecars are unique", async () => {
  const own = await sandbox();
  const side = await own.experimentalSidecars.create("twin", built);
  await assert.rejects(own.experimentalSidecars.create("twin", built), modal.AlreadyExistsError);
  assert.equal(await side.terminate({ wait: true }), 137);
  const next = await own.experimentalSidecars.create("twin", built);
  assert.notEqual(next.containerId, side.containerId);
});

test("sidecars: the exit code of an ended sidecar can be read", async () => {
  const own = await sandbox();
  const side = await own.experimentalSidecars.create("short", built, { command: ["sh", "-c", "exit 6"] });
  assert.equal(await side.wait(), 6);
  assert.equal(await side.poll(), 6);
  assert.deepEqual(await own.experimentalSidecars.list(), []);
  const ended = await own.experimentalSidecars.list({ includeTerminated: true });
  assert.deepEqual(ended.map((one) => one.containerName), ["short"]);
  await assert.rejects(own.experimentalSidecars.get("short"), modal.NotFoundError);
  const found = await own.experimentalSidecars.get("short", { includeTerminated: true });
  assert.equal(await found.poll(), 6);
});

test("sidecars: a sidecar has its own files, workdir, secrets and standard input", async () => {
  const own = await sandbox();
  const secrets = [await client.secrets.fromObject({ K: "kept" })];
  const side = await own.experimentalSidecars.create("worker", built, { workdir: "/usr/lib", secrets });
  assert.equal(await side.poll(), null);
  assert.equal((await sh(side, "pwd; echo $K"))[0], "/usr/lib\nkept\n");
  await side.filesystem.writeText("written", "/tmp/side/file");
  assert.equal(await side.filesystem.readText("/tmp/side/file"), "written");
  await assert.rejects(own.filesystem.readText("/tmp/side/file"), modal.SandboxFilesystemNotFoundError);
  const process = await side.exec(["cat"], { mode: "binary" });
  await process.stdin.writeBytes(new Uint8Array([0, 255, 10]));
  await process.stdin.close();
  assert.deepEqual([...(await process.stdout.readBytes())], [0, 255, 10]);
});

test("sidecars: a sidecar has volumes and snapshots", async () => {
  const volume = await client.volumes.fromName(fresh("vol"), { createIfMissing: true });
  const own = await sandbox({ volumes: { "/v": volume } });
  const side = await own.experimentalSidecars.create("writer", built, { volumes: { "/w": volume } });
  await sh(side, "echo shared > /w/f; echo kept > /kept");
  await own.reloadVolumes();
  await side.reloadVolumes();
  assert.equal((await sh(own, "cat /v/f"))[0], "shared\n");
  const taken = await side.snapshotFilesystem();
  assert.equal((await sh(await sandbox({}, taken), "cat /kept"))[0], "kept\n");
});

test("sidecars: sidecars end with their sandbox", async () => {
  const own = await sandbox();
  const side = await own.experimentalSidecars.create("follower", built);
  await own.terminate();
  await eventually(async () => (await own.poll()) !== null);
  await assert.rejects(sh(side, "true"));
});
