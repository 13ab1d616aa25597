// The checks that the JavaScript hosts make, with any way to call the functions of a provider. A function that returns at
// once and one that returns a promise are both awaited.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

const VARIABLES = ["MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE", "DOCKER_HOST"];

const image = (source) => ({ source, commands: [], secrets: [], force: false, extra: [] });

/** Returns a command with an id of its own, whose output is kept. */
export const command = (...argv) => ({
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

/** Limits for the output that `run` returns, in bytes. */
export const limits = { stdoutMax: 4n << 20n, stderrMax: 1n << 20n, keep: "head" };

/**
 * Makes the checks. `open` takes the environment of a component and returns the functions of its interfaces in one object.
 * No two interfaces have a function with the same name. `more` makes further checks in a sandbox that runs.
 */
export async function check(open, reference, more = async () => {}) {
  const set = VARIABLES.filter((name) => process.env[name] !== undefined);
  const env = Object.fromEntries(set.map((name) => [name, process.env[name]]));
  let passed = 0;
  const same = (what, actual, expected) => {
    assert.deepEqual(actual, expected, what);
    console.log(`ok  ${what}`);
    passed += 1;
  };

  if (env.MODAL_TOKEN_ID) {
    // Calls without the token of the gateway are refused.
    const wrong = await open({ ...env, MODAL_TOKEN_ID: "ak-guess", MODAL_TOKEN_SECRET: "as-guess" });
    let kind;
    try {
      await wrong.check();
    } catch (error) {
      kind = error.payload?.kind.tag;
      if (kind !== "unauthenticated") throw new Error(error.payload?.message, { cause: error });
    }
    same("a wrong gateway token is refused", kind, "unauthenticated");
  }

  const provider = await open(env);
  same("describe", (await provider.describe()).name.length > 0, true);

  let progress = await provider.startBuild(image({ tag: "registry", val: { reference } }));
  while (!progress.image) progress = await provider.readBuild(progress.cursor, 65536, 10_000n);
  same("an image", progress.image.id.length > 3, true);

  const { id } = await provider.create({
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
  same("a sandbox", id.length > 3, true);

  const script = command("sh", "-c", 'printf "%s %s" "$GREETING" "$(cat)"; echo err >&2; exit 7');
  const result = await provider.run(id, script, new TextEncoder().encode("from stdin"), limits);
  same("the exit code", result.verdict, { tag: "exited", val: 7 });
  same("standard output", new TextDecoder().decode(result.stdout.data), "hello from stdin");
  same("standard error", new TextDecoder().decode(result.stderr.data), "err\n");

  const big = await provider.run(id, command("head", "-c", "3000000", "/dev/zero"), new Uint8Array(), limits);
  same("three million bytes", Buffer.compare(Buffer.from(big.stdout.data), Buffer.alloc(3_000_000)), 0);

  await more(env, id, same);
  await provider.terminate(id);
  same("the end", await provider.wait(id, 30_000n), { tag: "terminated" });
  console.log(`${passed} passed, 0 failed`);
}
