// The behaviour of the SDK with faults, which the checks order through the control endpoint of the emulator.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as modal from "modal";

import { app, appName, client, eventually, fresh, sandbox, sh } from "./harness.mjs";

async function order(path, body, method = "POST") {
  const answer = await fetch(`${process.env.MODAL_SERVER_URL}/emulator/${path}`, {
    method,
    headers: { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

/** Runs `body` with fault rules and returns how often each was applied. */
async function under(rules, body) {
  await order("faults", rules);
  try {
    await body();
    return (await order("faults", undefined, "GET")).map((rule) => rule.applied);
  } finally {
    await order("faults", undefined, "DELETE");
  }
}

const status = (code, more = {}) => ({ status: { code, ...more } });

test("chaos: UNAVAILABLE is retried without an error", async () => {
  const met = await under([{ method: "AppGetOrCreate", times: 2, fault: status(14) }], async () => {
    assert.equal((await client.apps.fromName(appName)).appId, app.appId);
  });
  assert.deepEqual(met, [2]);
});

test("chaos: a lasting status arrives with its message", async () => {
  const met = await under([{ method: "SandboxCreateV2", fault: status(7, { message: "not you" }) }], async () => {
    await assert.rejects(sandbox(), /not you/);
  });
  assert.deepEqual(met, [1]);
});

test("chaos: the client waits as long as the server asks", async () => {
  const began = performance.now();
  const fault = status(8, { retry_after_secs: 0.5 });
  const met = await under([{ method: "AppGetOrCreate", times: 1, fault }], () => client.apps.fromName(appName));
  assert.ok(performance.now() - began >= 500);
  assert.deepEqual(met, [1]);
});

test("chaos: a lost answer creates no second sandbox", async () => {
  const tags = { lost: fresh("lost") };
  const met = await under([{ method: "SandboxCreateV2", times: 1, fault: { lose_answer: { code: 14 } } }], async () => {
    const own = await sandbox({ tags });
    const found = [];
    for await (const one of client.sandboxes.list({ appId: app.appId, tags })) found.push(one.sandboxId);
    assert.deepEqual(found, [own.sandboxId]);
  });
  assert.deepEqual(met, [1]);
});

test("chaos: output that is cut off repeatedly arrives complete", async () => {
  const own = await sandbox();
  const rules = [{ method: "TaskExecStdioRead", times: 6, fault: { cut: { after_bytes: 50_000 } } }];
  const met = await under(rules, async () => {
    const all = Array.from({ length: 80_000 }, (_, n) => `${n + 1}\n`).join("");
    assert.equal((await sh(own, "seq 1 80000"))[0], all);
  });
  assert.deepEqual(met, [6]);
});

test("chaos: an upload that is cut off is resumed", async () => {
  const own = await sandbox();
  const data = Buffer.alloc(3 << 20, "abcdefg");
  const rules = [{ method: "TaskExecStdinWriteStream", times: 2, fault: { cut_request: { after_bytes: 700_000 } } }];
  const met = await under(rules, () => own.filesystem.writeBytes(data, "/tmp/cut"));
  assert.ok(data.equals(await own.filesystem.readBytes("/tmp/cut")));
  assert.deepEqual(met, [2]);
});

test("chaos: closed connections and GOAWAY cause no error", async () => {
  const own = await sandbox();
  for (const fault of ["close", "goaway"]) {
    const met = await under([{ method: "TaskExecStart", times: 2, fault }], async () => {
      for (let number = 0; number < 3; number += 1) assert.deepEqual(await sh(own, "echo hi"), ["hi\n", "", 0]);
    });
    assert.deepEqual(met, [2]);
  }
});

test("chaos: the client waits when the creation rate is exceeded", async () => {
  const began = performance.now();
  await under([{ method: "SandboxCreateV2", fault: { rate: { per_second: 2 } } }], async () => {
    for (let number = 0; number < 4; number += 1) await sandbox();
  });
  assert.ok(performance.now() - began >= 500);
});

test("chaos: a lost worker ends its sandbox", async () => {
  const [own, other] = [await sandbox(), await sandbox()];
  assert.deepEqual(await order("lose-worker", { sandbox_id: own.sandboxId }), { lost: 1 });
  await eventually(async () => (await own.poll()) !== null);
  await assert.rejects(own.exec(["true"]));
  assert.equal((await sh(other, "echo hi"))[0], "hi\n");
});
