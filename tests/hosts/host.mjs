// The provider component under Node: jco from npm turns it into JavaScript, its WASI over Node's own HTTP/1.1 client. Goes
// through `sandbox gateway`, as `host.py` does, and shows the same.
//
//     TRANSLATED=FOLDER node host.mjs modal-provider.wasm     # with the variables that `sandbox gateway` prints
//
// FOLDER is where the translation goes; it must see the npm packages.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";
import { transpile } from "@bytecodealliance/jco";
import { _setEnv } from "@bytecodealliance/preview2-shim/cli";

const VARIABLES = ["MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE"];

/** Translates the component into the folder and gives its exports; `name` tells several of them apart. */
async function load(component, folder, name) {
  const { files } = await transpile(readFileSync(component), { name, noTypescript: true });
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  return (await import(pathToFileURL(join(folder, `${name}.js`)))).sandboxProvider;
}

const image = (source) => ({ source, commands: [], secrets: [], force: false, extra: [] });

const command = (...argv) => ({
  id: randomUUID(),
  argv,
  env: [],
  secrets: [],
  timeout: 30_000n,
  stdout: "keep",
  stderr: "keep",
  mergeStderr: false,
  extra: [],
});

const limits = { stdoutMax: 4n << 20n, stderrMax: 1n << 20n, keep: "head" };

let passed = 0;
function check(what, actual, expected) {
  assert.deepEqual(actual, expected, what);
  console.log(`ok  ${what}`);
  passed += 1;
}

const component = resolve(process.argv[2]);
const folder = resolve(process.env.TRANSLATED);
const env = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]));

// Without the gateway's token there is no way in.
_setEnv({ ...env, MODAL_TOKEN_ID: "ak-guess", MODAL_TOKEN_SECRET: "as-guess" });
const stranger = await load(component, folder, "stranger");
assert.throws(
  () => stranger.check(),
  (error) => {
    check("a stranger is refused", error.payload.kind.tag, "unauthenticated");
    return true;
  },
);

_setEnv(env);
const provider = await load(component, folder, "provider");
check("describe", provider.describe().name, "modal");

let progress = provider.startBuild(image({ tag: "registry", val: { reference: "debian" } }));
while (!progress.image) progress = provider.readBuild(progress.cursor, 65536, 10_000n);
check("an image", progress.image.id.slice(0, 3), "im-");

const { id } = provider.create({
  image: image({ tag: "id", val: progress.image.id }),
  command: [],
  env: [["GREETING", "hello"]],
  secrets: [],
  resources: {},
  lifetime: 600_000n,
  regions: [],
  network: { outbound: { tag: "open" }, inboundCidrs: [] },
  ports: [],
  volumes: [],
  buckets: [],
  tags: [["from", "javascript"]],
  sidecars: [],
  key: randomUUID(),
  options: [],
  extra: [],
});
check("a sandbox", id.slice(0, 3), "sb-");

const script = command("sh", "-c", 'printf "%s %s" "$GREETING" "$(cat)"; echo err >&2; exit 7');
const result = provider.run(id, script, new TextEncoder().encode("from stdin"), limits);
check("the exit code", result.verdict, { tag: "exited", val: 7 });
check("standard output", new TextDecoder().decode(result.stdout.data), "hello from stdin");
check("standard error", new TextDecoder().decode(result.stderr.data), "err\n");

const big = provider.run(id, command("head", "-c", "3000000", "/dev/zero"), new Uint8Array(), limits);
check("three million bytes", Buffer.compare(big.stdout.data, Buffer.alloc(3_000_000)), 0);

provider.terminate(id);
check("the end", provider.wait(id, 30_000n), { tag: "terminated" });
console.log(`${passed} passed, 0 failed`);
process.exit(0);
