/**
 * Turns the JSON of the bridge into the records that calls return.
 *
 * @module
 */
import type * as types from "./types.js";

/** JSON of the bridge. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Json = any;

/** Returns the name and the payload of a variant: a text, or an object with one key. */
function variant(value: Json): [kind: string, payload: Json] {
  return typeof value === "string" ? [value, undefined] : (Object.entries(value)[0] ?? ["other", ""]);
}

/** Additional fields: pairs of a name and JSON text. */
export function extra(pairs: [string, string][]): Record<string, unknown> {
  return Object.fromEntries(pairs.map(([name, text]) => [name, parsed(text)]));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Renames the fields of an object, and those of objects in it, from snake_case to camelCase. */
export function camel(value: Json): Json {
  if (Array.isArray(value)) {
    return value.map(camel);
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const entries = Object.entries(value);
  return Object.fromEntries(entries.map(([key, entry]) => [key.replace(/_([a-z])/g, (_, c: string) => c.toUpperCase()), camel(entry)]));
}

export function endReason(value: Json): types.EndReason {
  const [kind, payload] = variant(value);
  switch (kind) {
    case "finished":
      return { kind, exitCode: payload };
    case "terminated":
    case "lifetime":
    case "idle":
    case "out-of-memory":
      return { kind };
    case "failed-to-start":
    case "lost":
      return { kind, message: payload };
    default:
      return { kind: "other", message: payload ?? kind };
  }
}

export function verdict(value: Json): types.Verdict {
  const [kind, payload] = variant(value);
  switch (kind) {
    case "exited":
      return { kind, exitCode: payload };
    case "signaled":
      return { kind, signal: payload };
    case "deadline":
    case "out-of-memory":
      return { kind };
    case "sandbox-ended":
      return { kind, reason: endReason(payload) };
    case "lost":
      return { kind, message: payload };
    default:
      return { kind: "other", message: payload ?? kind };
  }
}

function state(value: Json): types.SandboxState {
  const [kind, payload] = variant(value);
  switch (kind) {
    case "pending":
    case "running":
    case "paused":
    case "stopped":
    case "unknown":
      return { kind };
    case "ended":
      return { kind, reason: endReason(payload) };
    default:
      return { kind: "other", message: payload ?? kind };
  }
}

export function tunnel(value: Json): types.Tunnel {
  return { port: value.port, kind: value.kind, publicHost: value.public_host, publicPort: value.public_port };
}

export function sandboxInfo(value: Json): types.SandboxInfo {
  return {
    id: value.id,
    name: value.name,
    state: state(value.state),
    image: value.image,
    createdMs: value.created,
    tags: Object.fromEntries(value.tags),
    tunnels: value.tunnels.map(tunnel),
    extra: extra(value.extra),
  };
}

export function sidecarInfo(value: Json): types.SidecarInfo {
  return { id: value.id, name: value.name, state: state(value.state) };
}

export function description(value: Json): types.Description {
  return {
    name: value.name,
    version: value.version,
    capabilities: value.capabilities,
    optionsSchema: parsed(value.options_schema),
    environment: value.environment,
    digests: value.digests,
    extra: extra(value.extra),
  };
}

export function logChunk(value: Json): types.LogChunk {
  return { stream: value.stream, text: value.text, atMs: value.at };
}

export function builtImage(value: Json): types.BuiltImage {
  return { id: value.id, workdir: value.workdir, extra: extra(value.extra) };
}

export function connectToken(value: Json): types.ConnectToken {
  return { url: value.url, headers: Object.fromEntries(value.headers), expiresMs: value.expires };
}

export function usageReport(value: Json): types.UsageReport {
  const { totals } = value;
  return {
    totals: {
      cpuCoreMillis: totals.cpu_core_millis,
      memoryMibMillis: totals.memory_mib_millis,
      gpuMillis: totals.gpu_millis,
      extra: extra(totals.extra),
    },
    cost: value.cost,
    costByResource: Object.fromEntries(value.cost_by_resource),
    billedCpuCoreMillis: value.billed_cpu_core_millis,
    billedMemoryMibMillis: value.billed_memory_mib_millis,
    runningMs: value.running,
    distributions: value.distributions,
    extra: extra(value.extra),
  };
}

export function execInfo(value: Json): types.ExecInfo {
  return {
    id: value.id,
    argv: value.argv,
    startedMs: value.started,
    verdict: value.verdict === null ? null : verdict(value.verdict),
    container: value.container,
  };
}

export function fileInfo(value: Json): types.FileInfo {
  const [kind, payload] = variant(value.kind);
  return {
    name: value.name,
    path: value.path,
    type: fileKind(kind, payload),
    size: value.size,
    mode: value.mode,
    owner: value.owner,
    group: value.group,
    modifiedMs: value.modified,
  };
}

function fileKind(kind: string, payload: Json): types.FileKind {
  switch (kind) {
    case "file":
    case "directory":
      return { kind };
    case "symlink":
      return { kind, target: payload };
    default:
      return { kind: "other", message: payload ?? kind };
  }
}

export function fileEvent(value: Json): types.FileEvent {
  const [kind] = variant(value.kind);
  return { kind: kind as types.FileEvent["kind"], paths: value.paths };
}
