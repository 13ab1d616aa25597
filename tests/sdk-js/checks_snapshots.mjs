// Snapshots of file systems and directories, and images mounted in running sandboxes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { NotFoundError } from "modal";

import { app, client, eventually, fresh, image, sandbox, sh, shared } from "./harness.mjs";

/** Creates a directory with files at a new path. */
async function project(where) {
  const path = `/job/${fresh("p")}`;
  const script = `mkdir -p ${path}/sub && cd ${path} && echo one > f && chmod 640 f && echo deep > sub/g`;
  assert.deepEqual(await sh(where, script), ["", "", 0]);
  return path;
}

/** Returns the error of a promise that must be rejected. */
async function failure(promise) {
  return promise.then(
    (value) => assert.fail(`expected an error, but the call returned ${value}`),
    (error) => error,
  );
}

test("snapshots: the files of a sandbox become an image", async () => {
  const own = await sandbox();
  await sh(own, "echo kept > /kept");
  const taken = await own.snapshotFilesystem();
  assert.equal((await sh(await sandbox({}, taken), "cat /kept"))[0], "kept\n");
});

test("snapshots: a directory of one sandbox is mounted in another", async () => {
  const [one, two] = [await sandbox(), await sandbox()];
  const taken = await one.snapshotDirectory(await project(one));
  assert.match(taken.imageId, /^im-/);
  await two.mountImage("/user/project", taken);
  assert.deepEqual(await sh(two, "cd /user/project && cat f sub/g && stat -c %a f"), ["one\ndeep\n640\n", "", 0]);
  // The snapshot is found by its id, too, and each sandbox has its own copy.
  await sh(two, "echo changed > /user/project/f");
  await one.mountImage("/again", await client.images.fromId(taken.imageId));
  assert.equal((await sh(one, "cat /again/f"))[0], "one\n");
});

test("snapshots: a snapshot of a mounted directory contains the changes", async () => {
  const own = await sandbox();
  await own.mountImage("/m", await own.snapshotDirectory(await project(own)));
  await sh(own, "echo two > /m/f; rm -r /m/sub");
  await own.mountImage("/again", await own.snapshotDirectory("/m"));
  assert.equal((await sh(own, "cd /again; ls; cat f"))[0], "f\ntwo\n");
});

test("mounts: an empty directory hides the files below it until it is unmounted", async () => {
  const own = await shared();
  const path = await project(own);
  await own.mountImage(path);
  assert.equal((await sh(own, `ls -A ${path}; echo x > ${path}/x; cat ${path}/x`))[0], "x\n");
  await own.unmountImage(path);
  assert.equal((await sh(own, `ls ${path}`))[0], "f\nsub\n");
});

test("mounts: a built image shows all its files", async () => {
  const own = await shared();
  const built = await image.dockerfileCommands(["RUN mkdir /made && echo built > /made/f"]).build(app);
  const path = `/job/${fresh("image")}`;
  await own.mountImage(path, built);
  assert.equal((await sh(own, `cat ${path}/made/f; test -x ${path}/usr/bin/env && echo programs`))[0], "built\nprograms\n");
  await own.unmountImage(path);
});

test("mounts: an invalid path is refused", async () => {
  const own = await shared();
  for (const path of ["/", "/proc/sys", "/etc/passwd", "relative"]) {
    assert.match((await failure(own.mountImage(path))).message, /INVALID_ARGUMENT/, path);
  }
  await assert.rejects(own.mountImage("/m", client.images.fromRegistry("debian")), /must be built/);
});

test("mounts: a path without a mount cannot be unmounted", async () => {
  const own = await shared();
  assert.match((await failure(own.unmountImage("/tmp"))).message, /FAILED_PRECONDITION.*nothing is mounted/i);
});

test("snapshots: a missing directory is an error", async () => {
  const own = await shared();
  assert.match((await failure(own.snapshotDirectory("/no/such"))).message, /NOT_FOUND.*no such directory/i);
});

test("snapshots: an expired snapshot is not found", async () => {
  const own = await shared();
  const path = await project(own);
  const [taken, lasting] = [await own.snapshotDirectory(path, { ttlMs: 1000 }), await own.snapshotDirectory(path, { ttlMs: null })];
  await eventually(() => client.images.fromId(taken.imageId).then(() => false, (error) => error instanceof NotFoundError));
  assert.match((await failure(own.mountImage("/m", taken))).message, /NOT_FOUND/);
  assert.match((await failure(client.sandboxes.create(app, taken))).message, /NOT_FOUND/);
  await own.mountImage("/m", lasting);
  await own.unmountImage("/m");
});

test("snapshots: a snapshot with a key can be used only with the key", async () => {
  const own = await shared();
  const key = new Uint8Array(16).fill(7);
  const taken = await own.snapshotDirectory(await project(own), { experimentalEncryptionKey: key });
  const path = `/job/${fresh("sealed")}`;
  assert.match((await failure(own.mountImage(path, taken))).message, /encryption key/);
  await own.mountImage(path, taken, { experimentalEncryptionKey: key });
  assert.equal((await sh(own, `cat ${path}/f`))[0], "one\n");
});

test("sidecars: directories of sidecars are mounted independently", async () => {
  const own = await sandbox();
  const side = await own.experimentalSidecars.create("side", image, { command: ["sleep", "60"] });
  await side.mountImage("/workspace");
  const process = await side.exec(["sh", "-c", "echo side > /workspace/f; cat /workspace/f"]);
  assert.equal(await process.stdout.readText(), "side\n");
  await own.mountImage("/workspace", await side.snapshotDirectory("/workspace"));
  await side.unmountImage("/workspace");
  assert.equal((await sh(own, "cat /workspace/f"))[0], "side\n");
  assert.equal(await (await side.exec(["ls", "-A", "/workspace"])).stdout.readText(), "");
});
