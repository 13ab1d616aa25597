// Measures a client: commands per second, and CPU time per command. The programs beside this file give a function that
// runs `true` once in a sandbox.

/** Prints a line for each number of commands in flight: the number, commands per second, CPU milliseconds per command. */
export async function measure(one) {
  const [total, ...inFlight] = process.argv.slice(2).map(Number);
  for (let index = 0; index < 10; index += 1) await one();
  for (const number of inFlight) {
    const run = async (count) => {
      let left = count;
      const worker = async () => {
        while (left > 0) {
          left -= 1;
          await one();
        }
      };
      await Promise.all(Array.from({ length: number }, worker));
    };
    await run(number);
    const before = process.cpuUsage();
    const begun = performance.now();
    await run(total);
    const seconds = (performance.now() - begun) / 1000;
    const { user, system } = process.cpuUsage(before);
    console.log(number, total / seconds, (user + system) / 1000 / total);
  }
}
