/**
 * Checks what callers pass in, and turns it into the JSON of the bridge. An argument that does not fit is an error that names it.
 *
 * @module
 */
import { invalid } from "./error.js";
import type * as types from "./types.js";

/** Checks a value and returns its JSON. `at` names the value in errors. */
export type Shape = (value: unknown, at: string) => unknown;

/** The names of the fields in the JSON, and their shapes. */
type Fields<T> = { readonly [K in keyof T]-?: Shape | readonly [wire: string, shape: Shape] };

export const string: Shape = (value, at) => {
  if (typeof value !== "string") {
    throw invalid(at, `must be a string, and not ${name(value)}`);
  }
  return value;
};

export const boolean: Shape = (value, at) => {
  if (typeof value !== "boolean") {
    throw invalid(at, `must be a boolean, and not ${name(value)}`);
  }
  return value;
};

/** A whole number that is not negative. */
export const count: Shape = (value, at) => {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw invalid(at, `must be a whole number that is not negative, and not ${typeof value === "number" ? value : name(value)}`);
  }
  return value;
};

/** A duration or a point in time. A fraction of a millisecond is rounded up. */
export const millis: Shape = (value, at) => {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0 || value > Number.MAX_SAFE_INTEGER) {
    throw invalid(at, `must be a number of milliseconds that is not negative, and not ${typeof value === "number" ? value : name(value)}`);
  }
  return Math.ceil(value);
};

/** A function, which is not sent. */
export const callback: Shape = (value, at) => {
  if (typeof value !== "function") {
    throw invalid(at, `must be a function, and not ${name(value)}`);
  }
  return undefined;
};

export const signal: Shape = (value, at) => (typeof value === "number" ? count(value, at) : string(value, at));

export function list(item: Shape): Shape {
  return (value, at) => {
    if (!Array.isArray(value)) {
      throw invalid(at, `must be an array, and not ${name(value)}`);
    }
    return value.map((entry, index) => item(entry, `${at}[${index}]`));
  };
}

export const strings = list(string);

export function oneOf(...values: string[]): Shape {
  return (value, at) => {
    if (!values.includes(value as string)) {
      throw invalid(at, `must be one of ${values.map((text) => `"${text}"`).join(", ")}, and not ${shown(value)}`);
    }
    return value;
  };
}

/** Texts by name. */
export const pairs: Shape = (value, at) => entries(value, at, string);

/** JSON values by name. */
export const extra: Shape = (value, at) => entries(value, at, (entry) => entry);

function entries(value: unknown, at: string, item: Shape): [string, unknown][] {
  return Object.entries(object(value, at))
    .filter(([, entry]) => entry !== undefined)
    .map(([key, entry]) => [key, item(entry, `${at}.${key}`)]);
}

function object(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(at, `must be an object, and not ${name(value)}`);
  }
  return value as Record<string, unknown>;
}

/** An object with these fields. Fields that are undefined or null are left out. */
export function record<T>(fields: Fields<T>, required: readonly (keyof T & string)[] = []): Shape {
  const known = new Map<string, readonly [string, Shape]>(
    Object.entries<Shape | readonly [string, Shape]>(fields as never).map(([key, field]) => [
      key,
      typeof field === "function" ? [snake(key), field] : field,
    ]),
  );
  return (value, at) => {
    const from = object(value, at);
    const to: Record<string, unknown> = {};
    for (const key of required) {
      if (from[key] === undefined || from[key] === null) {
        throw invalid(`${at}.${key}`, "is missing");
      }
    }
    for (const [key, entry] of Object.entries(from)) {
      const field = known.get(key);
      if (field === undefined) {
        throw invalid(`${at}.${key}`, `is unknown; known are ${[...known.keys()].join(", ")}`);
      }
      if (entry !== undefined && entry !== null) {
        to[field[0]] = field[1](entry, `${at}.${key}`);
      }
    }
    return to;
  };
}

/** An object with exactly one of these fields. */
function variant(fields: Record<string, readonly [wire: string, shape: Shape]>): Shape {
  const all = record<Record<string, unknown>>(fields);
  return (value, at) => {
    const result = all(value, at) as Record<string, unknown>;
    if (Object.keys(result).length !== 1) {
      throw invalid(at, `must have exactly one of the fields ${Object.keys(fields).join(", ")}`);
    }
    return result;
  };
}

/** One of these texts, or an object. */
function textOr(values: string[], other: Shape): Shape {
  const text = oneOf(...values);
  return (value, at) => (typeof value === "object" && value !== null ? other(value, at) : text(value, at));
}

/** A field that calls handle apart. */
const ignored: readonly [string, Shape] = ["", () => undefined];

const snake = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function name(value: unknown): string {
  if (value === null) {
    return "null";
  }
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}

const shown = (value: unknown): string => (typeof value === "string" ? `"${value}"` : name(value));

const login = variant({
  staticSecret: ["static-secret", string],
  awsSecret: ["aws-secret", string],
  gcpSecret: ["gcp-secret", string],
  anySecret: ["any-secret", string],
  credential: ["credential", string],
  other: ["other", strings],
});

const gpuFields = record<types.Gpu>({ model: string, count }, ["model"]);

const gpu: Shape = (value, at) => ({ count: 1, ...(gpuFields(value, at) as object) });

const dockerfile = record<types.Dockerfile>({
  path: string,
  text: string,
  context: string,
  buildArgs: pairs,
  target: string,
  login,
});

const imageFields = record<Exclude<types.Image, string>>({
  registry: string,
  login,
  id: string,
  named: string,
  dockerfile,
  commands: strings,
  secrets: strings,
  force: boolean,
  builderVersion: string,
  gpu,
  platform: string,
  extra,
});

export const image: Shape = (value, at) => (typeof value === "string" ? value : imageFields(value, at));

const outbound = textOr(
  ["open", "blocked"],
  variant({
    allowed: ["allowed", record<{ cidrs: unknown; domains: unknown }>({ cidrs: strings, domains: strings })],
  }),
);

export const network = record<types.NetworkPolicy>({ outbound, inboundCidrs: strings });

const portFields = record<Exclude<types.Port, number>>({ number: count, kind: oneOf("tls", "h2", "tcp") }, ["number"]);

const port: Shape = (value, at) => (typeof value === "number" ? { number: count(value, at) } : portFields(value, at));

const volumes = list(
  record<types.VolumeMount>(
    { volume: string, path: string, readOnly: boolean, subPath: string, create: boolean },
    ["volume", "path"],
  ),
);

const buckets = list(
  record<types.BucketMount>(
    { bucket: string, path: string, endpoint: string, prefix: string, secret: string, readOnly: boolean, extra },
    ["bucket", "path"],
  ),
);

const probe = record<types.Probe>(
  { check: variant({ tcp: ["tcp", count], exec: ["exec", strings] }), intervalMs: ["interval", millis] },
  ["check"],
);

export const pty = record<types.Pty>({ rows: count, columns: count, term: string });

const entryPoint = textOr(["keep-alive", "image"], variant({ command: ["command", strings] }));

export const sidecar = record<types.SidecarSpec>(
  {
    name: string,
    image,
    command: strings,
    entryPoint,
    env: pairs,
    secrets: strings,
    workdir: string,
    volumes,
    outbound,
    extra,
  },
  ["name"],
);

export const sandbox = record<types.SandboxSpec>({
  image,
  command: strings,
  entryPoint,
  user: string,
  env: pairs,
  secrets: strings,
  workdir: string,
  resources: record<types.Resources>({
    cpuRequestMillicores: count,
    cpuLimitMillicores: count,
    memoryRequestMib: count,
    memoryLimitMib: count,
    diskMib: count,
    gpu,
  }),
  lifetimeMs: ["lifetime", millis],
  idleTimeoutMs: ["idle_timeout", millis],
  regions: strings,
  network,
  ports: list(port),
  volumes,
  buckets,
  name: string,
  tags: pairs,
  readiness: probe,
  sidecars: list(sidecar),
  pty,
  proxy: string,
  key: string,
  options: extra,
  extra,
  lease: boolean,
});

const output = oneOf("keep", "discard");

const commandFields = {
  signal: ignored,
  env: pairs,
  secrets: strings,
  cwd: string,
  user: string,
  timeoutMs: ["timeout", millis],
  pty,
  stdout: output,
  stderr: output,
  mergeStderr: boolean,
  extra,
} as const satisfies Fields<types.CommandOptions>;

const commandOptions = record<types.CommandOptions>(commandFields);

const runOptions = record<types.RunOptions>({
  ...commandFields,
  input: ignored,
  stdoutMax: count,
  stderrMax: count,
  keep: oneOf("head", "tail"),
});

function split(options: Record<string, unknown>, ...keys: string[]): [Record<string, unknown>, Record<string, unknown>] {
  const [some, rest]: [Record<string, unknown>, Record<string, unknown>] = [{}, {}];
  for (const [key, value] of Object.entries(options)) {
    if (key !== "") {
      (keys.includes(key) ? some : rest)[key] = value;
    }
  }
  return [some, rest];
}

function argv(command: unknown): Record<string, unknown> {
  if (typeof command === "string") {
    return { shell: command };
  }
  const words = strings(command, "command") as string[];
  if (words.length === 0) {
    throw invalid("command", "must have at least one word");
  }
  return { argv: words };
}

/** A command with its options. */
export function command(command: unknown, options: unknown): Record<string, unknown> {
  const [, spec] = split(commandOptions(options, "options") as Record<string, unknown>);
  return { ...argv(command), ...spec };
}

/** The arguments of `sandbox.run`, except for the sandbox. */
export function run(command: unknown, options: unknown): Record<string, unknown> {
  const [limits, spec] = split(runOptions(options, "options") as Record<string, unknown>, "stdout_max", "stderr_max", "keep");
  return { ...limits, command: { ...argv(command), ...spec } };
}

const openOptions = record<types.ProviderOptions>({
  signal: ignored,
  env: pairs,
  inheritEnv: boolean,
  profile: string,
  readProfiles: boolean,
  anonymous: boolean,
  credentials: pairs,
  caFile: string,
  grantOnly: strings,
  showOnly: strings,
  proxy: string,
  createPatienceMs: millis,
  limits: record<types.Limits>({
    memory: count,
    tableElements: count,
    callTimeMs: ["call_time", millis],
    answerTimeMs: ["answer_time", millis],
    overdueTimeMs: ["overdue_time", millis],
    computeTimeMs: ["compute_time", millis],
    resources: count,
    headerBytes: count,
    bodyBytes: count,
  }),
  owner: string,
  leaseMs: millis,
});

/** The default duration of a lease. */
const LEASE_MS = 600_000;

/** The options of a provider. */
export function provider(options: unknown): Record<string, unknown> {
  const [, args] = split(openOptions(options, "options") as Record<string, unknown>);
  if (args["lease_ms"] !== undefined && args["owner"] === undefined) {
    throw invalid("options.leaseMs", "needs options.owner");
  }
  return args["owner"] === undefined ? args : { lease_ms: LEASE_MS, ...args };
}

/** Options of a call: these fields and `signal`. Returns the JSON of the fields. */
export function options<T extends types.CallOptions>(fields: Fields<Omit<T, "signal">>): (options: unknown) => Record<string, unknown> {
  const all = record<Record<string, unknown>>({ ...(fields as Fields<Record<string, unknown>>), signal: ignored });
  return (value) => split(all(value ?? {}, "options") as Record<string, unknown>)[1];
}

/** Options of a call that has none but `signal`. */
export const none = options<types.CallOptions>({});

/** Bytes: a text is encoded as UTF-8. */
export function bytes(value: unknown, at: string): Uint8Array {
  if (typeof value === "string") {
    return Buffer.from(value);
  }
  if (value instanceof Uint8Array) {
    return value;
  }
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  if (value instanceof ArrayBuffer) {
    return new Uint8Array(value);
  }
  throw invalid(at, `must be a string or a Uint8Array, and not ${name(value)}`);
}
