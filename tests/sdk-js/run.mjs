// The checks of the official JavaScript SDK, which is not modified. They use the emulator at MODAL_SERVER_URL:
//
//     MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test node --test-name-pattern=TEXT run.mjs
//
// Runs all checks of the files `checks_*.mjs` in this folder, one after another, or those that match the pattern. Node
// resolves packages relative to this file, so run it through a link in a folder with `node_modules` and with `node
// --preserve-symlinks --preserve-symlinks-main` (as tests/tests/sdk.rs does).

import { readdir } from "node:fs/promises";
import { describe } from "node:test";

// The suite waits for the asynchronous function that fills it, so no file is missed because it is still loading.
describe("the JavaScript SDK", async () => {
  const files = await readdir(new URL(".", import.meta.url));
  for (const file of files.filter((name) => /^checks_.*\.mjs$/.test(name)).sort()) await import(`./${file}`);
});
