// Images: builds, names and their use in sandboxes.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as modal from "modal";

import { app, client, fresh, image, sandbox, sh } from "./harness.mjs";

test("images: RUN, ENV and WORKDIR take effect", async () => {
  const built = image.dockerfileCommands(["ENV A=1", "WORKDIR /w", "RUN echo $A > file"]);
  assert.deepEqual(await sh(await sandbox({}, built), "cat file; pwd; echo $A"), ["1\n/w\n1\n", "", 0]);
});

test("images: a failing build is an error", async () => {
  await assert.rejects(sandbox({}, image.dockerfileCommands(["RUN exit 9"])), /code 9/);
});

test("images: a registry image that does not exist is an error", async () => {
  await assert.rejects(sandbox({}, client.images.fromRegistry("does-not-exist:1")), /not found/);
});

test("images: an image is found by its id", async () => {
  const built = await image.dockerfileCommands(["RUN echo x > /x"]).build(app);
  const found = await client.images.fromId(built.imageId);
  assert.equal((await sh(await sandbox({}, found), "cat /x"))[0], "x\n");
  await assert.rejects(client.images.fromId("im-0000000000000000000000"), modal.NotFoundError);
});

test("images: builds can be stacked, and the environment sets the builder version", async () => {
  assert.equal(await client.getImageBuilderVersion(), "2025.06");
  const first = image.dockerfileCommands(["RUN echo 1 > /one; echo old > /both"]);
  const second = first.dockerfileCommands(["RUN echo 2 > /two; echo new > /both; rm /one"]);
  assert.equal((await sh(await sandbox({}, second), "cat /two /both; test -e /one || echo gone"))[0], "2\nnew\ngone\n");
  assert.equal((await sh(await sandbox({}, first), "cat /one /both"))[0], "1\nold\n");
});

test("images: one layer can contain stages, USER, SHELL, ARG, ENTRYPOINT and CMD", async () => {
  const built = image.dockerfileCommands([
    "RUN mkdir /made && echo from the first > /made/file",
    "FROM debian AS last",
    "ARG WORD=argument",
    'SHELL ["/bin/sh", "-ec"]',
    "COPY --from=0 /made/ /copied/",
    "RUN echo $WORD > /copied/word; id -u > /copied/uid",
    'ENTRYPOINT ["cat", "/copied/file"]',
    'CMD ["/copied/word", "/copied/uid"]',
  ]);
  const own = await sandbox({}, built);
  assert.equal(await own.stdout.readText(), "from the first\nargument\n0\n");
});

test("images: a build has variables, secrets and a GPU", async () => {
  const secret = await client.secrets.fromObject({ TOKEN: "s3cret" });
  const options = { env: { MODE: "fast" }, secrets: [secret], gpu: "T4" };
  const built = image.dockerfileCommands(["RUN echo $MODE ${#TOKEN} > /seen"], options);
  assert.equal((await sh(await sandbox({}, built), 'cat /seen; echo "[$TOKEN$MODE]"'))[0], "fast 6\n[]\n");
});

test("images: the same layers are the same image, and force builds again", async () => {
  const lines = [`RUN echo ${fresh("x")} $(date +%s%N) > /stamp`];
  const stamp = async (options) => {
    const built = image.dockerfileCommands(lines, options);
    return (await sh(await sandbox({}, built), "cat /stamp"))[0];
  };
  const once = await stamp();
  assert.equal(await stamp(), once);
  assert.notEqual(await stamp({ forceBuild: true }), once);
});

test("images: a published image is found by its name and deleted", async () => {
  const built = await image.dockerfileCommands([`RUN echo ${fresh("p")} > /p`]).build(app);
  const name = fresh("image");
  await built.publish(name);
  await built.publish(`${name}:v1`);
  assert.equal((await client.images.fromName(name)).imageId, built.imageId);
  assert.equal((await client.images.fromName(`${name}:v1`)).imageId, built.imageId);
  await assert.rejects(client.images.fromName(`${name}:v2`), modal.NotFoundError);
  await client.images.delete(built.imageId);
  await assert.rejects(client.images.fromId(built.imageId), modal.NotFoundError);
  await assert.rejects(client.images.fromName(name), modal.NotFoundError);
  await assert.rejects(client.images.delete(built.imageId), modal.NotFoundError);
});

test("images: registries that require a login accept a secret", async () => {
  const secret = await client.secrets.fromObject({ REGISTRY_USERNAME: "u", REGISTRY_PASSWORD: "p" });
  for (const from of [
    client.images.fromRegistry("registry.example/private/image:1", secret),
    client.images.fromAwsEcr("000000000000.dkr.ecr.us-east-1.amazonaws.com/image:1", secret),
    client.images.fromGcpArtifactRegistry("us-east1-docker.pkg.dev/project/image:1", secret),
  ]) {
    assert.match((await from.build(app)).imageId, /^im-\w{22}$/);
  }
});

test("images: a failing build is named with its output", async () => {
  const failing = image.dockerfileCommands(["RUN true", "RUN echo something goes wrong; exit 9"]);
  await assert.rejects(failing.build(app), /Image build for im-\w{22} failed[^]*RUN echo something goes wrong[^]*code 9/);
  await assert.rejects(image.dockerfileCommands(["FROB x"]).build(app), /line 2: unknown instruction: FROB/);
  assert.throws(() => image.dockerfileCommands(["COPY a b"]), modal.InvalidError);
});
