import { SandboxError } from "./error.js";
import { Forward, Watch } from "./forward.js";
import { call } from "./native.js";
import { Process, checkedSignal } from "./process.js";
import * as results from "./results.js";
import * as shapes from "./shapes.js";
import type * as types from "./types.js";

/** What names a sandbox in the calls of the bridge. */
interface Place {
  sandbox: string;
  container?: string;
  user?: string;
}

const timeout = shapes.options<types.CallOptions & { timeoutMs?: number }>({ timeoutMs: shapes.millis });
const logQuery = shapes.options<types.LogQuery>({
  sinceMs: ["since", shapes.millis],
  untilMs: ["until", shapes.millis],
  stream: shapes.oneOf("stdout", "stderr"),
  search: shapes.string,
  cursor: shapes.string,
  maxBytes: shapes.count,
});
const writeOptions = shapes.options<types.WriteOptions>({
  mode: shapes.oneOf("replace", "append", "create-new"),
  permissions: shapes.count,
});
const transferOptions = shapes.options<types.TransferOptions>({ onProgress: shapes.callback });
const metadata: shapes.Shape = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/**
 * A sandbox: a name for a machine at the provider. Letting it go does not end the machine; {@link terminate} and `await using` do.
 *
 * ```js
 * await using sandbox = await provider.create({ image: "debian" });
 * const { exitCode, stdout } = await sandbox.run(["uname", "-a"]);
 * ```
 */
export class Sandbox implements AsyncDisposable {
  /** The id. */
  readonly id: string;
  readonly #provider: number;
  readonly #place: Place;

  /** @internal */
  static make(provider: number, place: Place): Sandbox {
    return new Sandbox(provider, place);
  }

  private constructor(provider: number, place: Place) {
    this.id = place.sandbox;
    this.#provider = provider;
    this.#place = place;
  }

  #call<T = null>(
    method: string,
    args: Record<string, unknown>,
    options: types.CallOptions,
    more: { data?: Uint8Array; undo?: (value: T) => unknown } = {},
  ): Promise<{ value: T; parts: Buffer[] }> {
    return call<T>(method, { provider: this.#provider, ...this.#place, ...args }, { signal: options.signal, ...more });
  }

  // ---- handles ----

  /** A handle on a sidecar of this sandbox: its commands and files. */
  container(name: string): Sandbox {
    return new Sandbox(this.#provider, { ...this.#place, container: shapes.string(name, "name") as string });
  }

  /** A handle whose file operations act as this user: a name or a number. */
  as(user: string): Sandbox {
    return new Sandbox(this.#provider, { ...this.#place, user: shapes.string(user, "user") as string });
  }

  // ---- commands ----

  /**
   * Runs a command and returns its output. A text is a line for `sh`; an array is a program with its arguments. An aborted signal
   * kills the command. A command that fails is no error: see {@link types.RunResult.exitCode}.
   */
  async run(command: types.Command, options: types.RunOptions = {}): Promise<types.RunResult> {
    const args = shapes.run(command, options);
    const input = options.input === undefined ? {} : { data: shapes.bytes(options.input, "options.input") };
    const { value, parts } = await this.#call<results.Json>("sandbox.run", args, options, input);
    const verdict = results.verdict(value.verdict);
    return {
      verdict,
      exitCode: verdict.kind === "exited" ? verdict.exitCode : null,
      stdout: parts[0] ?? Buffer.alloc(0),
      stderr: parts[1] ?? Buffer.alloc(0),
      stdoutTotal: value.stdout_total,
      stderrTotal: value.stderr_total,
      durationMs: value.duration,
      retries: value.retries,
    };
  }

  /** Starts a command, with streams. The signal kills the command also after it has started. */
  async start(command: types.Command, options: types.CommandOptions = {}): Promise<Process> {
    const args = { command: shapes.command(command, options) };
    const signal = checkedSignal(options.signal);
    const undo = ({ process }: { process: number }) => call("close", { object: process });
    const { value } = await this.#call<{ process: number; exec: string }>("process.start", args, options, { undo });
    return Process.make(value.process, value.exec, signal);
  }

  /** Continues with a command that was started before, also by another process. It gets its output from the start. */
  async attach(exec: string, options: types.CallOptions = {}): Promise<Process> {
    const args = { exec: shapes.string(exec, "exec"), ...shapes.none(options) };
    const undo = ({ process }: { process: number }) => call("close", { object: process });
    const { value } = await this.#call<{ process: number; exec: string }>("process.attach", args, options, { undo });
    return Process.make(value.process, value.exec, undefined);
  }

  /** The commands that were started, newest first. */
  async execs(options: types.CallOptions & { max?: number } = {}): Promise<types.ExecInfo[]> {
    const args = shapes.options<typeof options>({ max: shapes.count })(options);
    const { value } = await this.#call<results.Json[]>("sandbox.execs", args, options);
    return value.map(results.execInfo);
  }

  /** Sends a signal to a command. */
  async signal(exec: string, signal: types.Signal, options: types.CallOptions = {}): Promise<void> {
    const args = { exec: shapes.string(exec, "exec"), signal: shapes.signal(signal, "signal"), ...shapes.none(options) };
    await this.#call("exec.signal", args, options);
  }

  // ---- state ----

  /** What the provider knows about the sandbox. */
  async info(options: types.CallOptions = {}): Promise<types.SandboxInfo> {
    const { value } = await this.#call<results.Json>("sandbox.info", shapes.none(options), options);
    return results.sandboxInfo(value);
  }

  /** Waits until the sandbox has ended. Returns null if the time passes before. */
  async wait(options: types.CallOptions & { timeoutMs?: number } = {}): Promise<types.EndReason | null> {
    const { value } = await this.#call<results.Json>("sandbox.wait", timeout(options), options);
    return value === null ? null : results.endReason(value);
  }

  /** Waits until the readiness probe has succeeded. Returns false if the time passes before. */
  async waitReady(options: types.CallOptions & { timeoutMs?: number } = {}): Promise<boolean> {
    return (await this.#call<boolean>("sandbox.wait_ready", timeout(options), options)).value;
  }

  /** Waits until the sandbox runs. Returns false if the time passes before. */
  async waitRunning(options: types.CallOptions & { timeoutMs?: number } = {}): Promise<boolean> {
    return (await this.#call<boolean>("sandbox.wait_running", timeout(options), options)).value;
  }

  /** Freezes all processes, until {@link resume}. */
  async pause(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.pause", shapes.none(options), options);
  }

  /** Ends all processes and keeps the files, until {@link resume}. */
  async stop(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.stop", shapes.none(options), options);
  }

  /** Continues a paused or stopped sandbox. */
  async resume(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.resume", shapes.none(options), options);
  }

  /** Ends the sandbox, and its lease. */
  async terminate(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.terminate", shapes.none(options), options);
  }

  /** Ends the lease of the sandbox but not the sandbox. */
  async release(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.release", shapes.none(options), options);
  }

  /** Changes how long the sandbox may still live. Returns the time of its end. */
  async extend(lifetimeMs: number, options: types.CallOptions = {}): Promise<number> {
    const args = { lifetime_ms: shapes.millis(lifetimeMs, "lifetimeMs"), ...shapes.none(options) };
    return (await this.#call<number>("sandbox.extend", args, options)).value;
  }

  /** Gives the sandbox a name. */
  async setName(name: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.set_name", { name: shapes.string(name, "name"), ...shapes.none(options) }, options);
  }

  /** The tags. */
  async tags(options: types.CallOptions = {}): Promise<Record<string, string>> {
    const { value } = await this.#call<[string, string][]>("sandbox.tags", shapes.none(options), options);
    return Object.fromEntries(value);
  }

  /** Replaces the tags. */
  async setTags(tags: types.Pairs, options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.set_tags", { tags: shapes.pairs(tags, "tags"), ...shapes.none(options) }, options);
  }

  /** A page of the log of the main process. */
  async logs(query: types.LogQuery = {}): Promise<types.LogPage> {
    const { value } = await this.#call<results.Json>("sandbox.logs", logQuery(query), query);
    return { items: value.items.map(results.logChunk), next: value.next };
  }

  /** What the sandbox has used and what that costs. */
  async usage(options: types.CallOptions = {}): Promise<types.UsageReport> {
    const { value } = await this.#call<results.Json>("sandbox.usage", shapes.none(options), options);
    return results.usageReport(value);
  }

  // ---- network ----

  /** Replaces the network policy. */
  async setNetwork(policy: types.NetworkPolicy, options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.set_network", { policy: shapes.network(policy, "policy"), ...shapes.none(options) }, options);
  }

  /** Waits for the public addresses of the ports. */
  async tunnels(options: types.CallOptions & { timeoutMs?: number } = {}): Promise<types.Tunnel[]> {
    const { value } = await this.#call<results.Json[]>("sandbox.tunnels", timeout(options), options);
    return value.map(results.tunnel);
  }

  /** Creates a token for HTTP connections to a port. */
  async connectToken(port: number, options: types.CallOptions & { metadata?: unknown } = {}): Promise<types.ConnectToken> {
    const args = { port: shapes.count(port, "port"), ...shapes.options<typeof options>({ metadata })(options) };
    const { value } = await this.#call<results.Json>("sandbox.connect_token", args, options);
    return results.connectToken(value);
  }

  /** Forwards a local port to a port that the sandbox was created with. The default of `listen` is `127.0.0.1:0`. */
  async forward(port: number, options: types.CallOptions & { listen?: string } = {}): Promise<Forward> {
    const args = { port: shapes.count(port, "port"), ...shapes.options<typeof options>({ listen: shapes.string })(options) };
    const undo = ({ forward }: { forward: number }) => call("close", { object: forward });
    const { value } = await this.#call<{ forward: number; address: string }>("forward.open", args, options, { undo });
    return Forward.make(value.forward, value.address);
  }

  // ---- snapshots ----

  /** Saves the files as an image and returns its id. Calls with the same key return the same image. */
  async snapshotFilesystem(options: types.CallOptions & { key?: string; ttlMs?: number } = {}): Promise<string> {
    const args = shapes.options<typeof options>({ key: shapes.string, ttlMs: shapes.millis })(options);
    return (await this.#call<{ image: string }>("sandbox.snapshot_filesystem", args, options)).value.image;
  }

  /** Saves a directory as an image, for {@link mount}, and returns its id. */
  async snapshotDirectory(path: string, options: types.CallOptions & { ttlMs?: number } = {}): Promise<string> {
    const args = { path: shapes.string(path, "path"), ...shapes.options<typeof options>({ ttlMs: shapes.millis })(options) };
    return (await this.#call<{ image: string }>("sandbox.snapshot_directory", args, options)).value.image;
  }

  /** Saves the memory, for {@link Provider.restore}, and returns the id of the snapshot. */
  async snapshotMemory(options: types.CallOptions = {}): Promise<string> {
    return (await this.#call<{ snapshot: string }>("sandbox.snapshot_memory", shapes.none(options), options)).value.snapshot;
  }

  /** Waits for the image that the provider saves when the sandbox ends. Returns null if there is none. */
  async exitSnapshot(options: types.CallOptions & { timeoutMs?: number } = {}): Promise<string | null> {
    return (await this.#call<{ image: string | null }>("sandbox.exit_snapshot", timeout(options), options)).value.image;
  }

  /** Mounts an image at a path, or an empty directory without one. */
  async mount(path: string, options: types.CallOptions & { image?: string } = {}): Promise<void> {
    const args = { path: shapes.string(path, "path"), ...shapes.options<typeof options>({ image: shapes.string })(options) };
    await this.#call("sandbox.mount", args, options);
  }

  /** Removes a mount. */
  async unmount(path: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.unmount", { path: shapes.string(path, "path"), ...shapes.none(options) }, options);
  }

  /** Makes changes of volumes by others visible. */
  async reloadVolumes(options: types.CallOptions = {}): Promise<void> {
    await this.#call("sandbox.reload_volumes", shapes.none(options), options);
  }

  // ---- sidecars ----

  /** Starts an additional container. */
  async createSidecar(spec: types.SidecarSpec, options: types.CallOptions = {}): Promise<types.SidecarInfo> {
    const args = { spec: shapes.sidecar(spec, "spec"), ...shapes.none(options) };
    const { value } = await this.#call<results.Json>("sidecar.create", args, options);
    return results.sidecarInfo(value);
  }

  /** The additional containers. */
  async sidecars(options: types.CallOptions = {}): Promise<types.SidecarInfo[]> {
    const { value } = await this.#call<results.Json[]>("sidecar.list", shapes.none(options), options);
    return value.map(results.sidecarInfo);
  }

  /** Waits until an additional container has ended. Returns null if the time passes before. */
  async waitSidecar(name: string, options: types.CallOptions & { timeoutMs?: number } = {}): Promise<types.EndReason | null> {
    const args = { name: shapes.string(name, "name"), ...timeout(options) };
    const { value } = await this.#call<results.Json>("sidecar.wait", args, options);
    return value === null ? null : results.endReason(value);
  }

  /** Ends an additional container. */
  async terminateSidecar(name: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("sidecar.terminate", { name: shapes.string(name, "name"), ...shapes.none(options) }, options);
  }

  // ---- files ----

  /** Reads a file: as bytes, or as text with the option `encoding`. `max` is the largest size in bytes, by default 100 MiB. */
  readFile(path: string, options: types.CallOptions & { encoding: BufferEncoding; max?: number }): Promise<string>;
  readFile(path: string, options?: types.CallOptions & { encoding?: undefined; max?: number }): Promise<Buffer>;
  async readFile(
    path: string,
    options: types.CallOptions & { encoding?: BufferEncoding | undefined; max?: number } = {},
  ): Promise<string | Buffer> {
    const { encoding, ...args } = shapes.options<typeof options>({ encoding: encodingName, max: shapes.count })(options);
    const { parts } = await this.#call("file.read", { path: shapes.string(path, "path"), ...args }, options);
    const data = parts[0] ?? Buffer.alloc(0);
    return encoding === undefined ? data : data.toString(encoding as BufferEncoding);
  }

  /** Writes a file, with missing directories above it. */
  async writeFile(path: string, data: string | Uint8Array, options: types.WriteOptions = {}): Promise<void> {
    const args = { path: shapes.string(path, "path"), ...writeOptions(options) };
    await this.#call("file.write", args, options, { data: shapes.bytes(data, "data") });
  }

  /** Copies a local file of any size into the sandbox. Returns its size. */
  async upload(from: string, path: string, options: types.TransferOptions & { permissions?: number } = {}): Promise<number> {
    const more = shapes.options<typeof options>({ permissions: shapes.count, onProgress: shapes.callback })(options);
    const args = { from: shapes.string(from, "from"), path: shapes.string(path, "path"), ...more };
    return (await this.#copy<{ bytes: number }>("file.upload", args, options)).bytes;
  }

  /** Copies a file of any size out of the sandbox. Returns its size. */
  async download(path: string, to: string, options: types.TransferOptions = {}): Promise<number> {
    const args = { path: shapes.string(path, "path"), to: shapes.string(to, "to"), ...transferOptions(options) };
    return (await this.#copy<{ bytes: number }>("file.download", args, options)).bytes;
  }

  /** Copies a local directory with its content into the sandbox. Pipes, sockets and devices are skipped. */
  async uploadDirectory(from: string, path: string, options: types.TransferOptions = {}): Promise<types.Copied> {
    const args = { from: shapes.string(from, "from"), path: shapes.string(path, "path"), ...transferOptions(options) };
    return results.camel(await this.#copy<results.Json>("directory.upload", args, options));
  }

  /** Copies a directory with its content out of the sandbox. What cannot be created here or would lead outside is skipped. */
  async downloadDirectory(path: string, to: string, options: types.TransferOptions = {}): Promise<types.Copied> {
    const args = { path: shapes.string(path, "path"), to: shapes.string(to, "to"), ...transferOptions(options) };
    return results.camel(await this.#copy<results.Json>("directory.download", args, options));
  }

  /** Copies a file or a directory. If its progress is wanted, the copy runs in the background, and is asked how far it is. */
  async #copy<T>(method: string, args: Record<string, unknown>, { signal, onProgress }: types.TransferOptions): Promise<T> {
    if (typeof onProgress !== "function") {
      return (await this.#call<T>(method, args, { signal })).value;
    }
    const undo = (started: { transfer: number }) => call("close", { object: started.transfer });
    const start = { method, arguments: { provider: this.#provider, ...this.#place, ...args } };
    const { value: transfer } = await call<{ transfer: number }>("transfer.start", start, { signal, undo });
    try {
      for (;;) {
        const { value: progress } = await call<types.Progress | null>("transfer.next", { ...transfer }, { signal });
        if (progress === null) {
          return (await call<T>("transfer.result", { ...transfer }, { signal })).value;
        }
        onProgress(progress);
      }
    } finally {
      // Also after an abort, and after an error of the callback: the copy is cancelled.
      await undo(transfer);
    }
  }

  /** Information about a file. `follow` tells whether a link is followed; default true. */
  async stat(path: string, options: types.CallOptions & { follow?: boolean } = {}): Promise<types.FileInfo> {
    const args = { path: shapes.string(path, "path"), ...shapes.options<typeof options>({ follow: shapes.boolean })(options) };
    const { value } = await this.#call<results.Json>("file.stat", args, options);
    return results.fileInfo(value);
  }

  /** The entries of a directory. */
  async readDirectory(path: string, options: types.CallOptions = {}): Promise<types.FileInfo[]> {
    const args = { path: shapes.string(path, "path"), ...shapes.none(options) };
    const { value } = await this.#call<results.Json[]>("directory.list", args, options);
    return value.map(results.fileInfo);
  }

  /** Makes a directory. `parents` tells whether those above it are made too, and whether it may exist; default true. */
  async makeDirectory(path: string, options: types.CallOptions & { parents?: boolean } = {}): Promise<void> {
    const args = { path: shapes.string(path, "path"), ...shapes.options<typeof options>({ parents: shapes.boolean })(options) };
    await this.#call("directory.make", args, options);
  }

  /** Removes a file or an empty directory, or a directory with its content if `recursive` is set. */
  async remove(path: string, options: types.CallOptions & { recursive?: boolean } = {}): Promise<void> {
    const more = shapes.options<typeof options>({ recursive: shapes.boolean })(options);
    await this.#call("file.remove", { path: shapes.string(path, "path"), ...more }, options);
  }

  /** Renames a file. `replace` tells whether an existing file is replaced; default true. */
  async rename(path: string, to: string, options: types.CallOptions & { replace?: boolean } = {}): Promise<void> {
    const more = shapes.options<typeof options>({ replace: shapes.boolean })(options);
    await this.#call("file.rename", { path: shapes.string(path, "path"), to: shapes.string(to, "to"), ...more }, options);
  }

  /** Makes a symbolic link at `path` with the content `target`. */
  async symlink(target: string, path: string, options: types.CallOptions = {}): Promise<void> {
    const args = { target: shapes.string(target, "target"), path: shapes.string(path, "path"), ...shapes.none(options) };
    await this.#call("file.symlink", args, options);
  }

  /** Changes the permission bits of a file. */
  async chmod(path: string, permissions: number, options: types.CallOptions = {}): Promise<void> {
    const args = { path: shapes.string(path, "path"), permissions: shapes.count(permissions, "permissions") };
    await this.#call("file.set_permissions", { ...args, ...shapes.none(options) }, options);
  }

  /** Watches a file or a directory for changes. */
  async watch(path: string, options: types.CallOptions & { recursive?: boolean } = {}): Promise<Watch> {
    const more = shapes.options<typeof options>({ recursive: shapes.boolean })(options);
    const undo = ({ watch }: { watch: number }) => call("close", { object: watch });
    const args = { path: shapes.string(path, "path"), ...more };
    const { value } = await this.#call<{ watch: number }>("watch.open", args, options, { undo });
    return Watch.make(value.watch);
  }

  /** Terminates the sandbox. A sandbox that has ended already is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.terminate();
    } catch (error) {
      if (!(error instanceof SandboxError && ["not-found", "sandbox-ended"].includes(error.kind))) {
        throw error;
      }
    }
  }
}

function encodingName(value: unknown, at: string): unknown {
  return Buffer.isEncoding(value as string) ? value : shapes.oneOf("utf8", "latin1", "base64", "hex")(value, at);
}
