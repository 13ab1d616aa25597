/**
 * The records that calls take and return. Times are in milliseconds; points in time are milliseconds since 1970, as `Date.now()`
 * returns them.
 *
 * @module
 */

/** Options of every call. */
export interface CallOptions {
  /** Cancels the call. It then rejects with the `reason` of the signal. */
  signal?: AbortSignal | undefined;
}

/** Texts by name. */
export type Pairs = Readonly<Record<string, string>>;

/** Additional settings by name. The values are written as JSON. */
export type Extra = Readonly<Record<string, unknown>>;

/** A component: the name of a bundled one, or the path of a file. */
export type Component = "modal" | "docker" | "memory" | (string & {});

/** Limits of instances of a component and of their calls. */
export interface Limits {
  /** Memory of an instance in bytes. */
  memory?: number;
  /** Elements of all tables of an instance. */
  tableElements?: number;
  /** Duration of a call. */
  callTimeMs?: number;
  /** Time until the service begins to answer, for calls that are usually answered at once. */
  answerTimeMs?: number;
  /** Time after which the host kills a command that exceeded its time limit. */
  overdueTimeMs?: number;
  /** Processor time of a call. */
  computeTimeMs?: number;
  /** Resources of an instance. */
  resources?: number;
  /** Size of the headers of a response in bytes. */
  headerBytes?: number;
  /** Size of the body of a response in bytes. */
  bodyBytes?: number;
}

/** Settings of a provider. */
export interface ProviderOptions extends CallOptions {
  /** Environment variables for the component and its settings. They take precedence over those of this process. */
  env?: Pairs;
  /** Whether the variables that the component requests are read from the environment of this process. Default true. */
  inheritEnv?: boolean;
  /** The profile to read credentials from. */
  profile?: string;
  /** Whether the file with profiles that the component names is read. Default true. */
  readProfiles?: boolean;
  /** Whether missing credentials are accepted. Default false. */
  anonymous?: boolean;
  /** Credentials by their names in the manifest of the component, such as `token-id`. The component never sees them. */
  credentials?: Pairs;
  /** A PEM file with certificate authorities to trust in addition. */
  caFile?: string;
  /** The only origins to grant, by their names in the manifest. */
  grantOnly?: readonly string[];
  /** The only environment variables of this process to show to the component. */
  showOnly?: readonly string[];
  /** The URL of a proxy, or `none`. By default the environment of this process decides. */
  proxy?: string;
  /** How long a creation is repeated while the service asks to wait. Default 30 minutes. */
  createPatienceMs?: number;
  /** Limits of the component. */
  limits?: Limits;
  /**
   * The owner of the sandboxes. If it is set, each sandbox that is created gets a lease, which is renewed while this process
   * runs. {@link Provider.sweep} ends sandboxes whose lease has ended.
   */
  owner?: string;
  /** The duration of a lease, at least 30 seconds. Default 10 minutes. */
  leaseMs?: number;
}

/** How a capability is supported. */
export type Support = "absent" | "emulated" | "native";

/** A capability of a provider. */
export interface Capability {
  name: string;
  support: Support;
  /** Limits and differences. May be empty. */
  note: string;
}

/** An environment variable that a provider reads. */
export interface EnvVar {
  name: string;
  purpose: string;
  default: string | null;
  secret: boolean;
}

/** What a provider is and can do. */
export interface Description {
  name: string;
  version: string;
  capabilities: Capability[];
  /** The JSON Schema of `options` of a sandbox. */
  optionsSchema: unknown;
  environment: EnvVar[];
  digests: string[];
  extra: Record<string, unknown>;
}

/** An origin that a component may reach. */
export interface Grant {
  /** The origin, such as `https://api.example.com`. */
  origin: string;
  /** The Unix socket behind the origin, or null. */
  socket: string | null;
  /** The description of the origin in the manifest. */
  name: string;
  /** The request path whose response named the origin, or null for an origin of the manifest. */
  learnedFrom: string | null;
  /** What the host adds to requests: names of headers, of query parameters with `?` before them, `client certificate`. */
  credentials: string[];
  /** Whether the origin may be on this machine or in a private network. */
  privateAddresses: boolean;
}

/** How to log in to an image registry: one of these keys. */
export type RegistryLogin =
  | { staticSecret: string }
  | { awsSecret: string }
  | { gcpSecret: string }
  | { anySecret: string }
  | { credential: string }
  | { other: readonly [string, string] };

/** An accelerator. */
export interface Gpu {
  model: string;
  /** Default 1. */
  count?: number;
}

/** A Dockerfile. One of `path` and `text` is needed. */
export interface Dockerfile {
  /** The file. */
  path?: string;
  /** The content. */
  text?: string;
  /** The local directory whose files `COPY` and `ADD` use. */
  context?: string;
  buildArgs?: Pairs;
  /** The stage to build. */
  target?: string;
  login?: RegistryLogin;
}

/** Settings of an image that do not depend on its source. */
export interface ImageSettings {
  /** Lines of a Dockerfile that are added, such as `RUN pip install numpy`. */
  commands?: readonly string[];
  /** Secrets whose entries are variables of these lines. */
  secrets?: readonly string[];
  /** Whether to build it even if it was built before. */
  force?: boolean;
  builderVersion?: string;
  /** The accelerator that the build needs. */
  gpu?: Gpu;
  /** The platform, such as `linux/amd64`. */
  platform?: string;
  extra?: Extra;
}

/** An image: a reference in a registry, or one of the sources. Without a source it is the default of the provider. */
export type Image =
  | string
  | (ImageSettings & {
      /** A reference in a registry, such as `python:3.12-slim`. */
      registry?: string;
      /** How to log in to the registry. */
      login?: RegistryLogin;
      /** The id of an image that was built. */
      id?: string;
      /** The name that an image has at the provider. */
      named?: string;
      dockerfile?: Dockerfile;
    });

/** A built image. */
export interface BuiltImage {
  id: string;
  workdir: string | null;
  extra: Record<string, unknown>;
}

/** A part of a log. */
export interface LogChunk {
  stream: "stdout" | "stderr" | null;
  text: string;
  /** The time of the entry. */
  atMs: number | null;
}

/** A page of the log of a sandbox. */
export interface LogPage {
  items: LogChunk[];
  /** The cursor for the next page, or null at the end. */
  next: string | null;
}

/** Which part of the log of a sandbox. */
export interface LogQuery extends CallOptions {
  /** Entries from this time on. */
  sinceMs?: number;
  /** Entries before this time. */
  untilMs?: number;
  stream?: "stdout" | "stderr";
  /** Entries that contain this text. */
  search?: string;
  cursor?: string;
  /** The size of the page. */
  maxBytes?: number;
}

/** The resources of a sandbox. */
export interface Resources {
  cpuRequestMillicores?: number;
  cpuLimitMillicores?: number;
  memoryRequestMib?: number;
  memoryLimitMib?: number;
  diskMib?: number;
  gpu?: Gpu;
}

/** Which destinations a sandbox may connect to. */
export type Outbound = "open" | "blocked" | { allowed: { cidrs?: readonly string[]; domains?: readonly string[] } };

/** A network policy. */
export interface NetworkPolicy {
  /** Default `open`. */
  outbound?: Outbound;
  /** The clients that may connect to ports of the sandbox. An empty list permits all. */
  inboundCidrs?: readonly string[];
}

/** The protocol of a port. */
export type PortKind = "tls" | "h2" | "tcp";

/** A port that is reachable from outside: its number, with TLS, or with a kind. */
export type Port = number | { number: number; kind?: PortKind };

/** A volume in a sandbox. */
export interface VolumeMount {
  volume: string;
  path: string;
  readOnly?: boolean;
  subPath?: string;
  /** Whether the volume is created if it does not exist. */
  create?: boolean;
}

/** A bucket in a sandbox. */
export interface BucketMount {
  bucket: string;
  path: string;
  endpoint?: string;
  prefix?: string;
  secret?: string;
  readOnly?: boolean;
  extra?: Extra;
}

/** When a sandbox is ready. */
export interface Probe {
  /** A port that accepts connections, or a command that exits with 0. */
  check: { tcp: number } | { exec: readonly string[] };
  intervalMs?: number;
}

/** A terminal. */
export interface Pty {
  /** Default 24. */
  rows?: number;
  /** Default 80. */
  columns?: number;
  /** The value of `TERM`. Default `xterm-256color`. */
  term?: string;
}

/** The main process of a container: none, that of the image, or a command. */
export type EntryPoint = "keep-alive" | "image" | { command: readonly string[] };

/** An additional container. */
export interface SidecarSpec {
  name: string;
  image?: Image;
  /** A shorthand for `entryPoint`. */
  command?: readonly string[];
  /** Default `image`. */
  entryPoint?: EntryPoint;
  env?: Pairs;
  secrets?: readonly string[];
  workdir?: string;
  volumes?: readonly VolumeMount[];
  outbound?: Outbound;
  extra?: Extra;
}

/** A sandbox to create. */
export interface SandboxSpec {
  /** Unless it has an id, it is built first without a log. See {@link Provider.build}. */
  image?: Image;
  /** A shorthand for `entryPoint`. */
  command?: readonly string[];
  /** Default `keep-alive`. */
  entryPoint?: EntryPoint;
  /** The user of all commands. */
  user?: string;
  /** Environment variables of all commands. */
  env?: Pairs;
  /** Secrets whose entries are variables of all commands. */
  secrets?: readonly string[];
  workdir?: string;
  resources?: Resources;
  /** The time after which the sandbox is ended. */
  lifetimeMs?: number;
  /** The time without use after which the sandbox is ended. */
  idleTimeoutMs?: number;
  regions?: readonly string[];
  network?: NetworkPolicy;
  /** The ports that are reachable from outside. */
  ports?: readonly Port[];
  volumes?: readonly VolumeMount[];
  buckets?: readonly BucketMount[];
  /** A name that is unique among running sandboxes. */
  name?: string;
  tags?: Pairs;
  readiness?: Probe;
  sidecars?: readonly SidecarSpec[];
  /** The terminal of the main process. */
  pty?: Pty;
  /** The name of a proxy of the provider. */
  proxy?: string;
  /** Makes the creation idempotent: two calls with the same key return the same sandbox. */
  key?: string;
  /** Options of the provider: see {@link Description.optionsSchema}. */
  options?: Extra;
  extra?: Extra;
  /** Whether it gets a lease, if the provider has an owner. Default true. */
  lease?: boolean;
}

/** Why a sandbox ended. */
export type EndReason =
  | { kind: "finished"; exitCode: number }
  | { kind: "terminated" | "lifetime" | "idle" | "out-of-memory" }
  | { kind: "failed-to-start" | "lost" | "other"; message: string };

/** The state of a sandbox. */
export type SandboxState =
  | { kind: "pending" | "running" | "paused" | "stopped" | "unknown" }
  | { kind: "ended"; reason: EndReason }
  | { kind: "other"; message: string };

/** Information about a sandbox. */
export interface SandboxInfo {
  id: string;
  name: string | null;
  state: SandboxState;
  /** The id of the image. */
  image: string | null;
  /** The time of creation. */
  createdMs: number | null;
  tags: Record<string, string>;
  tunnels: Tunnel[];
  extra: Record<string, unknown>;
}

/** Which sandboxes to list. */
export interface ListOptions extends CallOptions {
  /** The sandboxes have all these tags. */
  tags?: Pairs;
  includeEnded?: boolean;
  /** Whether to list the sandboxes of all apps or projects. */
  allApps?: boolean;
  /** Most sandboxes to return. Default 1000. */
  max?: number;
}

/** A sandbox whose lease has ended. */
export interface Swept {
  id: string;
  /** The id of the run that created it. */
  run: string;
  /** The time since its lease ended and one more minute passed. */
  overdueMs: number;
  /** Whether the sweep terminated it. */
  terminated: boolean;
}

/** The public address of a port of a sandbox. */
export interface Tunnel {
  port: number;
  kind: PortKind;
  publicHost: string;
  publicPort: number;
}

/** What permits HTTP connections to a port of a sandbox. It contains a secret. */
export interface ConnectToken {
  url: string;
  /** Headers that every request must have. */
  headers: Record<string, string>;
  expiresMs: number | null;
}

/** The resources that a sandbox has used. */
export interface Usage {
  /** Cores multiplied by milliseconds. */
  cpuCoreMillis: number;
  /** MiB multiplied by milliseconds. */
  memoryMibMillis: number;
  /** Accelerators multiplied by milliseconds. */
  gpuMillis: number;
  extra: Record<string, unknown>;
}

/** How a quantity was distributed over the life of a sandbox. */
export interface Distribution {
  name: string;
  unit: string;
  mean: number | null;
  max: number | null;
  /** Pairs of a number from 0 to 100 and the value. */
  percentiles: [number, number][];
}

/** What a sandbox has used, and what that costs. */
export interface UsageReport {
  totals: Usage;
  /** The cost in US dollars, or null if it is unknown. */
  cost: number | null;
  costByResource: Record<string, number>;
  billedCpuCoreMillis: number | null;
  billedMemoryMibMillis: number | null;
  /** How long it has run. */
  runningMs: number | null;
  distributions: Distribution[];
  extra: Record<string, unknown>;
}

/** Information about a sidecar. */
export interface SidecarInfo {
  id: string;
  name: string;
  state: SandboxState;
}

/** A command: the program with its arguments, or a line for `sh`. */
export type Command = string | readonly string[];

/** Settings of a command. */
export interface CommandOptions extends CallOptions {
  env?: Pairs;
  secrets?: readonly string[];
  cwd?: string;
  user?: string;
  /** The time after which the command and all its processes are killed. The verdict is then `deadline`. */
  timeoutMs?: number;
  /** The terminal to run in. All output is then on stdout. */
  pty?: Pty;
  /** Whether the output is kept for reading. Default `keep`. */
  stdout?: "keep" | "discard";
  stderr?: "keep" | "discard";
  /** Whether standard error is sent to standard output, in the order of printing. */
  mergeStderr?: boolean;
  extra?: Extra;
}

/** Settings of a command whose output is collected. */
export interface RunOptions extends CommandOptions {
  /** The standard input. */
  input?: string | Uint8Array;
  /** Most bytes of standard output to return. Default 10 MiB. */
  stdoutMax?: number;
  /** Most bytes of standard error to return. Default 10 MiB. */
  stderrMax?: number;
  /** Which part is returned if there are more. Default `tail`. */
  keep?: "head" | "tail";
}

/** How a command ended. */
export type Verdict =
  | { kind: "exited"; exitCode: number }
  | { kind: "signaled"; signal: number }
  | { kind: "deadline" | "out-of-memory" }
  | { kind: "sandbox-ended"; reason: EndReason }
  | { kind: "lost" | "other"; message: string };

/** The result of a command. */
export interface RunResult {
  verdict: Verdict;
  /** The exit code, or null if the command did not exit by itself. */
  exitCode: number | null;
  stdout: Buffer;
  stderr: Buffer;
  /** Bytes that the command printed. More than `stdout.length` if the output was cut. */
  stdoutTotal: number;
  stderrTotal: number;
  durationMs: number;
  /** How often the host repeated requests. */
  retries: number;
}

/** A command of a sandbox, in a list. */
export interface ExecInfo {
  id: string;
  argv: string[];
  startedMs: number | null;
  /** How it ended, or null if it is running. */
  verdict: Verdict | null;
  /** The sidecar, or null for the main container. */
  container: string | null;
}

/** A signal: a name such as `SIGTERM` or `TERM`, or a number. */
export type Signal = string | number;

/** What a file is. */
export type FileKind =
  | { kind: "file" | "directory" }
  | { kind: "symlink"; target: string }
  | { kind: "other"; message: string };

/** Information about a file. */
export interface FileInfo {
  name: string;
  path: string;
  /** What it is. `type.kind === "directory"` for a directory. */
  type: FileKind;
  size: number;
  /** The permission bits. */
  mode: number;
  owner: string;
  group: string;
  modifiedMs: number;
}

/** How a file is written. */
export interface WriteOptions extends CallOptions {
  /** Default `replace`. */
  mode?: "replace" | "append" | "create-new";
  /** The permission bits of a new file. */
  permissions?: number;
}

/** A change of a file. */
export interface FileEvent {
  kind: "created" | "modified" | "removed" | "accessed" | "other";
  paths: string[];
}

/** Options of a copy between this machine and a sandbox. */
export interface TransferOptions extends CallOptions {
  /**
   * Is called while data is copied, at most ten times a second, and at last with all bytes. An error in it cancels the copy,
   * which is then rejected with this error.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a copy is. */
export interface Progress {
  /** Bytes that were read or written on this machine. Those of a directory are bytes of the archive that it is sent in. */
  bytes: number;
  /** Bytes of the whole file, or null for a directory and where the size is not known. */
  total: number | null;
}

/** What was copied of a directory. */
export interface Copied {
  /** Bytes of the archive that the directory was sent in. */
  bytes: number;
  /** The first entries that were not copied, at most 20. */
  skipped: Skipped[];
  /** The number of all entries that were not copied. */
  skippedTotal: number;
}

/** An entry of a directory that was not copied. */
export interface Skipped {
  /** The path below the directory. */
  path: string;
  /** Why it was not copied, such as `a socket`. */
  reason: string;
}
