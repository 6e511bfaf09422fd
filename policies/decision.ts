/**
 * The words in which a decision is asked for and given. Types only.
 */

/** Who asks. */
export interface Subject {
  readonly agent: {
    readonly name: string;
    readonly group: string;
    readonly roles: readonly string[];
    readonly claims: Readonly<Record<string, unknown>>;
  };
  readonly user: { readonly sub: string; readonly claims: Readonly<Record<string, unknown>> } | undefined;
}

/** What is asked for. `annotations` are the tool's own hints as its server listed them, `undefined` when it is not known. */
export type Target =
  | {
      readonly kind: 'tool';
      readonly server: string;
      readonly name: string;
      readonly annotations: Readonly<Record<string, unknown>> | undefined;
    }
  | { readonly kind: 'prompt'; readonly server: string; readonly name: string }
  | { readonly kind: 'resource'; readonly server: string; readonly uri: string }
  /** A method that is neither of the above nor one of the protocol's own (`vendor/thing`). */
  | { readonly kind: 'method'; readonly server: string; readonly name: string };

/** The circumstances of one call. A list filter has none. */
export interface Call {
  readonly method: string;
  readonly args: Readonly<Record<string, unknown>> | undefined;
  /** The whole JSON-RPC message. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly sessionId: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/**
 * `allow`: go on; `wouldBe` is set in audit mode, and says what enforce would have done.
 * `hide`: this subject may never reach this target: answer as if it did not exist.
 * `refuse`: the target is visible, this call is not allowed (arguments, time, an error in a rule).
 */
export type Decision =
  | { readonly effect: 'allow'; readonly rule: string | undefined; readonly wouldBe: Refused | undefined }
  | Refused;

export interface Refused {
  readonly effect: 'hide' | 'refuse';
  /** The rule or role that decided; `undefined` for the default. */
  readonly rule: string | undefined;
  /** For the audit and `policy explain`; never in a reply. */
  readonly reason: string;
}
