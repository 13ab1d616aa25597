// Commands with streams.
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { buffer, text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { fails, filled, gone, openModal, startEmulator, until } from "./support.mjs";

let provider;
let sandbox;

before(async () => {
  provider = await openModal(await startEmulator());
  sandbox = await provider.create({ image: "debian" });
});

after(() => provider?.close());

test("input is written and output is read while the command runs", async () => {
  const process = await sandbox.start(["cat"]);
  const pieces = process.stdout[Symbol.asyncIterator]();
  for (const word of ["one", "two", "three"]) {
    process.stdin.write(word);
    assert.equal(String((await pieces.next()).value), word);
  }
  process.stdin.end();
  assert.equal((await pieces.next()).done, true);
  assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 0 });
});

test("output arrives before the command ends", async () => {
  const process = await sandbox.start("echo early; read line; echo $line");
  const lines = process.stdout.setEncoding("utf8")[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, "early\n");
  process.stdin.end("late\n");
  assert.equal((await lines.next()).value, "late\n");
  await process.wait();
});

test("both streams can be read in one loop", async () => {
  const process = await sandbox.start("echo out; read line; echo err >&2; read line; exit 3");
  const seen = [];
  for await (const { stream, data } of process.output()) {
    seen.push(`${stream} ${String(data).trim()}`);
    process.stdin.write("\n");
  }
  assert.deepEqual(seen, ["stdout out", "stderr err"]);
  assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 3 });
});

test("several callers can wait, also after the end", async () => {
  const process = await sandbox.start("read line; exit 5");
  const waiting = [process.wait(), process.wait(), process.wait()];
  process.stdin.end("\n");
  for (const verdict of [...(await Promise.all(waiting)), await process.wait()]) {
    assert.deepEqual(verdict, { kind: "exited", exitCode: 5 });
  }
});

test("an aborted wait does not end the command", async () => {
  const process = await sandbox.start(["cat"]);
  await assert.rejects(process.wait({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  process.stdin.end("still here");
  assert.equal(await text(process.stdout), "still here");
  assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 0 });
});

test("a signal reaches the command by name and by number", async () => {
  for (const signal of ["SIGTERM", "TERM", 15]) {
    const process = await sandbox.start("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    await process.stdout[Symbol.asyncIterator]().next();
    await process.signal(signal);
    assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 9 });
  }
});

test("a killed command has the verdict signaled", async () => {
  const process = await sandbox.start(["sleep", "600"]);
  await process.kill();
  assert.deepEqual(await process.wait(), { kind: "signaled", signal: 9 });
});

test("the size of a terminal can be changed", async () => {
  const process = await sandbox.start("stty size; read line; stty size", { pty: { rows: 5, columns: 6 } });
  const output = process.stdout.setEncoding("utf8")[Symbol.asyncIterator]();
  assert.match((await output.next()).value, /^5 6\r?\n/);
  await process.resize(7, 8);
  process.stdin.write("\n");
  let rest = "";
  for (let piece = await output.next(); !piece.done; piece = await output.next()) {
    rest += piece.value;
  }
  assert.match(rest, /7 8\r?\n/);
});

test("a detached command continues, and attach returns its output from the start", async () => {
  const process = await sandbox.start("echo begin; while ! test -e /tmp/go; do sleep 0.05; done; echo end");
  const id = await process.detach();
  assert.equal(id, process.id);
  await fails("closed", process.wait());
  await sandbox.writeFile("/tmp/go", "");
  const again = await sandbox.attach(id);
  assert.equal(await text(again.stdout), "begin\nend\n");
  assert.deepEqual(await again.wait(), { kind: "exited", exitCode: 0 });
  await again.close();
});

test("the end of a block kills the command", async () => {
  const process = await sandbox.start("echo $$ > /tmp/disposed; exec sleep 600");
  await filled(sandbox, "/tmp/disposed");
  await process[Symbol.asyncDispose]();
  await process[Symbol.asyncDispose]();
  await gone(sandbox, "/tmp/disposed");
});

test("the signal of start kills the running command", async () => {
  const controller = new AbortController();
  const process = await sandbox.start("echo $$ > /tmp/started; exec sleep 600", { signal: controller.signal });
  await filled(sandbox, "/tmp/started");
  controller.abort();
  await gone(sandbox, "/tmp/started");
  await fails("closed", process.wait());
});

test("an aborted start leaves no command", async () => {
  const controller = new AbortController();
  const start = sandbox.start("echo $$ > /tmp/begun; exec sleep 600", { signal: controller.signal });
  controller.abort();
  await assert.rejects(start, { name: "AbortError" });
  // The command may have run for a moment, or never.
  await until(
    async () => (await sandbox.run("! test -s /tmp/begun || ! kill -0 $(cat /tmp/begun)")).exitCode === 0,
    "the end of the command",
  );
});

test("an exception in a loop over the output leaves the command running", async () => {
  const process = await sandbox.start("echo $$; exec sleep 600");
  let pid;
  const loop = async () => {
    for await (const data of process.stdout) {
      pid = Number(data);
      throw new RangeError("in the loop");
    }
  };
  await assert.rejects(loop, { name: "RangeError", message: "in the loop" });
  assert.equal(process.stdout.destroyed, true);
  assert.equal((await sandbox.run(`kill -0 ${pid}`)).exitCode, 0);
  await process.close();
});

test("an exception in a loop over both streams ends the loop at once", async () => {
  const process = await sandbox.start("echo out; exec sleep 600");
  const loop = async () => {
    for await (const { data } of process.output()) {
      throw new RangeError(String(data));
    }
  };
  await assert.rejects(loop, { name: "RangeError", message: "out\n" });
  await process.kill();
  assert.deepEqual(await process.wait(), { kind: "signaled", signal: 9 });
});

test("a loop can be left and the other stream can be read", async () => {
  const process = await sandbox.start("echo out; echo err >&2");
  for await (const data of process.stdout) {
    assert.equal(String(data), "out\n");
    break;
  }
  assert.equal(await text(process.stderr), "err\n");
  assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 0 });
});

test("large input and output pass through pipelines", async () => {
  const process = await sandbox.start(["cat"]);
  const pieces = Array.from({ length: 64 }, (_, index) => Buffer.alloc(50_000, index));
  const [output] = await Promise.all([buffer(process.stdout), pipeline(Readable.from(pieces), process.stdin)]);
  assert.ok(output.equals(Buffer.concat(pieces)));
});

test("a slow reader gets all output", async () => {
  const process = await sandbox.start("head -c 3000000 /dev/zero; echo end");
  let size = 0;
  for await (const data of process.stdout) {
    size += data.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(size, 3_000_004);
});

test("characters are not split between pieces", async () => {
  const process = await sandbox.start("printf '\\303'; sleep 0.2; printf '\\274\\n'");
  assert.equal(await text(process.stdout.setEncoding("utf8")), "ü\n");
});

test("a write after the end is an error and no crash", async () => {
  const process = await sandbox.start(["true"]);
  await process.wait();
  const error = await until(
    () => new Promise((resolve) => process.stdin.write("x".repeat(100_000), (problem) => resolve(problem))),
    "the error of the write",
  );
  assert.ok(error instanceof Error);
  await process.close();
});

test("streams of a closed process end with an error and no hang", async () => {
  const process = await sandbox.start(["sleep", "600"]);
  const reading = assert.rejects(async () => {
    for await (const _ of process.stdout);
  });
  await process.close();
  await reading;
  await fails("closed", process.wait());
  await fails("closed", process.signal("TERM"));
});

/** Collects garbage, and lets the callbacks for it run. */
async function collect() {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  for (let round = 0; round < 5; round += 1) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test("output can be read after the process object is lost", async () => {
  const { stdout } = await sandbox.start("while ! test -e /tmp/collected; do sleep 0.05; done; echo late");
  await collect();
  await sandbox.writeFile("/tmp/collected", "");
  assert.equal(await text(stdout), "late\n");
});

test("a command continues after its objects are lost", async () => {
  await (async () => void (await sandbox.start("while ! test -e /tmp/lost; do sleep 0.05; done; echo x > /tmp/survived")))();
  await collect();
  await sandbox.writeFile("/tmp/lost", "");
  await filled(sandbox, "/tmp/survived");
});

for (const end of ["close", "shutdown"]) {
  test(`the ${end} of a provider kills the commands that it started`, async () => {
    const other = await openModal((await provider.grants())[0].origin);
    const started = `/tmp/started-before-${end}`;
    const process = await other.sandbox(sandbox.id).start(`echo $$ > ${started}; exec sleep 600`);
    await filled(sandbox, started);
    const waiting = assert.rejects(process.wait(), { name: "SandboxError" });
    await other[end]();
    await waiting;
    await gone(sandbox, started);
    await fails("closed", process.kill());
    await process.close();
  });
}
