// Measures the official JavaScript SDK of Modal.

import * as modal from "modal";

import { measure } from "./measure.mjs";

const client = new modal.ModalClient({ logLevel: "error" });
const app = await client.apps.fromName("bench", { createIfMissing: true });
const sandbox = await client.sandboxes.create(app, client.images.fromRegistry("debian:bookworm"));

await measure(async () => {
  const process = await sandbox.exec(["true"]);
  const [, , code] = await Promise.all([process.stdout.readText(), process.stderr.readText(), process.wait()]);
  if (code !== 0) throw new Error(`\`true\` exited with ${code}`);
});
await sandbox.terminate();
process.exit(0);
