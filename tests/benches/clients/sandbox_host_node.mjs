// Measures the Node package of this repository.

import { Provider } from "sandbox-host";

import { measure } from "./measure.mjs";

const provider = await Provider.open("modal");
const sandbox = await provider.create();
await measure(async () => {
  const result = await sandbox.run(["true"]);
  if (result.exitCode !== 0) throw new Error(`\`true\` ended with ${JSON.stringify(result.verdict)}`);
});
await sandbox.terminate();
await provider.close();
