// Runs a provider component in Node 24 or newer, or Deno, on one thread. jco from npm translates it to JavaScript that uses
// JSPI, the promise integration of WebAssembly: a call of the component is a promise, and other calls run while it waits. Its
// WASI implementation is the one for browsers, which uses `fetch`.
//
//     TRANSLATED=FOLDER node --experimental-wasm-jspi host-jspi.mjs COMPONENT IMAGE
//
// The option is needed by Node 24 only. IMAGE is the reference of an image in a registry. FOLDER is the destination of the
// translation. The variables are those that `sandbox-host gateway` prints, or DOCKER_HOST.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { transpile } from "@bytecodealliance/jco";
import { check, command, limits } from "./checks.mjs";

const [component, reference] = process.argv.slice(2);
const folder = resolve(process.env.TRANSLATED);

// Node chooses the implementation for Node by itself. That for browsers is beside it.
const shim = (name) => import(new URL(`../browser/${name}.js`, import.meta.resolve("@bytecodealliance/preview2-shim")));
const [cli, clocks, http, io, random] = await Promise.all(["cli", "clocks", "http", "io", "random"].map(shim));

// The functions that may wait: `poll` of the host, and those of the component that this program calls.
const interfaces = {
  "sandbox-provider": ["check", "describe", "create", "terminate", "wait"],
  images: ["start-build", "read-build"],
  exec: ["run"],
};
const asyncExports = Object.entries(interfaces).flatMap(([name, functions]) =>
  functions.map((each) => `harness:sandbox/${name}@0.2.0#${each}`),
);
const asyncImports = ["wasi:io/poll@0.2.12#poll", "wasi:io/poll@0.2.12#[method]pollable.block"];
const options = { name: "jspi", noTypescript: true, instantiation: "async", asyncMode: "jspi", asyncImports, asyncExports };
const { files } = await transpile(readFileSync(component), { ...options, wasiShim: false });
for (const [path, content] of Object.entries(files)) {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), content);
}
const { instantiate } = await import(pathToFileURL(join(folder, "jspi.js")));
// Compiled once, for all instances.
const modules = new Map();
const module = (path) => {
  if (!modules.has(path)) modules.set(path, WebAssembly.compile(files[path]));
  return modules.get(path);
};

/** Returns a function of each name that makes the call in a new instance. A call occupies its instance until it ends. */
async function open(environment) {
  const instance = async () => {
    const own = cli.createCli({ environment });
    const imports = Object.entries({ cli: own, clocks, http, io, random }).flatMap(([name, parts]) =>
      Object.entries(parts).map(([part, value]) => [
        `wasi:${name}/${part.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
        value,
      ]),
    );
    const { sandboxProvider, exec, images } = await instantiate(module, Object.fromEntries(imports));
    return { ...sandboxProvider, ...exec, ...images };
  };
  return new Proxy({}, { get: (_, name) => name !== "then" && (async (...values) => (await instance())[name](...values)) });
}

/** Runs commands that wait for each other, which end only if they run at the same time. */
async function together(environment, sandbox, same) {
  const provider = await open(environment);
  const meet = 'mkdir -p /tmp/met && touch /tmp/met/$1 && until [ "$(ls /tmp/met | wc -l)" = 20 ]; do sleep 0.1; done';
  const one = (_, i) => ({ ...command("sh", "-c", meet, "sh", `${i}`), timeout: 120_000n });
  const commands = Array.from({ length: 20 }, one);
  const results = await Promise.all(commands.map((each) => provider.run(sandbox, each, new Uint8Array(), limits)));
  const ended = results.filter(({ verdict }) => verdict.tag === "exited" && verdict.val === 0);
  same("twenty commands at the same time", ended.length, 20);
}

await check(open, reference, together);
// Timers of calls that have ended would keep the program running.
process.exit(0);
