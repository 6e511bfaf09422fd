/**
 * What looks like a secret, by its name or by its form. Pure. A guess in both directions: good enough to warn and to
 * move values out of a file, never a reason to trust.
 */

const SECRET_WORDS = new Set(
  'apikey auth authorization bearer cookie credential credentials dsn key passphrase passwd password pat pwd secret token'.split(
    ' ',
  ),
);

/** Whether the name says that the value is a secret: its last word does (`MAX_TOKENS` and `TOKEN_FILE` are not). */
export function looksSecret(name: string): boolean {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .split(/[^a-z]+/)
    .filter(Boolean);
  return SECRET_WORDS.has(words.at(-1) ?? '');
}

/** Whether the value has the form of a token: a known prefix, a JWT, a URL with a password, or long and random. */
export function looksLikeToken(value: string): boolean {
  if (
    /^(?:gh[opsur]_|github_pat_|glpat-|sk-|sk_|pk_|rk_|xox[abposr]-|AKIA|ASIA|AIza|ya29\.|npm_|pypi-|hf_|dop_v1_|shpat_|SG\.)[\w.-]{8,}/.test(
      value,
    )
  )
    return true;
  if (/^eyJ[\w-]+\.[\w-]+\.[\w-]*$/.test(value)) return true;
  if (/:\/\/[^/\s:@]+:[^/\s@]+@/.test(value)) return true;
  return /^[\w+=-]{32,}$/.test(value) && /\d/.test(value) && /[A-Za-z]/.test(value);
}

/** A URL as people may see it: some servers take a key in the query or the path. */
export function showUrl(url: string): string {
  const { origin, pathname } = new URL(url);
  const shown = pathname.split('/').map((part) => (looksLikeToken(part) ? '…' : part));
  return `${origin}${shown.join('/')}`;
}

/** Whether the words of a command do: `--api-key=…`, `--api-key …`, or a word that looks like a token. */
export function holdsSecret(words: readonly string[]): boolean {
  return words.some((word, index) => isSecretWord(word, words[index - 1]));
}

/** The words of a command with `…` for each that looks like a secret. */
export function maskSecrets(words: readonly string[]): string[] {
  return words.map((word, index) => (isSecretWord(word, words[index - 1]) ? '…' : word));
}

function isSecretWord(word: string, before: string | undefined): boolean {
  if (looksLikeToken(word)) return true;
  const [, flag, value] = /^--?([A-Za-z][\w-]*)=(.+)$/s.exec(word) ?? [];
  if (flag !== undefined) return looksSecret(flag) || looksLikeToken(value!);
  const [, earlier] = /^--([A-Za-z][\w-]+)$/.exec(before ?? '') ?? [];
  return earlier !== undefined && looksSecret(earlier) && !word.startsWith('-');
}
