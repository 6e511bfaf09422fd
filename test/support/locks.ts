/** The text of a sidecar.lock from tools as a server lists them. */
import assert from 'node:assert/strict';
import { definitionOf } from '../../policies/tool-definition.ts';
import { type Lock, pin, renderLock } from '../../sidecar/config/lock-file.ts';

export function lockOf(servers: Readonly<Record<string, readonly object[]>>): Lock {
  return new Map(
    Object.entries(servers).map(([server, tools]) => {
      const pinned = tools.map((tool) => {
        const defined = definitionOf(JSON.parse(JSON.stringify(tool)));
        assert.ok(defined.ok);
        return [defined.value.definition.name, pin(defined.value)] as const;
      });
      return [server, new Map(pinned)];
    }),
  );
}

export function lockText(servers: Readonly<Record<string, readonly object[]>>): string {
  return renderLock(lockOf(servers));
}
