/** What the audit records of a call's arguments. */
import { idOf } from '../../policies/methods.ts';
import { redactArguments } from '../../policies/redact.ts';
import type { Exchange } from './exchange.ts';

/** The agent's own bytes where nothing was redacted; an audit line has no room for line ends. */
export function argumentsJson({ message, targets, route, policy }: Exchange): string | undefined {
  const range = message?.layout.arguments;
  const target = targets[0];
  if (message === undefined || range === undefined || target === undefined) return undefined;
  if (route === undefined || policy === undefined) return undefined;
  const { value, redacted } = redactArguments(policy, route.server, idOf(target), message.params?.arguments);
  if (redacted) return JSON.stringify(value);
  const text = message.bytes.toString('utf8', range.start, range.end);
  return /[\r\n]/.test(text) ? JSON.stringify(value) : text;
}
