// Ends in different ways while commands are under way.
import { Provider } from "sandbox-host";

// Prints much, and then waits.
const PRINT = "n=0; while test $n -lt 5000; do echo $n; n=$((n + 1)); done; exec sleep 600";

const provider = await Provider.open("modal", { readProfiles: false });
const sandbox = await provider.create({ image: "debian" });
const calls = Array.from({ length: 20 }, (_, index) => sandbox.run(["sleep", index < 15 ? "600" : "0"]));
const process_ = await sandbox.start(PRINT);
// Some results arrive, others are under way.
await calls[19];
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
      // No promise is settled anymore.
      void sandbox.run(["true"]);
      void process_.close();
      console.log("called");
    });
    process.exit(0);
    break;
  case "unhandled":
    void provider.sandbox("sb-none").run(["true"]);
    await calls[0];
    break;
}
