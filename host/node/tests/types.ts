// What the compiler accepts and what it refuses. This file is only checked, never run.
import {
  Build,
  Forward,
  Process,
  Provider,
  Sandbox,
  SandboxError,
  type EndReason,
  type FileInfo,
  type ProviderOptions,
  type RunResult,
  type SandboxInfo,
  type SandboxSpec,
  type Verdict,
} from "sandbox-host";
import type { Readable, Writable } from "node:stream";

/** Fails to compile unless both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_A, _B>(_proof: Same<_A, _B>): void {}

export async function use(signal: AbortSignal): Promise<void> {
  const options: ProviderOptions = { env: { A: "b" }, owner: "me", leaseMs: 60_000, signal };
  await using provider = await Provider.open("modal", options);
  const spec: SandboxSpec = {
    image: { dockerfile: { path: "Dockerfile", context: ".", buildArgs: { A: "1" } }, commands: ["RUN true"] },
    resources: { memoryLimitMib: 512, gpu: { model: "T4" } },
    network: { outbound: { allowed: { domains: ["example.com"] } } },
    ports: [8080, { number: 9090, kind: "h2" }],
    readiness: { check: { tcp: 8080 }, intervalMs: 100 },
    lifetimeMs: 60_000,
  };
  await using sandbox = await provider.create(spec, { signal });
  same<typeof sandbox, Sandbox>(true);
  const result = await sandbox.run(["true"], { timeoutMs: 1000, input: new Uint8Array(1), signal });
  same<typeof result, RunResult>(true);
  same<typeof result.exitCode, number | null>(true);
  same<typeof result.stdout, Buffer>(true);
  await using process = await sandbox.start("line");
  same<typeof process, Process>(true);
  same<typeof process.stdin, Writable>(true);
  same<typeof process.stdout, Readable>(true);
  for await (const { stream, data } of process.output()) {
    same<typeof stream, "stdout" | "stderr">(true);
    same<typeof data, Buffer>(true);
  }
  const verdict: Verdict = await process.wait({ signal });
  switch (verdict.kind) {
    case "exited":
      same<typeof verdict.exitCode, number>(true);
      break;
    case "sandbox-ended":
      same<typeof verdict.reason, EndReason>(true);
      break;
    case "signaled":
      same<typeof verdict.signal, number>(true);
      break;
    case "deadline":
    case "out-of-memory":
      break;
    default:
      same<typeof verdict.message, string>(true);
  }
  const text = await sandbox.readFile("/f", { encoding: "utf8" });
  same<typeof text, string>(true);
  const bytes = await sandbox.readFile("/f");
  same<typeof bytes, Buffer>(true);
  const entries = await sandbox.readDirectory("/");
  same<typeof entries, FileInfo[]>(true);
  const infos = await provider.list({ tags: { a: "b" } });
  same<typeof infos, SandboxInfo[]>(true);
  await using build = await provider.build("debian");
  same<typeof build, Build>(true);
  for await (const chunk of build) {
    same<typeof chunk.atMs, number | null>(true);
  }
  await using forward = await sandbox.forward(80);
  same<typeof forward, Forward>(true);
  same<typeof forward.port, number>(true);
  for await (const event of await sandbox.watch("/")) {
    same<typeof event.paths, string[]>(true);
  }
  try {
    await provider.check();
  } catch (error) {
    if (error instanceof SandboxError) {
      same<typeof error.kind, string>(true);
      same<typeof error.happened, "no" | "unknown" | "yes">(true);
      same<typeof error.retryAfterMs, number | null>(true);
      same<typeof error.subject, string | null>(true);
    }
  }
}

export async function refuse(provider: Provider, sandbox: Sandbox, process: Process): Promise<void> {
  // @ts-expect-error: the component is missing
  await Provider.open();
  // @ts-expect-error: no such option
  await Provider.open("modal", { profil: "x" });
  // @ts-expect-error: constructors are private
  new Provider();
  // @ts-expect-error: constructors are private
  new Sandbox();
  // @ts-expect-error: constructors are private
  new Process();
  // @ts-expect-error: no such field
  await provider.create({ imgae: "debian" });
  // @ts-expect-error: a time is a number
  await provider.create({ lifetimeMs: "1" });
  // @ts-expect-error: no such network
  await provider.create({ network: { outbound: "closed" } });
  // @ts-expect-error: words are texts
  await sandbox.run([1]);
  // @ts-expect-error: the signal is an AbortSignal
  await sandbox.run(["true"], { signal: "TERM" });
  // @ts-expect-error: input is a text or bytes
  await sandbox.run(["cat"], { input: 1 });
  // @ts-expect-error: no such mode
  await sandbox.writeFile("/f", "", { mode: "prepend" });
  // @ts-expect-error: a size is two numbers
  await process.resize("80x24");
  // @ts-expect-error: not part of the interface
  Process.make(1, "x", undefined);
  const verdict = await process.wait();
  // @ts-expect-error: only some verdicts have an exit code
  verdict.exitCode;
}
