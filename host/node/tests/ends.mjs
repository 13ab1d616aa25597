// How processes end with the library.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";

import { ended, openModal, runChild, startEmulator, variables } from "./support.mjs";

let env;

before(async () => {
  env = variables(await startEmulator());
});

test("a program ends by itself although nothing was closed", async () => {
  assert.match(ended(await runChild("open.mjs", env), 0), /^done$/m);
});

test("a pending call keeps the program running until it is done", async () => {
  assert.match(ended(await runChild("pending.mjs", env), 0), /^result 0$/m);
});

test("a program ends with its exit code while commands are under way", async () => {
  assert.match(ended(await runChild("exit.mjs", env), 7), /^leaving$/m);
});

test("a program ends by an uncaught exception while commands are under way", async () => {
  assert.match(ended(await runChild("exit.mjs", env, "throw"), 1), /RangeError: thrown/);
});

test("a program ends within a loop over output", async () => {
  assert.match(ended(await runChild("exit.mjs", env, "loop"), 8), /^in the loop$/m);
});

test("calls at the exit of a program are no danger", async () => {
  assert.match(ended(await runChild("exit.mjs", env, "late"), 0), /^called$/m);
});

test("a program ends many times without a crash", async () => {
  for (let round = 0; round < 5; round += 1) {
    ended(await runChild("exit.mjs", env), 7);
  }
});

test("a rejection that is not handled ends the program with an error", async () => {
  assert.match(ended(await runChild("exit.mjs", env, "unhandled"), 1), /SandboxError/);
});

test("a component is compiled anew in a process of its own", async () => {
  // The process lives for about a second, and the program may not see it on a busy machine.
  let output = "";
  for (let round = 0; round < 10 && !output.includes("compiled by"); round += 1) {
    const cache = await mkdtemp(join(tmpdir(), "sandbox-host-"));
    output = ended(await runChild("open.mjs", { ...env, XDG_CACHE_HOME: cache }, "watch"), 0);
    await rm(cache, { recursive: true });
  }
  assert.match(output, /^compiled by .*compile\.cjs/m);
});

test("a sandbox survives the program that made it", async () => {
  const output = ended(await runChild("open.mjs", env), 0);
  const provider = await openModal(env.MODAL_SERVER_URL);
  const sandbox = provider.sandbox(/^sandbox (\S+)$/m.exec(output)[1]);
  assert.equal((await sandbox.run(["true"])).exitCode, 0);
  await sandbox.terminate();
  await provider.close();
});
