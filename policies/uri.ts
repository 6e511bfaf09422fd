/**
 * URIs of resources as policy compares them. Pure text: nothing is resolved or looked up.
 *
 * A glob judges the text, a server what the text leads to. So what leads elsewhere than it says is refused, and what can
 * be written in several ways is judged as it came and in its normal form, and both must be allowed.
 */

/** `%2e`, also encoded again (`%252e`), for a server that decodes twice. */
const DOT = '(?:\\.|%(?:25)*2e)';
/** One or two dots alone between slashes; two dots alone as a part of a query. Behind `;` are parameters of a segment. */
const DOT_SEGMENT = new RegExp(`(?:^|[/:])${DOT}{1,2}(?:$|[/?#;])|[?#&=;]${DOT}{2}(?:$|[/?#&=;])`, 'i');
/** Backslashes and control characters, as they are or encoded; slashes that are encoded. */
const UNCLEAR = /[\\\u0000-\u001f\u007f]|%(?:25)*(?:2f|5c|[01][0-9a-f]|7f)/i;

/** What makes a URI unfit to be judged by its text, as words for the one who sent it; `undefined` when nothing does. */
export function uriProblem(uri: string): string | undefined {
  if (UNCLEAR.test(uri)) return 'holds a backslash, an encoded slash or a control character';
  return DOT_SEGMENT.test(uri) ? 'holds a segment of dots' : undefined;
}

/** Schemes whose authority is a host, which has no case. Elsewhere it may be a name, and names have. */
const HOST_SCHEMES = new Set(['http', 'https', 'ws', 'wss', 'ftp', 'file']);

/**
 * One spelling for equivalent URIs (RFC 3986 section 6.2.2): scheme and host in lower case, nothing encoded that need
 * not be, escapes in upper case; `file:/x`, `file://localhost/x` and `file:////x` as `file:///x`. Globs pass through it
 * too, and keep their wildcards.
 */
export function normaliseUri(uri: string): string {
  const decoded = uri
    .trim()
    .replace(/(?:%[0-9a-f]{2})+/gi, decodeNeedless)
    .replace(/^([a-z][a-z0-9+.-]*):(?:\/\/([^/?#]*))?/i, (whole, scheme: string, authority: string | undefined) => {
      const lower = scheme.toLowerCase();
      if (authority === undefined) return lower + whole.slice(scheme.length);
      return `${lower}://${HOST_SCHEMES.has(lower) ? authority.toLowerCase() : authority}`;
    });
  if (!decoded.startsWith('file:')) return decoded;
  return decoded.replace(/^file:(?:\/\/(?:localhost)?\/+|\/(?!\/))/, 'file:///').replace(/(?<!:|:\/)\/{2,}/g, '/');
}

/** Globs over URIs, each also in its normal form: a URI is judged in both. */
export function withNormalForms(globs: readonly string[]): readonly string[] {
  return [...globs, ...globs.map(normaliseUri).filter((glob) => !globs.includes(glob))];
}

/** Escapes of letters, digits, `-._~` and of characters outside ASCII become what they stand for. */
function decodeNeedless(escapes: string): string {
  return escapes.toUpperCase().replace(/%(?:[89A-F][0-9A-F])(?:%[89A-F][0-9A-F])*|%[2-7][0-9A-F]/g, (run) => {
    try {
      const text = decodeURIComponent(run);
      return run.length > 3 || /[A-Za-z0-9._~-]/.test(text) ? text : run;
    } catch {
      return run; // Not UTF-8.
    }
  });
}
