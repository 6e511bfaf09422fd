/**
 * A secret by reference: a file or an environment variable, never a value in configuration.
 *
 * A file is looked at on every {@link Secret.read} (one `stat`) and read again when it is another file or has changed,
 * so that a rotated secret is picked up without a restart. Error texts name the file or the variable, never its
 * content. Nothing is watched and nothing is written.
 */
import { readFileSync, statSync } from 'node:fs';
import { err, ok, type Result } from '../../policies/result.ts';
import type { Environment } from '../config/policy-source.ts';
import type { SecretReference } from '../config/schema.ts';

export interface Secret {
  /** The value now, without one trailing newline; or a sentence that says what is missing. Never empty. */
  read(): Result<string, string>;
}

/** Larger files are refused: a path that points at the wrong thing must not be read into memory. */
const FILE_BYTES_MAX = 64 * 1024;

export function createSecret(reference: SecretReference, environment: Environment = process.env): Secret {
  return 'env' in reference ? fromVariable(reference.env, environment) : fromFile(reference.file);
}

function fromVariable(name: string, environment: Environment): Secret {
  return {
    read() {
      const value = environment[name];
      return value ? ok(value) : err(`the environment variable ${name} is ${value === '' ? 'empty' : 'not set'}`);
    },
  };
}

function fromFile(path: string): Secret {
  let version = '';
  let content: Result<string, string> = err(`the secret file ${path} has not been read`);
  return {
    read() {
      try {
        const stat = statSync(path);
        if (!stat.isFile()) return err(`the secret file ${path} is not a regular file`);
        if (stat.size > FILE_BYTES_MAX) return err(`the secret file ${path} is larger than ${FILE_BYTES_MAX} bytes`);
        const found = [stat.dev, stat.ino, stat.size, stat.mtimeMs, stat.ctimeMs].join(':');
        if (found === version) return content;
        // Version before content: a change in between costs one more read, the other way round it would be missed.
        const value = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
        content = value === '' ? err(`the secret file ${path} is empty`) : ok(value);
        version = found;
        return content;
      } catch (error) {
        return err(
          `the secret file ${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
        );
      }
    },
  };
}
