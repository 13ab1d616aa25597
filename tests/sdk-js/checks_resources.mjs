// Secrets, volumes, proxies and cloud buckets.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as modal from "modal";

import { client, fresh, sandbox, sh, shared } from "./harness.mjs";

test("volumes: written files are seen after a reload", async () => {
  const volume = await client.volumes.fromName(fresh("vol"), { createIfMissing: true });
  const [one, two] = [await sandbox({ volumes: { "/v": volume } }), await sandbox({ volumes: { "/v": volume } })];
  await sh(one, "echo shared > /v/f; sync /v");
  assert.equal((await sh(two, "ls /v"))[0], "");
  await two.reloadVolumes();
  assert.equal((await sh(two, "cat /v/f"))[0], "shared\n");
});

test("volumes: callers that create one name at the same time get the same volume", async () => {
  for (let round = 0; round < 10; round++) {
    const name = fresh("vol");
    const made = await Promise.all(
      Array.from({ length: 8 }, () => client.volumes.fromName(name, { createIfMissing: true })),
    );
    assert.equal(new Set(made.map((volume) => volume.volumeId)).size, 1);
  }
});

test("images: an unknown image cannot be deleted", async () => {
  await assert.rejects(client.images.delete("im-nonexistent"), /No Image with ID/);
});

test("secrets: an unknown name is an error", async () => {
  await assert.rejects(client.secrets.fromName(fresh("no")), modal.NotFoundError);
});

test("secrets: named secrets are found, required keys are checked, and secrets are removed", async () => {
  const name = fresh("secret");
  // This SDK has no call that creates a named secret. The dashboard and the Python SDK use this RPC.
  await client.cpClient.secretGetOrCreate({ deploymentName: name, objectCreationType: 1, envDict: { K: "named" } });
  const secret = await client.secrets.fromName(name, { requiredKeys: ["K"] });
  const own = await sandbox({ secrets: [secret] });
  assert.equal((await sh(own, "echo $K"))[0], "named\n");
  assert.equal((await sh(await shared(), "echo $K", { secrets: [secret] }))[0], "named\n");
  await assert.rejects(client.secrets.fromName(name, { requiredKeys: ["OTHER"] }), (error) => {
    return error instanceof modal.NotFoundError && error.message.includes("Secret is missing key(s): OTHER");
  });
  await client.secrets.delete(name);
  await assert.rejects(client.secrets.fromName(name), modal.NotFoundError);
  await assert.rejects(client.secrets.delete(name), modal.NotFoundError);
  await client.secrets.delete(name, { allowMissing: true });
});

test("secrets: later secrets take precedence, and env over all", async () => {
  const one = await client.secrets.fromObject({ A: "1", B: "1", C: "1" });
  const two = await client.secrets.fromObject({ B: "2", C: "2" });
  const own = await sandbox({ secrets: [one, two], env: { C: "3" } });
  assert.equal((await sh(own, "echo $A $B $C"))[0], "1 2 3\n");
  await assert.rejects(client.secrets.fromObject({ K: 1 }), modal.InvalidError);
});

test("volumes: a volume can be read-only, and a part of it can be mounted", async () => {
  const volume = await client.volumes.fromName(fresh("vol"), { createIfMissing: true });
  const whole = await sandbox({ volumes: { "/v": volume } });
  await sh(whole, "mkdir /v/part; echo inner > /v/part/f; echo outer > /v/f");
  const reading = await sandbox({ volumes: { "/r": volume.withMountOptions({ readOnly: true }) } });
  assert.equal((await sh(reading, "cat /r/f"))[0], "outer\n");
  const [, err, code] = await sh(reading, "echo x > /r/f");
  assert.ok(code !== 0 && /read-only/i.test(err), err);
  const part = await sandbox({ volumes: { "/p": volume.withMountOptions({ subPath: "part" }) } });
  assert.equal((await sh(part, "cat /p/f; ls /p"))[0], "inner\nf\n");
});

test("volumes: a volume is kept after the sandbox and can be removed", async () => {
  const name = fresh("vol");
  const volume = await client.volumes.fromName(name, { createIfMissing: true });
  const one = await sandbox({ volumes: { "/v": volume } });
  await sh(one, "echo kept > /v/f; sync /v");
  await one.reloadVolumes();
  assert.equal(await one.terminate({ wait: true }), 137);
  const again = await client.volumes.fromName(name);
  assert.equal(again.volumeId, volume.volumeId);
  assert.equal((await sh(await sandbox({ volumes: { "/w": again } }), "cat /w/f"))[0], "kept\n");
  await client.volumes.delete(name);
  await assert.rejects(client.volumes.fromName(name), modal.NotFoundError);
  await client.volumes.delete(name, { allowMissing: true });
});

test("volumes: a volume can have a version, or no name", async () => {
  const name = fresh("vol");
  await client.volumes.fromName(name, { createIfMissing: true, version: 2 });
  await assert.rejects(client.volumes.fromName(name, { version: 1 }));
  const passing = await client.volumes.ephemeral();
  const own = await sandbox({ volumes: { "/v": passing } });
  assert.equal((await sh(own, "echo here > /v/f; cat /v/f"))[0], "here\n");
  passing.closeEphemeral();
});

test("proxies: an unknown proxy is an error", async () => {
  await assert.rejects(client.proxies.fromName("any"), modal.NotFoundError);
});

test("cloud buckets: a bucket is a directory that all its mounts share, and can be read-only", async () => {
  const name = fresh("bucket");
  const own = await sandbox({ cloudBucketMounts: { "/b": client.cloudBucketMounts.create(name) } });
  const reading = client.cloudBucketMounts.create(name, { readOnly: true });
  const other = await sandbox({ cloudBucketMounts: { "/c": reading } });
  await sh(own, "echo shared > /b/f");
  assert.equal((await sh(other, "cat /c/f"))[0], "shared\n");
  const [, err, code] = await sh(other, "echo x > /c/f");
  assert.ok(code !== 0 && /read-only/i.test(err), err);
});
