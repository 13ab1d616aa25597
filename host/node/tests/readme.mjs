// The programs of the README and of the page on embedding print what the pages say.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { ended, runChild, startEmulator, variables } from "./support.mjs";

const readme = await readFile(new URL("../node_modules/sandbox-host/README.md", import.meta.url), "utf8");
// A copy of `docs/embedding/node.md`.
const page = await readFile(new URL("embedding.md", import.meta.url), "utf8");
const programs = (text) => [...text.matchAll(/```js\n(.*?)```\n\n```text\n(.*?)```/gs)];
const examples = programs(readme);

test("the README has an example of at most ten lines", () => {
  assert.ok(examples.length >= 1);
  const lines = examples[0][1].split("\n").filter((line) => line.trim() !== "");
  assert.ok(lines.length <= 12, `${lines.length} lines`);
});

test("the programs of the pages print what the pages say", async () => {
  const env = variables(await startEmulator());
  assert.ok(programs(page).length >= 1);
  for (const [index, [, program, expected]] of [...examples, ...programs(page)].entries()) {
    const name = `readme-${index}.mjs`;
    await writeFile(fileURLToPath(new URL(`children/${name}`, import.meta.url)), program);
    assert.equal(ended(await runChild(name, env), 0), expected);
  }
});
