// The official JavaScript SDK, unmodified, against the emulator that MODAL_SERVER_URL names.
//
//     MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test node run.mjs [WORD…]
//
// Runs every `checks_*.mjs` beside it. Words choose the checks whose text contains one of them. Packages are looked for
// from where this file lies, so run it through a link in a folder with `node_modules` (tests/tests/sdk.rs does), with
// `node --preserve-symlinks --preserve-symlinks-main`.

import { readdir } from "node:fs/promises";

import { main } from "./harness.mjs";

const files = await readdir(new URL(".", import.meta.url));
for (const file of files.filter((name) => /^checks_.*\.mjs$/.test(name)).sort()) await import(`./${file}`);
process.exit(await main(process.argv.slice(2)));
