/**
 * The objects that the bridge keeps: commands, builds, watches, forwarded ports. It closes them with their provider.
 *
 * @module
 */
import { call } from "./native.js";

/** What is done with an object that the program has lost: it is not garbage as long as the bridge has it. */
export type Lost = "close" | "detach" | "keep";

const lost = new FinalizationRegistry<{ object: number; how: Lost }>(({ object, how }) => {
  const released = how === "detach" ? call("process.detach", { process: object }) : call("close", { object });
  // It may be closed already, or the program is ending.
  released.catch(() => {});
});

/** An object. Everything that uses it holds the handle. */
export class Handle {
  readonly number: number;

  constructor(number: number, how: Lost) {
    this.number = number;
    if (how !== "keep") {
      lost.register(this, { object: number, how }, this);
    }
  }

  /** Closes the object. Nothing happens if that was done before. */
  async close(): Promise<void> {
    this.forget();
    await call("close", { object: this.number });
  }

  /** Notes that the object was closed. */
  forget(): void {
    lost.unregister(this);
  }
}
