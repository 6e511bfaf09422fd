/**
 * A client that notes when each chunk of an event stream arrived.
 */
import * as http from 'node:http';

export interface OpenStream {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Whole events so far, `data` parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads events by field
  readonly events: { readonly at: number; readonly id: string | undefined; readonly data: any }[];
  /** Resolves when `count` events are there. Rejects when the stream ends before, or after `waitMs`. */
  waitFor(count: number, waitMs?: number): Promise<void>;
  readonly ended: Promise<void>;
  /** Once ended: whether it came to its end, rather than being cut. */
  complete(): boolean;
  close(): void;
}

export function openStream(
  url: string,
  options: { method?: string; headers?: http.OutgoingHttpHeaders; body?: string },
): Promise<OpenStream> {
  return new Promise((resolve, reject) => {
    const request = http.request(url, {
      method: options.method ?? 'POST',
      agent: false,
      headers: {
        accept: 'application/json, text/event-stream',
        ...(options.body === undefined ? undefined : { 'content-type': 'application/json' }),
        ...options.headers,
      },
    });
    request.on('error', reject);
    request.on('response', (response) => {
      const events: OpenStream['events'] = [];
      const waiting: (() => void)[] = [];
      let rest = '';
      let over = false;
      const wake = () => {
        for (const one of waiting.splice(0)) one();
      };
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        rest += text;
        for (let end = rest.indexOf('\n\n'); end !== -1; end = rest.indexOf('\n\n')) {
          const lines = rest.slice(0, end).split('\n');
          rest = rest.slice(end + 2);
          const data = lines
            .filter((line) => line.startsWith('data:'))
            .map((line) => line.slice(5).trim())
            .join('\n');
          const id = lines
            .find((line) => line.startsWith('id:'))
            ?.slice(3)
            .trim();
          if (data !== '' || id !== undefined)
            events.push({ at: performance.now(), id, data: data === '' ? undefined : JSON.parse(data) });
        }
        wake();
      });
      const ended = new Promise<void>((settle) => {
        const finish = () => {
          over = true;
          wake();
          settle();
        };
        response.on('end', finish);
        response.on('close', finish);
        response.on('error', finish);
      });
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        events,
        ended,
        async waitFor(count, waitMs = 5_000) {
          const deadline = performance.now() + waitMs;
          while (events.length < count) {
            const left = deadline - performance.now();
            if (over || left <= 0)
              throw new Error(`${over ? 'the stream ended' : 'time ran out'} at ${events.length} of ${count} events`);
            await new Promise<void>((next) => {
              const timer = setTimeout(next, left);
              waiting.push(() => {
                clearTimeout(timer);
                next();
              });
            });
          }
        },
        complete: () => response.complete,
        close: () => request.destroy(),
      });
    });
    request.end(options.body);
  });
}
