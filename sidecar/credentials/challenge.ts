/**
 * Reads a `WWW-Authenticate` header (RFC 9110, section 11.6.1). Pure.
 *
 * The header comes from a server that may be hostile: its length is bounded, the scan is linear, a malformed part ends
 * it (what was read before stands), and a challenge that names a parameter twice is dropped, because two readers could
 * see two things in it. Nothing here judges whether a value may be believed; discovery.ts does.
 */

export interface Challenge {
  /** Lower-case. */
  readonly scheme: string;
  /** Names in lower-case, quoted values unescaped. Empty for a `token68` challenge. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** What an OAuth client takes from a Bearer challenge (RFC 6750 section 3, RFC 9728 section 5.1). */
export interface BearerChallenge {
  readonly resourceMetadata: string | undefined;
  /** Space-separated scopes (RFC 6749, section 3.3), or undefined when absent or not well formed. */
  readonly scope: string | undefined;
}

const CHARACTERS_MAX = 8192;
const SCOPE_CHARACTERS_MAX = 2048;

const SEPARATORS = /[ \t,]*/y;
const SCHEME = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?=[ \t,]|$)/y;
const SPACES = /[ \t]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const PARAMETER =
  /([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*)"|([!#$%&'*+.^_`|~0-9A-Za-z-]+))(?=[ \t]*(?:,|$))/y;
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/;

/** The challenges in their order. Several header lines are joined with `, ` before (RFC 9110, section 5.3). */
export function parseChallenges(header: string): readonly Challenge[] {
  if (header.length > CHARACTERS_MAX) return [];
  const found: { scheme: string; parameters: Map<string, string>; ambiguous: boolean }[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(header);
    if (match !== null) at = pattern.lastIndex;
    return match;
  };

  take(SEPARATORS);
  while (at < header.length) {
    const current = found.at(-1);
    const parameter = current === undefined ? null : take(PARAMETER);
    if (current !== undefined && parameter !== null) {
      const name = parameter[1]!.toLowerCase();
      current.ambiguous ||= current.parameters.has(name);
      current.parameters.set(name, parameter[2]?.replace(/\\(.)/g, '$1') ?? parameter[3]!);
    } else {
      const scheme = take(SCHEME);
      if (scheme === null) break;
      found.push({ scheme: scheme[1]!.toLowerCase(), parameters: new Map(), ambiguous: false });
      if (take(SPACES) !== null) take(TOKEN68);
    }
    take(SEPARATORS);
  }
  return found.filter(({ ambiguous }) => !ambiguous).map(({ scheme, parameters }) => ({ scheme, parameters }));
}

/** The Bearer challenge that says most: the first with `resource_metadata`, else the first. */
export function readBearerChallenge(header: string): BearerChallenge | undefined {
  const bearers = parseChallenges(header).filter(({ scheme }) => scheme === 'bearer');
  const chosen = bearers.find(({ parameters }) => parameters.has('resource_metadata')) ?? bearers[0];
  if (chosen === undefined) return undefined;
  const scope = chosen.parameters.get('scope') ?? '';
  return {
    resourceMetadata: chosen.parameters.get('resource_metadata'),
    scope: scope.length <= SCOPE_CHARACTERS_MAX && SCOPE.test(scope) ? scope : undefined,
  };
}
