// Uses the library in threads.
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

// Prints much, and then waits.
const PRINT = "n=0; while test $n -lt 5000; do echo $n; n=$((n + 1)); done; exec sleep 600";

const here = fileURLToPath(import.meta.url);

async function open() {
  const { Provider } = await import("sandbox-host");
  const provider = await Provider.open("modal", { readProfiles: false });
  return provider.create({ image: "debian" });
}

function thread(how) {
  return new Worker(here, { workerData: how });
}

async function work(how) {
  const sandbox = await open();
  if (how === "use") {
    const results = await Promise.all(Array.from({ length: 20 }, (_, index) => sandbox.run(["echo", String(index)])));
    parentPort.postMessage(results.map(({ stdout }) => Number(stdout)).join());
    return;
  }
  const calls = Array.from({ length: 10 }, () => sandbox.run(["sleep", "600"]));
  const process_ = await sandbox.start(PRINT);
  process_.stdout.resume();
  parentPort.postMessage("ready");
  if (how === "exit") {
    process.exit(5);
  }
  await Promise.all(calls);
}

if (!isMainThread) {
  await work(workerData);
} else {
  switch (process.argv[2]) {
    case "use": {
      const main = open();
      const threads = Array.from({ length: 4 }, () => thread("use"));
      const answers = await Promise.all(threads.map(async (worker) => (await once(worker, "message"))[0]));
      const expected = Array.from({ length: 20 }, (_, index) => index).join();
      await main;
      if (answers.every((answer) => answer === expected)) {
        console.log("4 threads done");
      }
      break;
    }
    case "terminate": {
      const sandbox = await open();
      for (let round = 0; round < 3; round += 1) {
        const worker = thread("sleep");
        await once(worker, "message");
        await worker.terminate();
      }
      if ((await sandbox.run(["true"])).exitCode === 0) {
        console.log("main still works");
      }
      break;
    }
    case "only": {
      for (let round = 0; round < 3; round += 1) {
        const worker = thread("sleep");
        await once(worker, "message");
        await worker.terminate();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      console.log("all threads ended");
      break;
    }
    case "exit": {
      const worker = thread("exit");
      const [code] = await once(worker, "exit");
      console.log(`exit code ${code}`);
      break;
    }
  }
}
