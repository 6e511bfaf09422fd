/**
 * Where the sidecar's telemetry goes: an OTLP gRPC collector that accepts everything and keeps nothing but a count.
 * Own process, so that its work is not the sidecar's.
 */
import { Server, ServerCredentials, type ServiceDefinition } from '@grpc/grpc-js';
import { answerParent } from './child.ts';

export type SinkQuestion = { readonly kind: 'listen' } | { readonly kind: 'count' };

/** Export calls and bytes so far. */
export interface SinkCount {
  readonly exports: number;
  readonly bytes: number;
}

let exports = 0;
let bytes = 0;

/** One `Export` method that reads nothing: an empty message is a valid answer of every OTLP export service. */
const exportMethod = (path: string): ServiceDefinition => ({
  Export: {
    path,
    requestStream: false,
    responseStream: false,
    requestDeserialize: (value: Buffer) => value,
    requestSerialize: (value: Buffer) => value,
    responseDeserialize: (value: Buffer) => value,
    responseSerialize: (value: Buffer) => value,
  },
});

async function listen(): Promise<{ origin: string }> {
  const server = new Server({ 'grpc.max_receive_message_length': 64 * 1024 * 1024 });
  for (const signal of ['trace', 'metrics', 'logs']) {
    const service = `${signal[0]!.toUpperCase()}${signal.slice(1)}Service`;
    server.addService(exportMethod(`/opentelemetry.proto.collector.${signal}.v1.${service}/Export`), {
      Export: (call: { request: Buffer }, callback: (error: null, reply: Buffer) => void) => {
        exports++;
        bytes += call.request.length;
        callback(null, Buffer.alloc(0));
      },
    });
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { origin: `http://127.0.0.1:${port}` };
}

answerParent<SinkQuestion>((question) => (question.kind === 'listen' ? listen() : { exports, bytes }));
