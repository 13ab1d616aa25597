/**
 * The objects that a provider opened: commands, builds, forwarded ports, watches.
 *
 * @module
 */
import { call } from "./native.js";

/** The open objects of a provider. They are closed with it. */
export class Objects {
  /** The number of the provider. */
  readonly provider: number;
  readonly #open = new Set<number>();

  constructor(provider: number) {
    this.provider = provider;
  }

  add(object: number): void {
    this.#open.add(object);
  }

  delete(object: number): void {
    this.#open.delete(object);
  }

  async closeAll(): Promise<void> {
    const open = [...this.#open];
    this.#open.clear();
    await Promise.all(open.map((object) => call("close", { object })));
  }
}

/** What is done with an object that the program has lost: it is not garbage as long as the bridge has it. */
export type Lost = "close" | "detach" | "keep";

const lost = new FinalizationRegistry<{ objects: Objects; object: number; how: Lost }>(({ objects, object, how }) => {
  objects.delete(object);
  const released = how === "detach" ? call("process.detach", { process: object }) : call("close", { object });
  // It may be closed already, or the program is ending.
  released.catch(() => {});
});

/** An object. Everything that uses it holds the handle. */
export class Handle {
  readonly number: number;
  readonly #objects: Objects;

  constructor(objects: Objects, number: number, how: Lost) {
    this.number = number;
    this.#objects = objects;
    objects.add(number);
    if (how !== "keep") {
      lost.register(this, { objects, object: number, how }, this);
    }
  }

  /** Closes the object. Nothing happens if that was done before. */
  async close(): Promise<void> {
    this.forget();
    await call("close", { object: this.number });
  }

  /** Notes that the object was closed. */
  forget(): void {
    this.#objects.delete(this.number);
    lost.unregister(this);
  }
}
