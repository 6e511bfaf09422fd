/** Which word somebody meant who wrote another. */

/** By Levenshtein distance, case aside; `undefined` when more than a third of it would have to change. */
export function nearestOf(word: string, known: readonly string[]): string | undefined {
  return known
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((left, right) => left.distance - right.distance)[0]?.candidate;
}

const SHOWN_MAX = 10;

/** `did you mean author?`, or what there is: `there are: author, reader`. */
export function hintOf(word: string, known: readonly string[]): string {
  const nearest = nearestOf(word, known);
  if (nearest !== undefined) return `did you mean ${nearest}?`;
  if (known.length === 0) return 'there are none';
  const more = known.length > SHOWN_MAX ? `, and ${known.length - SHOWN_MAX} more` : '';
  return `there are: ${known.slice(0, SHOWN_MAX).join(', ')}${more}`;
}

/** Words are short; longer ones are cut so that a hostile file costs nothing. */
function editDistance(left: string, right: string): number {
  const [a, b] = [left.slice(0, 64), right.slice(0, 64)];
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}
