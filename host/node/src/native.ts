/**
 * The calls of this JavaScript thread. The native module runs them; here each one is a promise.
 *
 * @module
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { SandboxError, invalid } from "./error.js";

/** The result of a call: JSON, and the bytes that belong to it. */
export interface Reply<T> {
  value: T;
  parts: Buffer[];
}

/** How a call is made. */
export interface CallOptions<T> {
  /** Cancels the call. */
  signal?: AbortSignal | undefined;
  /** Bytes for the methods that take them. */
  data?: Uint8Array | undefined;
  /** Removes what the call made. Used if the call succeeds after it was aborted. */
  undo?: ((value: T) => unknown) | undefined;
}

type Settle = (id: number, succeeded: boolean, json: string, parts: Buffer[]) => void;

interface Channel {
  call(id: number, method: string, json: string, data: Uint8Array | undefined): void;
  cancel(id: number): void;
  close(): void;
}

interface Native {
  start(settle: Settle): Channel;
  compileApart(program: string, script: string): void;
}

interface Pending {
  resolve(reply: Reply<never>): void;
  reject(error: unknown): void;
}

interface Fault {
  kind: string;
  message: string;
  reason: string;
  happened: "no" | "unknown" | "yes";
  retryable: boolean;
  retry_after_ms: number | null;
  subject: string | null;
}

/** How long an aborted call may still run, so that what it made can be removed, in milliseconds. */
const ABANDONED_MS = 10_000;

const pending = new Map<number, Pending>();
let lastId = 0;
let channel: Channel | undefined;

// A timer that keeps the event loop alive while calls are pending. It fires once in 24 days.
const alive = setInterval(() => {}, 0x7fff_ffff).unref();

function load(): Native {
  const name = `${process.platform}-${process.arch}`;
  try {
    return createRequire(import.meta.url)(`./native/${name}.node`) as Native;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new SandboxError(`cannot load the native module for ${name}: ${why}`, { kind: "unsupported", subject: name });
  }
}

function open(): Channel {
  if (channel === undefined) {
    const native = load();
    // Other runtimes do not run the script of the compiler in the same way. There, this process compiles.
    if (process.versions["bun"] === undefined && process.versions["deno"] === undefined) {
      native.compileApart(process.execPath, fileURLToPath(new URL("./compile.cjs", import.meta.url)));
    }
    channel = native.start(settle);
    process.once("exit", () => channel?.close());
  }
  return channel;
}

function settle(id: number, succeeded: boolean, json: string, parts: Buffer[]): void {
  const call = forget(id);
  if (call === undefined) {
    return;
  }
  try {
    const value: unknown = JSON.parse(json);
    if (succeeded) {
      call.resolve({ value: value as never, parts });
    } else {
      call.reject(new Failed(value as Fault));
    }
  } catch (error) {
    call.reject(error);
  }
}

/** The failure of a call. The error is made where the call is awaited, so that its stack names the callers. */
class Failed {
  readonly fault: Fault;

  constructor(fault: Fault) {
    this.fault = fault;
  }
}

function failure(fault: Fault): SandboxError {
  return new SandboxError(fault.message, {
    kind: fault.kind,
    reason: fault.reason,
    happened: fault.happened,
    retryable: fault.retryable,
    retryAfterMs: fault.retry_after_ms,
    subject: fault.subject,
  });
}

function forget(id: number): Pending | undefined {
  const call = pending.get(id);
  pending.delete(id);
  if (pending.size === 0) {
    alive.unref();
  }
  return call;
}

/** Calls a method of the bridge. Rejects with a {@link SandboxError}, or with the reason of an aborted signal. */
export async function call<T = null>(
  method: string,
  args: Record<string, unknown>,
  options: CallOptions<T> = {},
): Promise<Reply<T>> {
  const { signal, undo } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw invalid("signal", "must be an AbortSignal");
  }
  signal?.throwIfAborted();
  const id = ++lastId;
  const result = new Promise<Reply<T>>((resolve, reject) => {
    begin(id, method, stringify(args), options.data === undefined ? undefined : unshared(options.data));
    const stop = signal && onAbort(signal, () => {
      reject(signal.reason);
      if (undo === undefined) {
        forget(id);
        channel?.cancel(id);
      } else {
        abandon(id, undo);
      }
    });
    pending.set(id, {
      resolve(reply) {
        stop?.();
        resolve(reply);
      },
      reject(error) {
        stop?.();
        reject(error as Error);
      },
    });
    alive.ref();
  });
  try {
    return await result;
  } catch (error) {
    throw error instanceof Failed ? failure(error.fault) : error;
  }
}

function begin(id: number, method: string, json: string, data: Uint8Array | undefined): void {
  const channel = open();
  try {
    channel.call(id, method, json, data);
  } catch (error) {
    throw new SandboxError(error instanceof Error ? error.message : String(error), { kind: "closed" });
  }
}

/** Lets an aborted call end, and removes what it made. */
function abandon<T>(id: number, undo: (value: T) => unknown): void {
  const timer = setTimeout(() => {
    forget(id);
    channel?.cancel(id);
  }, ABANDONED_MS);
  pending.set(id, {
    async resolve(reply: Reply<T>) {
      clearTimeout(timer);
      try {
        await undo(reply.value);
      } catch {
        // The caller has its error already: the reason of the signal.
      }
    },
    reject() {
      clearTimeout(timer);
    },
  });
}

function stringify(args: Record<string, unknown>): string {
  try {
    return JSON.stringify(args);
  } catch (error) {
    throw invalid("the arguments", `cannot be written as JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Copies bytes that other threads can change. */
function unshared(data: Uint8Array): Uint8Array {
  return data.buffer instanceof SharedArrayBuffer ? Uint8Array.from(data) : data;
}

interface Watch {
  reactions: Set<() => void>;
  listener: () => void;
}

const watched = new WeakMap<AbortSignal, Watch>();

/**
 * Calls `react` when the signal is aborted. Returns a function that ends that. A signal has one listener for all calls, because
 * Node warns about many listeners. @internal
 */
export function onAbort(signal: AbortSignal, react: () => void): () => void {
  let watch = watched.get(signal);
  if (watch === undefined) {
    const reactions = new Set<() => void>();
    const listener = (): void => {
      watched.delete(signal);
      reactions.forEach((reaction) => reaction());
    };
    watch = { reactions, listener };
    watched.set(signal, watch);
    signal.addEventListener("abort", listener, { once: true });
  }
  const { reactions, listener } = watch;
  reactions.add(react);
  return () => {
    // A signal with a listener would be kept in memory.
    if (reactions.delete(react) && reactions.size === 0) {
      watched.delete(signal);
      signal.removeEventListener("abort", listener);
    }
  };
}
