// Commands that run to their end.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { fails, filled, gone, openModal, startEmulator } from "./support.mjs";

let provider;
let sandbox;

before(async () => {
  provider = await openModal(await startEmulator());
  sandbox = await provider.create({ image: "debian", env: { COLOUR: "blue" } });
});

after(() => provider?.close());

test("a command returns its output and its exit code", async () => {
  const result = await sandbox.run(["sh", "-c", "echo out; echo err >&2; exit 7"]);
  assert.equal(result.exitCode, 7);
  assert.deepEqual(result.verdict, { kind: "exited", exitCode: 7 });
  assert.equal(String(result.stdout), "out\n");
  assert.equal(String(result.stderr), "err\n");
  assert.equal(result.stdoutTotal, 4);
  assert.equal(typeof result.durationMs, "number");
  assert.equal(result.retries, 0);
});

test("a text is a line for the shell and an array is not", async () => {
  assert.equal(String((await sandbox.run("echo $((6 * 7))")).stdout), "42\n");
  assert.equal(String((await sandbox.run(["echo", "$((6 * 7))"])).stdout), "$((6 * 7))\n");
});

test("input reaches the command as text and as bytes", async () => {
  assert.equal(String((await sandbox.run(["cat"], { input: "grüße\n" })).stdout), "grüße\n");
  const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index % 256);
  const { stdout } = await sandbox.run(["cat"], { input: bytes });
  assert.ok(stdout.equals(bytes));
});

test("a part of a larger buffer is passed as that part", async () => {
  const view = new Uint16Array([0x4141, 0x4242, 0x4343]).subarray(1, 2);
  assert.equal(String((await sandbox.run(["cat"], { input: view })).stdout), "BB");
});

test("variables and the working directory are set", async () => {
  const { stdout } = await sandbox.run("echo $COLOUR $SHAPE; pwd", { env: { SHAPE: "round" }, cwd: "/usr" });
  assert.equal(String(stdout), "blue round\n/usr\n");
});

test("a command that takes too long has the verdict deadline", async () => {
  const result = await sandbox.run(["sleep", "600"], { timeoutMs: 1000 });
  assert.deepEqual(result.verdict, { kind: "deadline" });
  assert.equal(result.exitCode, null);
});

test("a command that a signal kills has the verdict signaled", async () => {
  assert.deepEqual((await sandbox.run("kill -TERM $$")).verdict, { kind: "signaled", signal: 15 });
});

test("a program that does not exist has the exit code 127", async () => {
  assert.equal((await sandbox.run(["no-such-program"])).exitCode, 127);
});

test("long output is cut at its head or its tail", async () => {
  const line = "printf 0123456789";
  const tail = await sandbox.run(line, { stdoutMax: 3 });
  assert.deepEqual([String(tail.stdout), tail.stdoutTotal], ["789", 10]);
  const head = await sandbox.run(line, { stdoutMax: 3, keep: "head" });
  assert.equal(String(head.stdout), "012");
});

test("errors can be merged into the output", async () => {
  const { stdout, stderr } = await sandbox.run("echo a; echo b >&2; echo c", { mergeStderr: true });
  assert.deepEqual([String(stdout), String(stderr)], ["a\nb\nc\n", ""]);
});

test("output can be discarded", async () => {
  const { stdout, stderr } = await sandbox.run("echo a; echo b >&2", { stdout: "discard" });
  assert.deepEqual([String(stdout), String(stderr)], ["", "b\n"]);
});

test("a command can run in a terminal", async () => {
  const { stdout } = await sandbox.run("stty size; echo $TERM", { pty: { rows: 11, columns: 22, term: "dumb" } });
  assert.equal(String(stdout).replaceAll("\r", ""), "11 22\ndumb\n");
});

test("an aborted run rejects with the reason and kills its command", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const run = sandbox.run("echo $$ > /tmp/aborted; exec sleep 600", { signal: controller.signal });
  const rejected = assert.rejects(run, (error) => error === reason);
  await filled(sandbox, "/tmp/aborted");
  controller.abort(reason);
  await rejected;
  await gone(sandbox, "/tmp/aborted");
});

test("a signal with a time limit rejects with a TimeoutError", async () => {
  await assert.rejects(sandbox.run(["sleep", "600"], { signal: AbortSignal.timeout(300) }), { name: "TimeoutError" });
});

test("a call with an aborted signal is not made", async () => {
  const touch = ["touch", "/tmp/never"];
  await assert.rejects(sandbox.run(touch, { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal((await sandbox.run(["ls", "/tmp"])).stdout.includes("never"), false);
});

test("one signal serves many calls without a warning and without a rest", async () => {
  const warnings = [];
  const listener = (warning) => warnings.push(warning);
  process.on("warning", listener);
  const controller = new AbortController();
  await Promise.all(Array.from({ length: 30 }, () => sandbox.info({ signal: controller.signal })));
  const calls = Array.from({ length: 30 }, () => sandbox.run(["sleep", "600"], { signal: controller.signal }));
  const all = Promise.allSettled(calls);
  controller.abort();
  assert.ok((await all).every(({ status, reason }) => status === "rejected" && reason.name === "AbortError"));
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", listener);
  assert.deepEqual(warnings, []);
});

test("commands run at the same time", async () => {
  const numbers = Array.from({ length: 40 }, (_, index) => index);
  const results = await Promise.all(numbers.map((number) => sandbox.run(["echo", String(number)])));
  assert.deepEqual(results.map(({ stdout }) => Number(stdout)), numbers);
});

test("a command in a sandbox that does not exist fails", async () => {
  const error = await fails("not-found", provider.sandbox("sb-0123456789").run(["true"]));
  assert.equal(error.happened, "no");
  assert.equal(error.retryable, false);
  assert.equal(error.retryAfterMs, null);
  assert.ok(error.message.includes(error.reason));
});
