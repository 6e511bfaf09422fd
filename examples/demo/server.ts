/**
 * A notebook: a small real MCP server over stdio, and what `sidecar` starts when it finds no configuration.
 * Speaks the 2025 revisions and 2026-07-28. Notes live in memory and are gone when the process ends.
 */
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import * as z from 'zod';

const NOTES_MAX = 1000;

const notes = new Map<string, string>([
  ['welcome', 'This notebook is the demo of the MCP sidecar. Ask for the list of notes, or search them.'],
  ['groceries', 'Bread, tomatoes, olive oil, coffee.'],
  ['meeting', 'Tuesday at ten: who may delete what, and where is it written down?'],
]);

const title = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,63}$/)
  .describe('The name of the note: lower-case letters, digits and dashes');

function text(value: string, isError = false) {
  return { content: [{ type: 'text' as const, text: value }], isError };
}

function noSuchNote(name: string) {
  return text(`There is no note called ${name}. list_notes shows what there is.`, true);
}

function createNotebook(): McpServer {
  const server = new McpServer({ name: 'notebook', version: '1.0.0' });

  server.registerTool(
    'list_notes',
    { description: 'List the names of all notes', annotations: { readOnlyHint: true, openWorldHint: false } },
    () => text([...notes.keys()].join('\n') || 'The notebook is empty.'),
  );

  server.registerTool(
    'read_note',
    {
      description: 'Read one note',
      inputSchema: z.object({ title }),
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    ({ title }) => {
      const note = notes.get(title);
      return note === undefined ? noSuchNote(title) : text(note);
    },
  );

  server.registerTool(
    'search_notes',
    {
      description: 'Find the notes that contain a text',
      inputSchema: z.object({ query: z.string().min(1).max(200).describe('What to look for; case does not matter') }),
      annotations: { readOnlyHint: true, openWorldHint: false },
    },
    ({ query }) => {
      const wanted = query.toLowerCase();
      const found = [...notes].filter(([name, note]) => `${name}\n${note}`.toLowerCase().includes(wanted));
      return text(found.map(([name, note]) => `${name}: ${note}`).join('\n') || 'Nothing found.');
    },
  );

  server.registerTool(
    'add_note',
    {
      description: 'Write a note, or replace it',
      inputSchema: z.object({ title, text: z.string().min(1).max(10_000).describe('What the note says') }),
      annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
    },
    ({ title, text: note }) => {
      if (!notes.has(title) && notes.size >= NOTES_MAX) return text(`The notebook is full (${NOTES_MAX} notes).`, true);
      notes.set(title, note);
      return text(`Saved ${title}.`);
    },
  );

  server.registerTool(
    'delete_note',
    {
      description: 'Delete a note for good',
      inputSchema: z.object({ title }),
      annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
    },
    ({ title }) => (notes.delete(title) ? text(`Deleted ${title}.`) : noSuchNote(title)),
  );

  server.registerResource(
    'index',
    'notebook://index',
    { title: 'Index', description: 'The names of all notes', mimeType: 'text/plain' },
    (uri) => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: [...notes.keys()].join('\n') }] }),
  );

  server.registerPrompt(
    'summarize',
    { title: 'Summarize', description: 'Summarize one note', argsSchema: z.object({ title }) },
    ({ title }) => ({
      messages: [
        {
          role: 'user' as const,
          content: {
            type: 'text' as const,
            text: `Read the note "${title}" with read_note and sum it up in one sentence.`,
          },
        },
      ],
    }),
  );

  return server;
}

serveStdio(createNotebook);
