/**
 * Where the webhook's certificate comes from. The server is told of each new one; a bad one is told of and never used.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { err, ok, type Result } from '../policies/result.ts';
import { type KeyPair, validityOf } from './certificate.ts';

export interface CertificateSource {
  /** Looks now. Called at start, and again and again. */
  refresh(): Promise<void>;
  /** The one to serve. `undefined`: none yet. */
  readonly current: KeyPair | undefined;
}

export interface CertificatePorts {
  readonly changed: (pair: KeyPair) => void;
  readonly warn: (message: string) => void;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
}

/** A certificate that a TLS server can be given: in its time, and with its own key. */
export function checkPair(pair: KeyPair, now: number): Result<KeyPair, string> {
  const validity = validityOf(pair.certificate);
  if (validity === undefined) return err('the certificate cannot be read');
  if (now < validity.from) return err(`the certificate begins at ${new Date(validity.from).toISOString()}`);
  if (now >= validity.until) return err(`the certificate ended at ${new Date(validity.until).toISOString()}`);
  return checkKey(pair);
}

/** Whatever the time. */
export function checkKey({ certificate, key }: KeyPair): Result<KeyPair, string> {
  try {
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key)))
      return err('the key is not the key of the certificate');
  } catch {
    return err('the key cannot be read');
  }
  return ok({ certificate, key });
}

/** @param text PEM. @returns it, where it has certificates, and none that cannot be read. */
export function checkAuthorities(text: string): Result<string, string> {
  const certificates = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  // TLS itself takes a text without any, and then hears nobody.
  if (certificates.length > 0 && certificates.every((one) => validityOf(one) !== undefined)) return ok(text);
  return err('has no certificates (PEM), or one that cannot be read');
}
