// Runs a provider component in Node 20 or newer: jco from npm translates it to JavaScript, and its WASI implementation for
// Node uses a worker thread with Node's own HTTP/1.1 client. A call blocks the thread that makes it. With Node 24 or newer,
// use `host-jspi.mjs` instead.
//
//     TRANSLATED=FOLDER node host.mjs COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST
//
// IMAGE is the reference of an image in a registry. FOLDER is the destination of the translation. The npm packages must be
// visible from it.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { transpile } from "@bytecodealliance/jco";
import { _setEnv } from "@bytecodealliance/preview2-shim/cli";
import { check } from "./checks.mjs";

const [component, reference] = process.argv.slice(2);
const folder = resolve(process.env.TRANSLATED);
let opened = 0;

/** Translates the component and returns the functions of the interfaces that it exports, in one object. */
async function open(environment) {
  // A module is loaded once, so that each instance has a name of its own.
  const name = `provider-${++opened}`;
  const { files } = await transpile(readFileSync(component), { name, noTypescript: true });
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  _setEnv(environment);
  const { sandboxProvider, exec, images } = await import(pathToFileURL(join(folder, `${name}.js`)));
  return { ...sandboxProvider, ...exec, ...images };
}

await check(open, reference);
process.exit(0);
