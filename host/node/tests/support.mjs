// What the tests share: an emulator, polling, and programs that run in processes of their own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Provider, SandboxError } from "sandbox-host";

const PROGRAM = process.env.SANDBOX_PROGRAM ?? "sandbox";

/** How long a state is waited for, in milliseconds. */
const PATIENCE = 60_000;

/** Starts an emulator that ends with this process. Returns its URL. */
export async function startEmulator() {
  const emulator = spawn(PROGRAM, ["emulator", "--exit-with-stdin", "--network"], { stdio: ["pipe", "pipe", "ignore"] });
  // It ends when its input is closed, which is when this process ends.
  emulator.unref();
  emulator.stdin.unref();
  const [line] = await once(createInterface({ input: emulator.stdout }), "line");
  assert.match(line, /^MODAL_SERVER_URL=/);
  emulator.stdout.unref();
  return line.split("=")[1];
}

/** The environment variables by which programs reach an emulator. */
export const variables = (url) => ({ MODAL_SERVER_URL: url, MODAL_TOKEN_ID: "ak-test", MODAL_TOKEN_SECRET: "as-test" });

/** Opens the provider for Modal with an emulator. */
export function openModal(url, options = {}) {
  return Provider.open("modal", { env: variables(url), inheritEnv: false, readProfiles: false, ...options });
}

/** Opens the provider that keeps its sandboxes in memory. */
export const openMemory = () => Provider.open("memory");

/** Waits until the condition holds, at most `patience` milliseconds. */
export async function until(condition, what, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) {
      return value;
    }
    assert.ok(Date.now() < end, `in vain waited for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Checks that a call fails with this kind. Returns the error. */
export async function fails(kind, call) {
  try {
    await (typeof call === "function" ? call() : call);
  } catch (error) {
    assert.ok(error instanceof SandboxError, `not a SandboxError: ${error?.stack ?? error}`);
    assert.equal(error.kind, kind, error.message);
    assert.notEqual(error.message, "");
    return error;
  }
  assert.fail(`no error, expected ${kind}`);
}

/** Checks that a sandbox runs no process with the id in this file. */
export function gone(sandbox, file) {
  return until(async () => (await sandbox.run(`! kill -0 $(cat ${file})`)).exitCode === 0, "the end of the command");
}

/** Waits until a file of a sandbox exists and is not empty. */
export function filled(sandbox, file) {
  return until(async () => (await sandbox.run(`test -s ${file}`)).exitCode === 0, `the file ${file}`);
}

/** Runs `children/NAME` with Node and returns its exit code, signal and output. It is killed if it takes too long. */
export async function runChild(name, env, ...args) {
  const script = fileURLToPath(new URL(`children/${name}`, import.meta.url));
  const child = spawn(process.execPath, [script, ...args], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 120_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => (output += data));
  }
  const [code, signal] = await once(child, "close");
  return { code, signal, output };
}

/** Checks that a child ended by itself with this exit code. */
export function ended({ code, signal, output }, expected) {
  assert.deepEqual({ code, signal }, { code: expected, signal: null }, output);
  return output;
}
