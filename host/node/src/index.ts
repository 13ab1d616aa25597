/**
 * Disposable machines (sandboxes) for Node: one API over providers that are WebAssembly components.
 *
 * ```js
 * import { Provider } from "sandbox-host";
 *
 * const provider = await Provider.open("modal");
 * const sandbox = await provider.create({ image: "python:3.12-slim" });
 * const { stdout } = await sandbox.run(["python3", "-c", "print(6 * 7)"]);
 * console.log(String(stdout));
 * await sandbox.terminate();
 * await provider.close();
 * ```
 *
 * @module
 */
export { Build } from "./build.js";
export { SandboxError } from "./error.js";
export type { Happened } from "./error.js";
export { Forward, Watch } from "./forward.js";
export { Process } from "./process.js";
export type { OutputPiece } from "./process.js";
export { Provider } from "./provider.js";
export { Sandbox } from "./sandbox.js";
export type * from "./types.js";
