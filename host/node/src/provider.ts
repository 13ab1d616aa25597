import { fileURLToPath } from "node:url";

import { Build } from "./build.js";
import { invalid } from "./error.js";
import { call } from "./native.js";
import * as results from "./results.js";
import { Sandbox } from "./sandbox.js";
import * as shapes from "./shapes.js";
import type * as types from "./types.js";

/** The components of this package. */
const BUNDLED = ["modal", "docker", "memory"];

/** What `provider.open` returns. */
interface Opened {
  provider: number;
  run_id: string | null;
  name: string;
  interface_version: string;
}

const listOptions = shapes.options<types.ListOptions>({
  tags: shapes.pairs,
  includeEnded: shapes.boolean,
  allApps: shapes.boolean,
  max: shapes.count,
});

/**
 * A loaded component with its settings: the connection to a service that runs sandboxes.
 *
 * ```js
 * await using provider = await Provider.open("modal");
 * await using sandbox = await provider.create({ image: "debian" });
 * ```
 */
export class Provider implements AsyncDisposable {
  /** The name of the provider, such as `modal`. */
  readonly name: string;
  /** The version of the interface that the component has. */
  readonly interfaceVersion: string;
  /** The id of this run among those of the owner, or null without an owner. */
  readonly runId: string | null;
  readonly #number: number;

  private constructor(opened: Opened) {
    this.#number = opened.provider;
    this.name = opened.name;
    this.interfaceVersion = opened.interface_version;
    this.runId = opened.run_id;
  }

  /** Loads a component of this package by its name, or another one by its path. The first time compiles it. */
  static async open(component: types.Component, options: types.ProviderOptions = {}): Promise<Provider> {
    const args = { component: path(component), ...shapes.provider(options) };
    const undo = ({ provider }: Opened) => call("close", { object: provider });
    const { value } = await call<Opened>("provider.open", args, { signal: options.signal, undo });
    return new Provider(value);
  }

  #call<T = null>(
    method: string,
    args: Record<string, unknown>,
    options: types.CallOptions,
    undo?: (value: T) => unknown,
  ): Promise<{ value: T; parts: Buffer[] }> {
    return call<T>(method, { provider: this.#number, ...args }, { signal: options.signal, undo });
  }

  #sandbox(id: string): Sandbox {
    return Sandbox.make(this.#number, { sandbox: id });
  }

  // ---- the provider itself ----

  /** What the provider is and can do. Sends no request. */
  async describe(options: types.CallOptions = {}): Promise<types.Description> {
    const { value } = await this.#call<results.Json>("provider.describe", shapes.none(options), options);
    return results.description(value);
  }

  /** Checks the credentials and the connection. */
  async check(options: types.CallOptions = {}): Promise<void> {
    await this.#call("provider.check", shapes.none(options), options);
  }

  /** Fails for a specification that no creation would accept. Sends no request and costs nothing. */
  async checkSpec(spec: types.SandboxSpec, options: types.CallOptions = {}): Promise<void> {
    await this.#call("provider.check_spec", { spec: shapes.sandbox(spec, "spec"), ...shapes.none(options) }, options);
  }

  /** Opens connections and makes instances of the component before the first call needs them. */
  async warmUp(instances: number, options: types.CallOptions = {}): Promise<void> {
    await this.#call("provider.warm_up", { instances: shapes.count(instances, "instances"), ...shapes.none(options) }, options);
  }

  /** Counters and times of calls by name. */
  async metrics(options: types.CallOptions = {}): Promise<Record<string, number>> {
    const { value } = await this.#call<Record<string, number | string>>("provider.metrics", shapes.none(options), options);
    const { prometheus: _, ...numbers } = value;
    return numbers as Record<string, number>;
  }

  /** The metrics as text for Prometheus. */
  async prometheus(options: types.CallOptions = {}): Promise<string> {
    return (await this.#call<{ prometheus: string }>("provider.metrics", shapes.none(options), options)).value.prometheus;
  }

  /** How often the service asked creations to wait, and how long the last wait still takes. */
  async throttled(options: types.CallOptions = {}): Promise<{ count: number; remainingMs: number }> {
    const { value } = await this.#call<results.Json>("provider.throttled", shapes.none(options), options);
    return { count: value.count, remainingMs: value.remaining_ms };
  }

  /** The origins that the component may reach. */
  async grants(options: types.CallOptions = {}): Promise<types.Grant[]> {
    return results.camel((await this.#call<results.Json>("provider.grants", shapes.none(options), options)).value);
  }

  /**
   * Waits for calls under way, cancels those that take longer than `graceMs` (default 0), and closes the provider and what it
   * opened, like {@link close}. Waits until commands were killed. Returns the number of cancelled calls.
   */
  async shutdown(options: types.CallOptions & { graceMs?: number } = {}): Promise<number> {
    const args = shapes.options<typeof options>({ graceMs: shapes.millis })(options);
    const { value } = await this.#call<{ cancelled: number }>("provider.shutdown", args, options);
    return value.cancelled;
  }

  /**
   * Closes the provider and what it opened: commands are killed, forwarded ports are closed. Calls under way fail. Sandboxes
   * continue. Nothing happens if that was done before.
   */
  async close(): Promise<void> {
    await call("close", { object: this.#number });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // ---- sandboxes ----

  /** Creates a sandbox. If the signal is aborted and the sandbox was created nevertheless, it is terminated. */
  async create(spec: types.SandboxSpec = {}, options: types.CallOptions = {}): Promise<Sandbox> {
    const args = { spec: shapes.sandbox(spec, "spec"), ...shapes.none(options) };
    const undo = ({ info }: results.Json) => this.#sandbox(info.id).terminate();
    const { value } = await this.#call<results.Json>("sandbox.create", args, options, undo);
    return this.#sandbox(value.info.id);
  }

  /** A handle on a sandbox with this id. Sends no request. */
  sandbox(id: string): Sandbox {
    return this.#sandbox(shapes.string(id, "id") as string);
  }

  /** The running sandbox with this name. */
  async find(name: string, options: types.CallOptions = {}): Promise<Sandbox> {
    const args = { name: shapes.string(name, "name"), ...shapes.none(options) };
    return this.#sandbox((await this.#call<{ id: string }>("sandbox.find", args, options)).value.id);
  }

  /** The sandboxes, newest first. */
  async list(options: types.ListOptions = {}): Promise<types.SandboxInfo[]> {
    const { value } = await this.#call<results.Json[]>("sandbox.list", listOptions(options), options);
    return value.map(results.sandboxInfo);
  }

  /** Creates a sandbox from a memory snapshot. */
  async restore(snapshot: string, options: types.CallOptions & { name?: string } = {}): Promise<Sandbox> {
    const more = shapes.options<typeof options>({ name: shapes.string })(options);
    const args = { snapshot: shapes.string(snapshot, "snapshot"), ...more };
    const undo = ({ sandbox }: { sandbox: string }) => this.#sandbox(sandbox).terminate();
    return this.#sandbox((await this.#call<{ sandbox: string }>("sandbox.restore", args, options, undo)).value.sandbox);
  }

  /** Terminates the sandboxes of an owner whose lease has ended. With `dryRun` it only returns them. */
  async sweep(owner: string, options: types.CallOptions & { dryRun?: boolean } = {}): Promise<types.Swept[]> {
    const more = shapes.options<typeof options>({ dryRun: shapes.boolean })(options);
    const args = { owner: shapes.string(owner, "owner"), ...more };
    return results.camel((await this.#call<results.Json>("sandbox.sweep", args, options)).value);
  }

  /** Deletes a memory snapshot. */
  async deleteSnapshot(snapshot: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("snapshot.delete", { snapshot: shapes.string(snapshot, "snapshot"), ...shapes.none(options) }, options);
  }

  /** Deletes a volume. */
  async deleteVolume(name: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("volume.delete", { name: shapes.string(name, "name"), ...shapes.none(options) }, options);
  }

  // ---- images ----

  /** Starts to build an image. Sends the files of a Dockerfile's context that the provider does not have. */
  async build(image: types.Image, options: types.CallOptions = {}): Promise<Build> {
    const args = { image: shapes.image(image, "image"), ...shapes.none(options) };
    const undo = ({ build }: { build: number }) => call("close", { object: build });
    const { value } = await this.#call<{ build: number; skipped: string[] }>("image.build", args, options, undo);
    return Build.make(value.build, value.skipped);
  }

  /** The image with this id. */
  async image(id: string, options: types.CallOptions = {}): Promise<types.BuiltImage> {
    const args = { image: shapes.string(id, "id"), ...shapes.none(options) };
    return results.builtImage((await this.#call<results.Json>("image.get", args, options)).value);
  }

  /** The images that the provider has stored, newest first. At most `max` are returned, by default 1000. */
  async images(options: types.CallOptions & { max?: number } = {}): Promise<types.BuiltImage[]> {
    const args = shapes.options<typeof options>({ max: shapes.count })(options);
    const { value } = await this.#call<results.Json[]>("image.list", args, options);
    return value.map(results.builtImage);
  }

  /** Deletes an image. */
  async deleteImage(id: string, options: types.CallOptions = {}): Promise<void> {
    await this.#call("image.delete", { image: shapes.string(id, "id"), ...shapes.none(options) }, options);
  }
}

function path(component: unknown): string {
  const name = shapes.string(component, "component") as string;
  if (name === "") {
    throw invalid("component", "must not be empty");
  }
  return BUNDLED.includes(name) ? fileURLToPath(new URL(`./components/${name}-provider.wasm`, import.meta.url)) : name;
}
