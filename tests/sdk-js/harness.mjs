// What the checks share: registration, one line per check, and a sandbox that most of them use.

import { randomUUID } from "node:crypto";

import * as modal from "modal";

export const client = new modal.ModalClient({ logLevel: "error" });
export const appName = "sdk-checks-js";
export const app = await client.apps.fromName(appName, { createIfMissing: true });
export const image = client.images.fromRegistry("debian:bookworm");

const checks = [];
const open = [];

/** Registers a check; its text is what is printed. */
export function check(name, body) {
  checks.push([name, body]);
}

/** A sandbox of one's own, terminated when all checks are through. */
export async function sandbox(options = {}, from = image) {
  const made = await client.sandboxes.create(app, from, { timeoutMs: 120_000, ...options });
  open.push(made);
  return made;
}

let common;

/** One sandbox for all checks that leave nothing behind for others to trip over. */
export async function shared() {
  return (common ??= await sandbox({ timeoutMs: 600_000 }));
}

/** Runs a script and gives [stdout, stderr, code]. */
export async function sh(where, script, options = {}) {
  const process = await where.exec(["sh", "-c", script], options);
  return Promise.all([process.stdout.readText(), process.stderr.readText(), process.wait()]);
}

/** A name that nobody else has. */
export const fresh = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`;

/** Polls: for what the service itself only offers by polling. */
export async function eventually(condition, millis = 20_000) {
  const deadline = performance.now() + millis;
  while (performance.now() < deadline) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("it did not come to pass");
}

/** Runs the checks whose text contains one of these words, all of them without words; gives the exit code. */
export async function main(words) {
  let [passed, failed] = [0, 0];
  for (const [name, body] of checks) {
    if (words.length && !words.some((word) => name.includes(word))) continue;
    const began = performance.now();
    try {
      await body();
      passed += 1;
      console.log(`ok   ${name} (${Math.round(performance.now() - began)} ms)`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}`);
      console.error(error);
    }
  }
  await Promise.all(open.map((one) => one.terminate().catch(() => {})));
  console.log(`${passed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}
