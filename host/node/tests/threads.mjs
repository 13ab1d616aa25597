// Worker threads, and how they end.
import assert from "node:assert/strict";
import { before, test } from "node:test";

import { ended, runChild, startEmulator, variables } from "./support.mjs";

let env;

before(async () => {
  env = variables(await startEmulator());
});

test("threads use the library at the same time", async () => {
  assert.match(ended(await runChild("threads.mjs", env, "use"), 0), /^4 threads done$/m);
});

test("a thread is terminated while its commands are under way", async () => {
  assert.match(ended(await runChild("threads.mjs", env, "terminate"), 0), /^main still works$/m);
});

test("the library may be loaded in a thread only", async () => {
  assert.match(ended(await runChild("threads.mjs", env, "only"), 0), /^all threads ended$/m);
});

test("a thread ends by process.exit while its commands are under way", async () => {
  assert.match(ended(await runChild("threads.mjs", env, "exit"), 0), /^exit code 5$/m);
});
