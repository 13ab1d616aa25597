// Many calls at once.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";

import { openModal, startEmulator } from "./support.mjs";

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
  const numbers = Array.from({ length: 1000 }, (_, index) => index);
  let done = 0;
  // All wait for a file, so that all of them run at the same time.
  const line = "echo $0; while ! test -e /tmp/go; do sleep 1; done";
  const runs = numbers.map(async (number) => {
    const result = await sandbox.run(["sh", "-c", line, String(number)]);
    done += 1;
    return result;
  });
  let most = 0;
  const watching = setInterval(async () => (most = Math.max(most, await threads())), 50);
  const all = Promise.all(runs);
  // The file is written when many have started. It is a command itself, so it waits for its turn like the others.
  await sandbox.run("while test $(ls -d /proc/[0-9]* | wc -l) -lt 500; do sleep 0.5; done; touch /tmp/go");
  const results = await all;
  clearInterval(watching);
  assert.equal(done, 1000);
  assert.deepEqual(results.map(({ stdout }) => Number(stdout)), numbers);
  assert.ok(results.every(({ exitCode }) => exitCode === 0));
  assert.ok(most > 0 && most <= THREADS, `${most} threads`);
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
  const round = async () => {
    for (let count = 0; count < 10; count += 1) {
      await Promise.all(Array.from({ length: 50 }, () => sandbox.readFile("/etc/hostname").catch(() => {})));
    }
    return process.memoryUsage().rss;
  };
  await round();
  const before = await round();
  await round();
  const grown = (await round()) - before;
  assert.ok(grown < 64 << 20, `${grown >> 20} MiB more`);
});
