// The official JavaScript SDK, unmodified, against the emulator that MODAL_SERVER_URL names.
//
//     MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test node --test-name-pattern=TEXT run.mjs
//
// Runs every `checks_*.mjs` beside it, one check after the other; without a pattern all of them. Packages are looked for
// from where this file lies, so run it through a link in a folder with `node_modules` (tests/tests/sdk.rs does), with
// `node --preserve-symlinks --preserve-symlinks-main`.

import { readdir } from "node:fs/promises";
import { describe } from "node:test";

// A suite waits for the function that fills it, so that no check is left out because its file is still being loaded.
describe("the JavaScript SDK", async () => {
  const files = await readdir(new URL(".", import.meta.url));
  for (const file of files.filter((name) => /^checks_.*\.mjs$/.test(name)).sort()) await import(`./${file}`);
});
