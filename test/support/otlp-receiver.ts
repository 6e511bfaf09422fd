/**
 * An OTLP collector for tests: a real gRPC server on loopback that keeps the spans and histograms it is sent.
 *
 * The protobuf is decoded here by hand, from the field numbers of opentelemetry-proto 1.x, rather than by the library
 * that encoded it: what a test sees is what went over the wire.
 */
import {
  status as GrpcStatus,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';

export type AttributeValue = string | boolean | number;
export type ReceivedAttributes = { readonly [key: string]: AttributeValue };

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for a root. */
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  readonly kind: 'SERVER' | 'CLIENT' | number;
  readonly startNanos: bigint;
  readonly endNanos: bigint;
  readonly attributes: ReceivedAttributes;
  readonly status: 'UNSET' | 'OK' | 'ERROR' | number;
  /** Whether the parent is said to be in another process. */
  readonly parentIsRemote: boolean;
  readonly resource: ReceivedAttributes;
  readonly scope: string;
}

export interface ReceivedHistogram {
  readonly name: string;
  readonly unit: string;
  readonly bounds: readonly number[];
  readonly points: readonly {
    readonly attributes: ReceivedAttributes;
    readonly count: number;
    readonly sum: number;
    readonly counts: readonly number[];
  }[];
}

export interface OtlpReceiver {
  /** What goes into `telemetry.otlp`. */
  readonly url: string;
  readonly spans: ReceivedSpan[];
  /** The last state that was sent of each histogram. */
  readonly histograms: Map<string, ReceivedHistogram>;
  /** Exports asked for, refused ones included. */
  exports: number;
  /** gRPC status that exports are answered with; 0 takes them. */
  answer: GrpcStatus;
  /** Resolves when `count` spans have come; rejects after `timeoutMs`. */
  whenSpans(count: number, timeoutMs?: number): Promise<readonly ReceivedSpan[]>;
  close(): Promise<void>;
}

/** `port`: 0 for any. */
export async function startOtlpReceiver(port = 0): Promise<OtlpReceiver> {
  const server = new Server();
  const waiting = new Set<() => void>();
  const handle =
    (take: (request: Buffer) => void) => (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => {
      receiver.exports += 1;
      if (receiver.answer !== GrpcStatus.OK) return answer({ code: receiver.answer, details: 'as the test asked' });
      take(call.request);
      for (const check of waiting) check();
      return answer(null, Buffer.alloc(0));
    };
  server.addService(service('trace.v1.TraceService'), {
    export: handle((request) => receiver.spans.push(...decodeSpans(request))),
  });
  server.addService(service('metrics.v1.MetricsService'), {
    export: handle((request) => {
      for (const histogram of decodeHistograms(request)) receiver.histograms.set(histogram.name, histogram);
    }),
  });
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, actual) =>
      error === null ? resolve(actual) : reject(error),
    );
  });
  const receiver: OtlpReceiver = {
    url: `http://127.0.0.1:${bound}`,
    spans: [],
    histograms: new Map(),
    exports: 0,
    answer: GrpcStatus.OK,
    whenSpans(count, timeoutMs = 10_000) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          waiting.delete(check);
          reject(new Error(`${receiver.spans.length} of ${count} spans came in ${timeoutMs} ms`));
        }, timeoutMs);
        const check = () => {
          if (receiver.spans.length < count) return;
          clearTimeout(timer);
          waiting.delete(check);
          resolve(receiver.spans);
        };
        waiting.add(check);
        check();
      });
    },
    async close() {
      server.forceShutdown();
    },
  };
  return receiver;
}

function service(name: string) {
  const same = (bytes: Buffer): Buffer => bytes;
  return {
    export: {
      path: `/opentelemetry.proto.collector.${name}/Export`,
      requestStream: false,
      responseStream: false,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    },
  };
}

// ---- protobuf: each message as its fields by number

type Fields = Map<number, (bigint | Buffer)[]>;

function decode(bytes: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
  };
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw new RangeError('protobuf: a field goes beyond the end');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const type = tag & 7;
    let value: bigint | Buffer;
    if (type === 0) value = varint();
    else if (type === 1) value = take(8);
    else if (type === 2) value = take(Number(varint()));
    else if (type === 5) value = take(4);
    else throw new RangeError(`protobuf: wire type ${type}`);
    const known = fields.get(tag >>> 3);
    if (known === undefined) fields.set(tag >>> 3, [value]);
    else known.push(value);
  }
  return fields;
}

const all = (fields: Fields, number: number): Buffer[] => (fields.get(number) ?? []) as Buffer[];
const bytesOf = (fields: Fields, number: number): Buffer => all(fields, number)[0] ?? Buffer.alloc(0);
const textOf = (fields: Fields, number: number): string => bytesOf(fields, number).toString('utf8');
const varintOf = (fields: Fields, number: number): number => Number(fields.get(number)?.[0] ?? 0n);
const fixed64Of = (fields: Fields, number: number): bigint => bytesOf(fields, number).readBigUInt64LE();

function packed<T>(bytes: Buffer, read: (offset: number) => T): T[] {
  return Array.from({ length: bytes.length / 8 }, (_, index) => read(index * 8));
}

function attributesOf(fields: Fields, number: number): ReceivedAttributes {
  return Object.fromEntries(
    all(fields, number).map((bytes) => {
      const pair = decode(bytes);
      return [textOf(pair, 1), anyValue(decode(bytesOf(pair, 2)))];
    }),
  );
}

function anyValue(fields: Fields): AttributeValue {
  if (fields.has(1)) return textOf(fields, 1);
  if (fields.has(2)) return varintOf(fields, 2) === 1;
  if (fields.has(3)) return Number(BigInt.asIntN(64, fields.get(3)![0] as bigint));
  if (fields.has(4)) return bytesOf(fields, 4).readDoubleLE();
  throw new RangeError(`an attribute of another type: fields ${[...fields.keys()]}`);
}

/** Walks resource → scope → item, the same shape for traces and metrics. */
function* items(request: Buffer): Generator<{ item: Fields; resource: ReceivedAttributes; scope: string }> {
  for (const byResource of all(decode(request), 1).map(decode)) {
    const resource = attributesOf(decode(bytesOf(byResource, 1)), 1);
    for (const byScope of all(byResource, 2).map(decode)) {
      const scope = textOf(decode(bytesOf(byScope, 1)), 1);
      for (const item of all(byScope, 2).map(decode)) yield { item, resource, scope };
    }
  }
}

function decodeSpans(request: Buffer): ReceivedSpan[] {
  return Array.from(items(request), ({ item, resource, scope }) => {
    const kind = varintOf(item, 6);
    const status = varintOf(decode(bytesOf(item, 15)), 3);
    const flags = item.has(16) ? bytesOf(item, 16).readUInt32LE() : 0;
    return {
      traceId: bytesOf(item, 1).toString('hex'),
      spanId: bytesOf(item, 2).toString('hex'),
      parentSpanId: bytesOf(item, 4).toString('hex'),
      traceState: textOf(item, 3),
      name: textOf(item, 5),
      kind: kind === 2 ? 'SERVER' : kind === 3 ? 'CLIENT' : kind,
      startNanos: fixed64Of(item, 7),
      endNanos: fixed64Of(item, 8),
      attributes: attributesOf(item, 9),
      status: (['UNSET', 'OK', 'ERROR'] as const)[status] ?? status,
      parentIsRemote: (flags & 0x300) === 0x300,
      resource,
      scope,
    };
  });
}

function decodeHistograms(request: Buffer): ReceivedHistogram[] {
  return Array.from(items(request), ({ item }) => {
    const points = all(decode(bytesOf(item, 9)), 1).map(decode);
    const bounds = bytesOf(points[0] ?? new Map(), 7);
    return {
      name: textOf(item, 1),
      unit: textOf(item, 3),
      bounds: packed(bounds, (offset) => bounds.readDoubleLE(offset)),
      points: points.map((point) => {
        const counts = bytesOf(point, 6);
        return {
          attributes: attributesOf(point, 9),
          count: Number(fixed64Of(point, 4)),
          sum: bytesOf(point, 5).readDoubleLE(),
          counts: packed(counts, (offset) => Number(counts.readBigUInt64LE(offset))),
        };
      }),
    };
  });
}
