// Many calls at once.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";

import { openMemory, openModal, startEmulator, until } from "./support.mjs";

/** Most threads of the process: those of Node and one per processor for the calls, and some for blocking work. */
const THREADS = 80;

let provider;
let sandbox;

before(async () => {
  provider = await openModal(await startEmulator());
  sandbox = await provider.create({ image: "debian" });
});

after(() => provider?.close());

const threads = async () => Number(/^Threads:\s+(\d+)$/m.exec(await readFile("/proc/self/status", "utf8"))[1]);

test("a thousand commands are under way with few threads", async () => {
  // All commands wait for a lock, so that all of them run at the same time.
  const holder = await sandbox.start("exec flock -x /tmp/lock sh -c 'echo held; read line'");
  await once(holder.stdout, "data");
  const numbers = Array.from({ length: 1000 }, (_, index) => index);
  const all = Promise.all(numbers.map((number) => sandbox.run(["flock", "-s", "/tmp/lock", "echo", String(number)])));
  let most = 0;
  await until(async () => {
    most = Math.max(most, await threads());
    return Number((await sandbox.run("ls -d /proc/[0-9]* | wc -l")).stdout) >= 1000;
  }, "a thousand processes", 240_000);
  holder.stdin.end("\n");
  const results = await all;
  most = Math.max(most, await threads());
  assert.deepEqual(results.map(({ stdout }) => Number(stdout)), numbers);
  assert.ok(results.every(({ exitCode }) => exitCode === 0));
  assert.ok(most <= THREADS, `${most} threads`);
  await holder.close();
});

test("a hundred commands stream at the same time", async () => {
  const outputs = await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      const process = await sandbox.start(["cat"]);
      process.stdin.end(String(index).repeat(1000));
      const output = await text(process.stdout);
      assert.deepEqual(await process.wait(), { kind: "exited", exitCode: 0 });
      await process.close();
      return output;
    }),
  );
  outputs.forEach((output, index) => assert.equal(output, String(index).repeat(1000)));
});

test("memory does not grow with the number of calls", async () => {
  const memory = await openMemory();
  const box = await memory.create();
  const round = async () => {
    for (let count = 0; count < 10; count += 1) {
      await Promise.all(Array.from({ length: 100 }, () => box.run(["echo", "x".repeat(10_000)])));
    }
    return process.memoryUsage().rss;
  };
  await round();
  const before = await round();
  await round();
  const grown = (await round()) - before;
  assert.ok(grown < 64 << 20, `${grown >> 20} MiB more`);
  await memory.close();
});
