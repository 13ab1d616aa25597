/** Whether the effect of a failed call happened. */
export type Happened = "no" | "unknown" | "yes";

/** The fields of a {@link SandboxError}. */
export interface SandboxErrorFields {
  kind: string;
  reason?: string;
  happened?: Happened;
  retryable?: boolean;
  retryAfterMs?: number | null;
  subject?: string | null;
}

/**
 * The error of every call that fails. Its `message` is the whole text: what failed, why, and what to do about it.
 *
 * An aborted call is the exception: it rejects with the `reason` of its signal, as elsewhere in Node.
 */
export class SandboxError extends Error {
  override readonly name: string = "SandboxError";
  /**
   * What failed, for decisions: `invalid-argument`, `not-found`, `already-exists`, `unauthenticated`, `permission-denied`,
   * `conflict`, `resource-exhausted`, `build-failed`, `sandbox-ended`, `file:not-found` and others below `file:`, `timed-out`,
   * `unavailable`, `unsupported`, `forbidden`, `internal`, and `closed` for objects that were closed.
   */
  readonly kind: string;
  /** Why the call failed: the middle part of the message. */
  readonly reason: string;
  /** Whether the effect of the call happened. */
  readonly happened: Happened;
  /** Whether the same call can succeed later. */
  readonly retryable: boolean;
  /** The time after which the call can succeed, in milliseconds, or null if the service did not name it. */
  readonly retryAfterMs: number | null;
  /** The setting or the object that the error is about, or null if it is unknown. */
  readonly subject: string | null;

  constructor(message: string, fields: SandboxErrorFields) {
    super(message);
    this.kind = fields.kind;
    this.reason = fields.reason ?? message;
    this.happened = fields.happened ?? "no";
    this.retryable = fields.retryable ?? false;
    this.retryAfterMs = fields.retryAfterMs ?? null;
    this.subject = fields.subject ?? null;
  }
}

/** Returns the error for an argument that does not fit. @internal */
export function invalid(subject: string, problem: string): SandboxError {
  return new SandboxError(`${subject} ${problem}`, { kind: "invalid-argument", subject });
}
