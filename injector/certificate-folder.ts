/**
 * A certificate from a folder (cert-manager, or any Secret that is mounted): `tls.crt` and `tls.key`.
 *
 * The kubelet swaps the folder `..data` in one step; both files are read from below one resolved folder, so that a key
 * never meets the certificate of another. Asked again and again, since not every file system tells of changes.
 */
import { readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { KeyPair } from './certificate.ts';
import { type CertificatePorts, type CertificateSource, checkPair } from './certificate-source.ts';

export class CertificateFolder implements CertificateSource {
  readonly #folder: string;
  readonly #ports: CertificatePorts;
  #current: KeyPair | undefined;
  #refused = '';

  constructor(folder: string, ports: CertificatePorts) {
    this.#folder = folder;
    this.#ports = ports;
  }

  get current(): KeyPair | undefined {
    return this.#current;
  }

  async refresh(): Promise<void> {
    const read = await this.#read();
    if (typeof read === 'string') return this.#refuse(read);
    if (read.certificate === this.#current?.certificate && read.key === this.#current.key) return;
    const checked = checkPair(read, this.#ports.now());
    if (!checked.ok) return this.#refuse(checked.error);
    this.#refused = '';
    this.#current = checked.value;
    this.#ports.changed(checked.value);
  }

  async #read(): Promise<KeyPair | string> {
    try {
      const folder = dirname(await realpath(join(this.#folder, 'tls.crt')));
      const [certificate, key] = await Promise.all(
        ['tls.crt', 'tls.key'].map((name) => readFile(join(folder, name), 'utf8')),
      );
      return { certificate: certificate!, key: key! };
    } catch (error) {
      return `it cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`;
    }
  }

  /** Said once for each reason: the folder is looked at every few seconds. */
  #refuse(why: string): void {
    if (why === this.#refused) return;
    this.#refused = why;
    const still = this.#current === undefined ? 'there is none to serve yet' : 'the last good one is served on';
    this.#ports.warn(`the certificate in ${this.#folder}: ${why}; ${still}`);
  }
}
