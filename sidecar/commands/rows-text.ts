/**
 * Rows as a table for people, and as CSV (RFC 4180) for spreadsheets. Names in them come from agents.
 */
import { showHidden } from '../../policies/hidden-characters.ts';
import { printable } from './printable.ts';

export type Cell = string | number | undefined;

/** Text to the left, numbers to the right; an absent cell is a dash. */
export function tableText(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const shown = rows.map((row) => row.map(showCell));
  const widths = header.map((title, column) =>
    shown.reduce((width, row) => Math.max(width, lengthOf(row[column]!)), lengthOf(title)),
  );
  const isNumber = header.map((_title, column) => rows.every((row) => typeof row[column] !== 'string'));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => {
        const padding = ' '.repeat(widths[column]! - lengthOf(cell));
        return isNumber[column] ? padding + cell : cell + padding;
      })
      .join('  ')
      .trimEnd();
  return `${[header, ...shown].map(line).join('\n')}\n`;
}

function showCell(cell: Cell): string {
  if (cell === undefined) return '-';
  return typeof cell === 'number' ? String(cell) : printable(cell, 60);
}

/** Code points. */
function lengthOf(text: string): number {
  return [...text].length;
}

/** What a spreadsheet would compute: a text that begins so, in the wide forms of East Asian keyboards too. */
const FORMULA = /^(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])/;

/**
 * Every text is quoted, so that no character ends its cell, whatever the reader takes for a separator. One that a
 * spreadsheet would compute gets an apostrophe in front, as OWASP advises. Lines end in CRLF.
 */
export function csvText(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  return [header, ...rows].map((row) => `${row.map(csvCell).join(',')}\r\n`).join('');
}

function csvCell(cell: Cell): string {
  if (cell === undefined) return '';
  if (typeof cell === 'number') return String(cell);
  const text = showHidden(cell).replaceAll('"', '""');
  return `"${FORMULA.test(text) ? "'" : ''}${text}"`;
}
