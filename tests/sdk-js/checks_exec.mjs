// Commands: arguments, streams, input and exit codes.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import * as modal from "modal";

import { client, eventually, sandbox, sh, shared } from "./harness.mjs";

test("exec: stdout, stderr and the exit code are returned", async () => {
  assert.deepEqual(await sh(await shared(), "echo out; echo err >&2; exit 7"), ["out\n", "err\n", 7]);
});

test("exec: arguments are passed unchanged", async () => {
  const process = await (await shared()).exec(["printf", "%s|", "a b", "", "$HOME", "é"]);
  assert.equal(await process.stdout.readText(), "a b||$HOME|é|");
});

test("exec: output need not be text", async () => {
  const process = await (await shared()).exec(["printf", "\\000\\377"], { mode: "binary" });
  assert.deepEqual([...(await process.stdout.readBytes())], [0, 255]);
});

test("exec: env and workdir apply to the command", async () => {
  const options = { env: { A: "x y" }, workdir: "/usr/lib" };
  assert.deepEqual(await sh(await shared(), 'echo "$A"; pwd', options), ["x y\n/usr/lib\n", "", 0]);
});

test("exec: secrets are variables of the command", async () => {
  const secret = await client.secrets.fromObject({ S: "1" });
  assert.equal((await sh(await shared(), "echo $S", { secrets: [secret] }))[0], "1\n");
});

test("exec: standard input ends when it is closed", async () => {
  const process = await (await shared()).exec(["cat"]);
  await process.stdin.writeText("one\n");
  await process.stdin.writeText("two\n");
  await process.stdin.close();
  assert.equal(await process.stdout.readText(), "one\ntwo\n");
  assert.equal(await process.wait(), 0);
});

test("exec: output can be read after the end of the command", async () => {
  const process = await (await shared()).exec(["seq", "1", "50000"]);
  assert.equal(await process.wait(), 0);
  const text = await process.stdout.readText();
  assert.equal(text.split("\n").length, 50001);
});

test("exec: death by a signal is reported as 128 plus the signal", async () => {
  assert.equal((await sh(await shared(), "kill -9 $$"))[2], 137);
});

test("exec: a missing program ends with 127", async () => {
  const process = await (await shared()).exec(["no-such-program"]);
  assert.equal(await process.wait(), 127);
  assert.match(await process.stderr.readText(), /no-such-program/);
});

test("exec: a command that exceeds its time limit is killed", async () => {
  const process = await (await shared()).exec(["sleep", "60"], { timeoutMs: 1000 });
  // The service reports the result before the client stops waiting.
  assert.equal(await process.wait(), 137);
});

test("exec: a terminal has a size and a type", async () => {
  const process = await (await shared()).exec(["sh", "-c", "stty size; echo $TERM"], { pty: true });
  assert.equal(await process.stdout.readText(), "24 80\r\nxterm-256color\r\n");
});

test("exec: 30 commands run at the same time", async () => {
  const where = await shared();
  const all = await Promise.all(Array.from({ length: 30 }, (_, n) => sh(where, `echo ${n}; exit ${n}`)));
  assert.deepEqual(all, Array.from({ length: 30 }, (_, n) => [`${n}\n`, "", n]));
});

test("exec: 32 MiB of output arrive unchanged", async () => {
  const process = await (await shared()).exec(["head", "-c", "33554432", "/dev/zero"], { mode: "binary" });
  assert.equal((await process.stdout.readBytes()).length, 33554432);
});

test("exec: invalid UTF-8 becomes replacement characters, and valid characters are not split", async () => {
  const where = await shared();
  assert.equal((await sh(where, "printf 'a\\377b'"))[0], "a\uFFFDb");
  const [out] = await sh(where, "yes äöü | head -c 700000");
  assert.equal(out, "äöü\n".repeat(100_000));
});

test("exec: input and output alternate line by line while the command runs", async () => {
  const process = await (await shared()).exec(["sh", "-c", "while read line; do echo got $line; done; echo over"]);
  const reader = process.stdout.getReader();
  let text = "";
  const line = async () => {
    while (!text.includes("\n")) text += (await reader.read()).value;
    const end = text.indexOf("\n") + 1;
    const found = text.slice(0, end);
    text = text.slice(end);
    return found;
  };
  for (const word of ["a", "b", "c"]) {
    await process.stdin.writeText(`${word}\n`);
    assert.equal(await line(), `got ${word}\n`);
  }
  await process.stdin.close();
  assert.equal(await line(), "over\n");
  assert.equal(await process.wait(), 0);
});

test("exec: 50 MB of input arrive unchanged", async () => {
  const process = await (await shared()).exec(["sha256sum"], { mode: "binary" });
  const hash = createHash("sha256");
  const writer = process.stdin.getWriter();
  for (let number = 0; number < 50; number += 1) {
    const piece = Buffer.alloc(1_000_000, number);
    hash.update(piece);
    await writer.write(piece);
  }
  await writer.close();
  const text = Buffer.from(await process.stdout.readBytes()).toString();
  assert.equal(text.slice(0, 64), hash.digest("hex"));
});

test("exec: input to a command that has ended is refused", async () => {
  const process = await (await shared()).exec(["true"]);
  assert.equal(await process.wait(), 0);
  await assert.rejects(process.stdin.writeText("late\n"), /ended|closed/);
});

test("exec: two full streams can be read at the same time", async () => {
  const script = "for i in 1 2 3 4; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; done";
  const process = await (await shared()).exec(["sh", "-c", script], { mode: "binary" });
  const [out, err] = await Promise.all([process.stdout.readBytes(), process.stderr.readBytes()]);
  assert.deepEqual([out.length, err.length, await process.wait()], [4_000_000, 4_000_000, 0]);
});

test("exec: ignored streams are empty and do not block the command", async () => {
  const options = { stdout: "ignore", stderr: "ignore" };
  assert.deepEqual(await sh(await shared(), "head -c 3000000 /dev/zero; echo e >&2; exit 3", options), ["", "", 3]);
});

test("exec: a cancelled reader does not affect the command", async () => {
  const where = await shared();
  const process = await where.exec(["sh", "-c", "yes | head -c 5000000; touch /tmp/js-finished"]);
  await process.stdout.cancel();
  assert.equal(await process.wait(), 0);
  assert.equal((await sh(where, "ls /tmp/js-finished"))[0], "/tmp/js-finished\n");
});

test("exec: invalid arguments are refused and named", async () => {
  const where = await shared();
  await assert.rejects(where.exec(["echo", "x".repeat(70_000)]), modal.InvalidError);
  await assert.rejects(where.exec(["pwd"], { workdir: "tmp" }), modal.InvalidError);
  await assert.rejects(where.exec(["true"], { timeoutMs: 1500 }), /multiple of 1000/);
  await assert.rejects(where.exec(["true"], { env: { "A B": "1" } }), /A B/);
});

test("exec: a time limit also ends the children of the command", async () => {
  const own = await sandbox();
  await (await own.exec(["sh", "-c", "sleep 77 & sleep 77"], { timeoutMs: 1000 })).wait().catch(() => {});
  await eventually(async () => !(await sh(own, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))[0].includes("sleep 77"));
});

test("exec: a background process does not delay the end of the command", async () => {
  const own = await sandbox();
  assert.deepEqual((await sh(own, "sleep 300 & echo done"))[0], "done\n");
});

test("exec: in a sandbox that has ended it is refused", async () => {
  const own = await sandbox({ command: ["true"] });
  assert.equal(await own.wait(), 0);
  await assert.rejects(own.exec(["true"]), /shut down|not found/i);
});
