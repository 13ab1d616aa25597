// Ends in different ways while commands are under way.
import { Provider } from "sandbox-host";

const provider = await Provider.open("modal", { readProfiles: false });
const sandbox = await provider.create({ image: "debian" });
const calls = Array.from({ length: 50 }, (_, index) => sandbox.run(["sleep", index < 25 ? "600" : "0"]));
const process_ = await sandbox.start("while :; do echo x; done");
// Some results arrive, others are under way.
await calls[49];
switch (process.argv[2]) {
  case undefined:
    console.log("leaving");
    process.exit(7);
    break;
  case "throw":
    throw new RangeError("thrown");
  case "loop":
    for await (const _ of process_.stdout) {
      console.log("in the loop");
      process.exit(8);
    }
    break;
  case "late":
    process.on("exit", () => {
      sandbox.run(["true"]).catch((error) => console.log(`refused ${error.kind}`));
      queueMicrotask(() => {});
    });
    process.on("exit", () => (process.exitCode = 0));
    await Promise.allSettled(calls.slice(25));
    // Rejections of the handler run in the microtasks of this one.
    process.on("exit", () => process._tickCallback?.());
    process.exit(0);
    break;
  case "unhandled":
    void provider.sandbox("sb-none").run(["true"]);
    await Promise.all(calls);
    break;
}
