// What callers do wrong is an error: no crash, and no hang.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Process, Provider, Sandbox, SandboxError } from "sandbox-host";

import { fails, openMemory } from "./support.mjs";

let provider;
let sandbox;

before(async () => {
  provider = await openMemory();
  sandbox = await provider.create();
});

after(() => provider?.close());

/** The content of a file. The provider in memory has no other way to read it. */
const content = async (path) => String((await sandbox.run(["cat", path])).stdout);

const circular = {};
circular.self = circular;

/** Calls with arguments that do not fit, and a part of the message. */
const WRONG = {
  "a number as component": [() => Provider.open(7), /component must be a string/],
  "no component": [() => Provider.open(), /component must be a string/],
  "an empty component": [() => Provider.open(""), /component must not be empty/],
  "a text as options of a provider": [() => Provider.open("memory", "x"), /options must be an object/],
  "an unknown option of a provider": [() => Provider.open("memory", { profil: "x" }), /options\.profil is unknown.*profile/],
  "a wrong option of a provider": [() => Provider.open("memory", { env: { A: 1 } }), /options\.env\.A must be a string/],
  "a wrong limit": [() => Provider.open("memory", { limits: { callTimeMs: "1" } }), /options\.limits\.callTimeMs/],
  "an array as specification": [() => provider.create([]), /spec must be an object, and not an array/],
  "a number as image": [() => provider.create({ image: 7 }), /spec\.image must be an object/],
  "an unknown field of a specification": [() => provider.create({ imgae: "x" }), /spec\.imgae is unknown/],
  "a field in the style of other languages": [() => provider.create({ idle_timeout: 1 }), /spec\.idle_timeout is unknown.*idleTimeoutMs/],
  "a negative time": [() => provider.create({ lifetimeMs: -1 }), /spec\.lifetimeMs must be a number/],
  "a time that is no number": [() => provider.create({ lifetimeMs: Number.NaN }), /spec\.lifetimeMs.*NaN/],
  "a port that is too large": [() => provider.create({ ports: [70_000] }), /./],
  "a port that is a text": [() => provider.create({ ports: ["80"] }), /spec\.ports\[0\]/],
  "an unknown network": [() => provider.create({ network: { outbound: "closed" } }), /must be one of "open", "blocked"/],
  "a network of two kinds": [() => provider.create({ network: { outbound: {} } }), /exactly one of/],
  "a volume without a path": [() => provider.create({ volumes: [{ volume: "v" }] }), /spec\.volumes\[0\]\.path is missing/],
  "a circular option": [() => provider.create({ options: { circular } }), /JSON/],
  "an option that JSON does not have": [() => provider.create({ options: { big: 1n } }), /JSON/],
  "no command": [() => sandbox.run(), /command must be an array/],
  "an empty command": [() => sandbox.run([]), /at least one word/],
  "a number in a command": [() => sandbox.run(["echo", 1]), /command\[1\] must be a string/],
  "an object as command": [() => sandbox.start({ argv: ["echo"] }), /command must be an array/],
  "a text as time limit": [() => sandbox.run(["echo"], { timeoutMs: "1" }), /options\.timeoutMs/],
  "an unknown option of a command": [() => sandbox.run(["echo"], { timeout: 1 }), /options\.timeout is unknown.*timeoutMs/],
  "a number as input": [() => sandbox.run(["cat"], { input: 1 }), /options\.input must be a string or a Uint8Array/],
  "an array as data": [() => sandbox.writeFile("/x", [1, 2]), /data must be a string or a Uint8Array/],
  "a number as path": [() => sandbox.readFile(1), /path must be a string/],
  "an unknown encoding": [() => sandbox.readFile("/x", { encoding: "utf9" }), /options\.encoding/],
  "an unknown mode": [() => sandbox.writeFile("/x", "", { mode: "prepend" }), /options\.mode must be one of/],
  "a text as port": [() => sandbox.forward("80"), /port must be a whole number/],
  "a text as signal": [() => sandbox.run(["echo"], { signal: "TERM" }), /signal must be an AbortSignal/],
  "an object like a signal": [() => sandbox.start(["echo"], { signal: { aborted: false } }), /signal must be an AbortSignal/],
  "null as options": [() => sandbox.run(["echo"], null), /options must be an object, and not null/],
  "a fraction as a number": [() => provider.warmUp(1.5), /instances must be a whole number/],
};

for (const [name, [call, message]] of Object.entries(WRONG)) {
  test(`${name} is an error`, async () => {
    const error = await fails("invalid-argument", call);
    assert.match(error.message, message);
    assert.equal(error.happened, "no");
    assert.equal(error.retryable, false);
  });
}

test("wrong names of containers and users are thrown at once", () => {
  assert.throws(() => sandbox.container(1), SandboxError);
  assert.throws(() => sandbox.as(), SandboxError);
  assert.throws(() => provider.sandbox(null), SandboxError);
});

test("handles that were not made by the library do not work", async () => {
  assert.throws(() => new Sandbox());
  await assert.rejects(async () => new Process().wait());
  await assert.rejects(async () => new Provider({}).check());
  await assert.rejects(async () => Sandbox.prototype.run.call({}, ["echo"]), TypeError);
});

test("an unknown signal of a command is an error", async () => {
  const process = await sandbox.start(["sleep", "60"]);
  await fails("invalid-argument", process.signal("NONSENSE"));
  await fails("invalid-argument", process.signal(-1));
  await fails("invalid-argument", process.resize("a", 1));
  await process.close();
});

test("the stack of an error names the callers", async () => {
  async function theCaller() {
    await sandbox.signal("no-such-exec", "TERM");
  }
  await assert.rejects(theCaller, (error) => error instanceof SandboxError && error.stack.includes("theCaller"));
});

test("a component that does not exist is an error that names it", async () => {
  const opening = Provider.open("/no/such/component.wasm");
  await assert.rejects(opening, (error) => error instanceof SandboxError && /component\.wasm/.test(error.message));
});

test("a file that is no component is an error", async () => {
  const folder = await mkdtemp(join(tmpdir(), "sandbox-host-"));
  for (const content of ["", "no component", "\0asm\x0d\0\x01\0", "\0asm\x01\0\0\0"]) {
    await writeFile(join(folder, "plugin.wasm"), content, "latin1");
    await assert.rejects(Provider.open(join(folder, "plugin.wasm")), SandboxError);
  }
  await rm(folder, { recursive: true });
});

test("a closed provider refuses all calls", async () => {
  const other = await openMemory();
  const box = await other.create();
  const process = await box.start(["sleep", "60"]);
  await other.close();
  await other.close();
  for (const call of [
    () => other.describe(),
    () => other.check(),
    () => other.create(),
    () => other.list(),
    () => other.build("debian"),
    () => other.metrics(),
    () => box.run(["echo"]),
    () => box.start(["echo"]),
    () => box.writeFile("/x", ""),
    () => box.terminate(),
    () => process.wait(),
  ]) {
    const error = await fails("closed", call);
    assert.match(error.message, /closed/);
  }
});

test("calls under way fail when the provider is closed", async () => {
  const other = await openMemory();
  const box = await other.create();
  const calls = Array.from({ length: 50 }, () => fails("closed", box.run(["sleep", "600"])));
  const process = await box.start(["sleep", "600"]);
  calls.push(fails("closed", process.wait()));
  await other.close();
  await Promise.all(calls);
});

test("data may change after the call", async () => {
  const data = Buffer.from("before");
  const written = sandbox.writeFile("/changed", data);
  data.fill("x");
  await written;
  assert.equal(await content("/changed"), "before");
});

test("shared and detached memory is no danger", async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(0x41);
  await sandbox.writeFile("/shared", shared);
  assert.equal(await content("/shared"), "AAAA");
  const detached = new Uint8Array(4);
  structuredClone(detached, { transfer: [detached.buffer] });
  await sandbox.writeFile("/detached", detached);
  assert.equal(await content("/detached"), "");
});

test("texts with unusual characters arrive", async () => {
  assert.equal(String((await sandbox.run(["echo", "😀 \"\\ \u2028"])).stdout), "😀 \"\\ \u2028\n");
  // Half of a character cannot be sent.
  await sandbox.run(["echo", "\ud83d"]).then(({ exitCode }) => assert.equal(exitCode, 0), (error) => assert.ok(error instanceof SandboxError));
  await sandbox.run(["echo", "a\0b"]).then(({ exitCode }) => assert.equal(exitCode, 0), (error) => assert.ok(error instanceof SandboxError));
});

test("getters and proxies that throw are errors", async () => {
  const trap = new Proxy({}, { ownKeys: () => { throw new RangeError("trapped"); } });
  await assert.rejects(provider.create(trap), { message: "trapped" });
  const toJSON = { toJSON: () => { throw new RangeError("no JSON"); } };
  await fails("invalid-argument", provider.create({ options: { toJSON } }));
});

test("a signal that is aborted many times and early is no danger", async () => {
  for (let round = 0; round < 100; round += 1) {
    const controller = new AbortController();
    const call = sandbox.run(["sleep", "600"], { signal: controller.signal });
    const rejected = assert.rejects(call, { name: "AbortError" });
    if (round % 2 === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    controller.abort();
    controller.abort();
    await rejected;
  }
});

test("WebAssembly of Node still traps beside the library", async () => {
  // (module (memory 1) (func (export "f") (param i32) (result i32) local.get 0 i32.load) (func (export "u") unreachable))
  const bytes = Buffer.from(
    "0061736d0100000001090260017f017f6000000303020001050301000107090201660000017500010a0d02070020002802000b0300000b",
    "hex",
  );
  const { exports } = (await WebAssembly.instantiate(bytes)).instance;
  for (let round = 0; round < 100; round += 1) {
    await sandbox.run(["echo"]);
    assert.throws(() => exports.f(0x7fff_0000), WebAssembly.RuntimeError);
    assert.throws(() => exports.u(), WebAssembly.RuntimeError);
  }
});
