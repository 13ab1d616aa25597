// The example of the README prints what the README says.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { ended, runChild, startEmulator, variables } from "./support.mjs";

const readme = await readFile(new URL("../node_modules/sandbox-host/README.md", import.meta.url), "utf8");
const examples = [...readme.matchAll(/```js\n(.*?)```\n\n```text\n(.*?)```/gs)];

test("the README has an example of at most ten lines", () => {
  assert.ok(examples.length >= 1);
  const lines = examples[0][1].split("\n").filter((line) => line.trim() !== "");
  assert.ok(lines.length <= 12, `${lines.length} lines`);
});

test("the examples of the README print what it says", async () => {
  const env = variables(await startEmulator());
  for (const [index, [, program, expected]] of examples.entries()) {
    const name = `readme-${index}.mjs`;
    await writeFile(fileURLToPath(new URL(`children/${name}`, import.meta.url)), program);
    assert.equal(ended(await runChild(name, env), 0), expected);
  }
});
