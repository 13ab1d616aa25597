// Functions that the checks share: polling, and a sandbox that most of them use.

import { randomUUID } from "node:crypto";
import { after } from "node:test";

import * as modal from "modal";

export const client = new modal.ModalClient({ logLevel: "error" });
export const appName = "sdk-checks-js";
export const app = await client.apps.fromName(appName, { createIfMissing: true });
export const image = client.images.fromRegistry("debian:bookworm");

const open = [];

/** Creates a sandbox, which is terminated after the last check. */
export async function sandbox(options = {}, from = image) {
  const made = await client.sandboxes.create(app, from, { timeoutMs: 120_000, ...options });
  open.push(made);
  return made;
}

let common;

/** Returns the shared sandbox, for checks whose files and processes do not disturb other checks. */
export async function shared() {
  return (common ??= await sandbox({ timeoutMs: 1_800_000 }));
}

/** Runs a script and returns [stdout, stderr, code]. */
export async function sh(where, script, options = {}) {
  const process = await where.exec(["sh", "-c", script], options);
  return Promise.all([process.stdout.readText(), process.stderr.readText(), process.wait()]);
}

/** Returns a name that no other check uses. */
export const fresh = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`;

/** Polls until the condition returns a true value, and returns it. Fails after `millis` milliseconds. */
export async function eventually(condition, millis = 60_000) {
  const deadline = performance.now() + millis;
  while (performance.now() < deadline) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the condition still does not hold after ${millis} ms`);
}

after(() => Promise.all(open.map((one) => one.terminate().catch(() => {}))));
