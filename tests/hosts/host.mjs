// Runs the provider component in Node: jco from npm translates it to JavaScript, and its WASI implementation uses
// Node's own HTTP/1.1 client. It connects through `sandbox gateway` and makes the same checks as `host.py`.
//
//     TRANSLATED=FOLDER node host.mjs modal-provider.wasm     # with the variables that `sandbox gateway` prints
//
// FOLDER is the destination of the translation. The npm packages must be visible from it.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";
import { transpile } from "@bytecodealliance/jco";
import { _setEnv } from "@bytecodealliance/preview2-shim/cli";

const VARIABLES = ["MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE"];

/**
 * Translates the component into the folder and returns the functions of all interfaces that it exports, in one object. No two
 * interfaces have a function with the same name. `name` must be unique per translation.
 */
async function load(component, folder, name) {
  const { files } = await transpile(readFileSync(component), { name, noTypescript: true });
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  const exports = await import(pathToFileURL(join(folder, `${name}.js`)));
  const { sandboxProvider, exec, images } = exports;
  return { ...sandboxProvider, ...exec, ...images };
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

// Calls without the token of the gateway are refused.
_setEnv({ ...env, MODAL_TOKEN_ID: "ak-guess", MODAL_TOKEN_SECRET: "as-guess" });
const refused = await load(component, folder, "refused");
assert.throws(
  () => refused.check(),
  (error) => {
    check("a wrong gateway token is refused", error.payload.kind.tag, "unauthenticated");
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
  entryPoint: { tag: "keep-alive" },
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
