import { Handle } from "./handle.js";
import { call } from "./native.js";
import * as results from "./results.js";
import * as shapes from "./shapes.js";
import type { BuiltImage, CallOptions, LogChunk } from "./types.js";
import { SandboxError } from "./error.js";

/**
 * The build of an image: its log as an async iterator, then the image.
 *
 * ```js
 * const build = await provider.build({ registry: "debian", commands: ["RUN apt-get update"] });
 * for await (const { text } of build) process.stderr.write(text);
 * const image = await build.image();
 * ```
 */
export class Build implements AsyncDisposable, AsyncIterable<LogChunk> {
  /** Files of the build context that cannot be sent, such as sockets. */
  readonly skipped: readonly string[];
  readonly #handle: Handle;

  /** @internal */
  static make(build: number, skipped: string[]): Build {
    return new Build(new Handle(build, "close"), skipped);
  }

  private constructor(handle: Handle, skipped: string[]) {
    this.#handle = handle;
    this.skipped = skipped;
  }

  /** Waits for the next part of the log. Returns null at the end. */
  async next(options: CallOptions = {}): Promise<LogChunk | null> {
    shapes.none(options);
    const { value } = await call<results.Json>("build.next", { build: this.#handle.number }, options);
    return value === null ? null : results.logChunk(value);
  }

  /** The rest of the log. A `break` does not end the build. Fails with the kind `build-failed` if the build does. */
  async *[Symbol.asyncIterator](): AsyncGenerator<LogChunk, void, void> {
    for (let chunk = await this.next(); chunk !== null; chunk = await this.next()) {
      yield chunk;
    }
  }

  /** Waits for the end of the build, without the log that was not read yet, and returns the image. */
  async image(options: CallOptions = {}): Promise<BuiltImage> {
    while ((await this.next(options)) !== null);
    const { value } = await call<results.Json>("build.image", { build: this.#handle.number }, options);
    if (value === null) {
      throw new SandboxError("the build ended without an image", { kind: "internal", happened: "unknown" });
    }
    return results.builtImage(value);
  }

  /** Stops to follow the build. The provider may finish it. */
  async close(): Promise<void> {
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
