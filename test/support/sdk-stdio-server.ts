/** A server on the official SDK over stdio that speaks both eras. */
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import * as z from 'zod';

serveStdio(() => {
  const server = new McpServer({ name: 'both-eras', version: '1.0.0' });
  server.registerTool('greet', { inputSchema: z.object({ name: z.string() }) }, ({ name }) => ({
    content: [{ type: 'text', text: `hello ${name}` }],
  }));
  server.registerTool('grow', { inputSchema: z.object({}) }, () => {
    server.registerTool(`grown-${crypto.randomUUID()}`, {}, () => ({ content: [] }));
    return { content: [{ type: 'text', text: 'grown' }] };
  });
  return server;
});
