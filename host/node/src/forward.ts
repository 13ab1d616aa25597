import { Handle } from "./handle.js";
import { call } from "./native.js";
import * as results from "./results.js";
import * as shapes from "./shapes.js";
import type { CallOptions, FileEvent } from "./types.js";

/** A local port whose connections are forwarded to a port of a sandbox, until it is closed. */
export class Forward implements AsyncDisposable {
  /** The local address, such as `127.0.0.1:40001`. */
  readonly address: string;
  /** The host of the address. */
  readonly host: string;
  /** The local port. */
  readonly port: number;
  readonly #handle: Handle;

  /** @internal */
  static make(forward: number, address: string): Forward {
    return new Forward(new Handle(forward, "keep"), address);
  }

  private constructor(handle: Handle, address: string) {
    this.#handle = handle;
    this.address = address;
    const colon = address.lastIndexOf(":");
    this.host = address.slice(0, colon).replace(/^\[|\]$/g, "");
    this.port = Number(address.slice(colon + 1));
  }

  /** Ends the forwarding, also of open connections. Nothing happens if that was done before. */
  async close(): Promise<void> {
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Changes of files, as they happen: `for await (const event of watch)`. The loop closes the watch when it ends. */
export class Watch implements AsyncDisposable, AsyncIterable<FileEvent> {
  readonly #handle: Handle;

  /** @internal */
  static make(watch: number): Watch {
    return new Watch(new Handle(watch, "close"));
  }

  private constructor(handle: Handle) {
    this.#handle = handle;
  }

  /** Waits for the next changes. Returns an empty array when the watch has ended. */
  async next(options: CallOptions = {}): Promise<FileEvent[]> {
    shapes.none(options);
    const { value } = await call<results.Json[]>("watch.next", { watch: this.#handle.number }, options);
    return value.map(results.fileEvent);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<FileEvent, void, void> {
    try {
      for (let events = await this.next(); events.length > 0; events = await this.next()) {
        yield* events;
      }
    } finally {
      await this.close();
    }
  }

  /** Ends the watch. Nothing happens if that was done before. */
  async close(): Promise<void> {
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
