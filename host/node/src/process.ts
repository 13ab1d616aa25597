import { Readable, Writable } from "node:stream";

import { invalid } from "./error.js";
import { Handle } from "./handle.js";
import { call, onAbort } from "./native.js";
import * as results from "./results.js";
import * as shapes from "./shapes.js";
import type { CallOptions, Signal, Verdict } from "./types.js";

/** Bytes that are read or written at once. */
const PIECE = 65_536;

/** A piece of output. */
export interface OutputPiece {
  stream: "stdout" | "stderr";
  data: Buffer;
}

/**
 * A running command.
 *
 * It ends on its own, or by {@link kill}, {@link close}, or the end of a block with `await using`. The signal that was given to
 * {@link Sandbox.start} kills it too.
 *
 * ```js
 * const process = await sandbox.start(["make", "test"]);
 * for await (const data of process.stdout) console.log(String(data));
 * console.log(await process.wait());
 * ```
 */
export class Process implements AsyncDisposable {
  /** The id, for {@link Sandbox.attach}. */
  readonly id: string;
  /** The standard input. A failed write is reported to its callback and as the event `error`. */
  readonly stdin: Writable;
  /** The standard output, as it comes. It is read only as fast as it is consumed. */
  readonly stdout: Readable;
  /** The standard error, as it comes. */
  readonly stderr: Readable;
  readonly #handle: Handle;
  #unwatch: () => void;

  /** @internal */
  static make(process: number, id: string, signal: AbortSignal | undefined): Process {
    // A command whose object is lost continues, like a child process of Node.
    return new Process(new Handle(process, "detach"), id, signal);
  }

  private constructor(handle: Handle, id: string, signal: AbortSignal | undefined) {
    this.#handle = handle;
    this.id = id;
    this.stdin = input(handle);
    this.stdout = output(handle, "stdout");
    this.stderr = output(handle, "stderr");
    const abort = (): void => void this.close().catch(() => {});
    this.#unwatch = signal === undefined ? () => {} : onAbort(signal, abort);
    if (signal?.aborted === true) {
      abort();
    }
  }

  /**
   * The output of both streams, as it comes. Ends when both have ended. A `break`, or an error in the loop, closes the streams;
   * the command continues.
   */
  async *output(): AsyncGenerator<OutputPiece, void, void> {
    const streams = [["stdout", this.stdout], ["stderr", this.stderr]] as const;
    const next = async (stream: "stdout" | "stderr", pieces: AsyncIterator<Buffer>) => {
      return { stream, pieces, result: await pieces.next() };
    };
    const waiting = new Map(
      streams.map(([stream, readable]) => [stream, next(stream, readable[Symbol.asyncIterator]() as AsyncIterator<Buffer>)]),
    );
    try {
      while (waiting.size > 0) {
        const { stream, pieces, result } = await Promise.race(waiting.values());
        if (result.done === true) {
          waiting.delete(stream);
        } else {
          yield { stream, data: result.value };
          waiting.set(stream, next(stream, pieces));
        }
      }
    } finally {
      waiting.forEach((piece) => piece.catch(() => {}));
      streams.forEach(([, readable]) => readable.destroy());
    }
  }

  /** Waits until the command has ended. May be called several times. An aborted signal ends only the waiting. */
  async wait(options: CallOptions = {}): Promise<Verdict> {
    shapes.none(options);
    const { value } = await call<results.Json>("process.wait", { process: this.#handle.number }, options);
    this.#unwatch();
    return results.verdict(value);
  }

  /** Sends a signal to the command. */
  async signal(signal: Signal, options: CallOptions = {}): Promise<void> {
    shapes.none(options);
    await call("process.signal", { process: this.#handle.number, signal: shapes.signal(signal, "signal") }, options);
  }

  /** Kills the command and all its processes. */
  async kill(options: CallOptions = {}): Promise<void> {
    shapes.none(options);
    await call("process.kill", { process: this.#handle.number }, options);
  }

  /** Changes the size of the terminal. */
  async resize(rows: number, columns: number, options: CallOptions = {}): Promise<void> {
    shapes.none(options);
    const size = { rows: shapes.count(rows, "rows"), columns: shapes.count(columns, "columns") };
    await call("process.resize", { process: this.#handle.number, ...size }, options);
  }

  /** Lets the command continue without this object, and returns its id for {@link Sandbox.attach}. */
  async detach(options: CallOptions = {}): Promise<string> {
    shapes.none(options);
    const { value } = await call<{ exec: string }>("process.detach", { process: this.#handle.number }, options);
    this.#handle.forget();
    this.#end();
    return value.exec;
  }

  /** Kills the command if it is running, and closes the streams. Nothing happens if that was done before. */
  async close(): Promise<void> {
    this.#end();
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #end(): void {
    this.#unwatch();
    for (const stream of [this.stdin, this.stdout, this.stderr]) {
      stream.destroy();
    }
  }
}

function input(handle: Handle): Writable {
  const ended = new AbortController();
  const stream = new Writable({
    highWaterMark: PIECE,
    write(chunk: Buffer, _encoding, done) {
      call("process.write", { process: handle.number }, { data: chunk, signal: ended.signal }).then(() => done(), done);
    },
    final(done) {
      call("process.close_input", { process: handle.number }, { signal: ended.signal }).then(() => done(), done);
    },
    destroy(error, done) {
      ended.abort();
      done(error);
    },
  });
  return quiet(stream);
}

function output(handle: Handle, stream: "stdout" | "stderr"): Readable {
  const ended = new AbortController();
  const readable = new Readable({
    highWaterMark: PIECE,
    read() {
      const args = { process: handle.number, stream, max: PIECE };
      call<{ end: boolean }>("process.read", args, { signal: ended.signal }).then(
        ({ value, parts: [data] }) => {
          if (data !== undefined && data.length > 0) {
            readable.push(data);
          }
          if (value.end) {
            readable.push(null);
          }
        },
        (error: Error) => readable.destroy(error),
      );
    },
    destroy(error, done) {
      ended.abort();
      done(error);
    },
  });
  return quiet(readable);
}

/** Prevents that an error ends the program if there is no listener. `wait` reports it too. */
function quiet<T extends Readable | Writable>(stream: T): T {
  stream.on("error", () => {});
  return stream;
}

/** Checks a signal that is used beyond one call. @internal */
export function checkedSignal(signal: unknown): AbortSignal | undefined {
  if (signal !== undefined && signal !== null && !(signal instanceof AbortSignal)) {
    throw invalid("signal", "must be an AbortSignal");
  }
  return signal ?? undefined;
}
