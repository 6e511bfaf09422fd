/**
 * A self-signed certificate for 127.0.0.1, made at run time with node:crypto alone (Node signs, but has no call that
 * builds a certificate, and `openssl` is not everywhere): X.509 v3 (RFC 5280) in DER, ECDSA with P-256 and SHA-256.
 * For the benchmark: valid one day, trusted by nobody but those who are handed it.
 */
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';

const tagged = (tag: number, ...parts: Buffer[]): Buffer => {
  const content = Buffer.concat(parts);
  const length = content.length;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
};
const sequence = (...parts: Buffer[]) => tagged(0x30, ...parts);
const identifier = (hex: string) => tagged(0x06, Buffer.from(hex, 'hex'));
const bitString = (bits: Buffer) => tagged(0x03, Buffer.from([0]), bits);
const octets = (content: Buffer) => tagged(0x04, content);
const truth = tagged(0x01, Buffer.from([0xff]));
/** GeneralizedTime would be refused: RFC 5280, section 4.1.2.5, wants UTCTime before 2050. */
const utcTime = (at: Date) => tagged(0x17, Buffer.from(`${at.toISOString().slice(2, 19).replace(/[-T:]/g, '')}Z`));

const ecdsaWithSha256 = sequence(identifier('2a8648ce3d040302'));
const commonName = identifier('550403');
const basicConstraints = identifier('551d13');
const subjectAltName = identifier('551d11');

/** PEM texts. `certificate` is its own authority: give it to clients as `ca`. */
export function makeCertificate(now: Date): { key: string; certificate: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const name = sequence(tagged(0x31, sequence(commonName, tagged(0x0c, Buffer.from('mcp-sidecar bench')))));
  const day = 24 * 3600 * 1000;
  const address = tagged(0x87, Buffer.from([127, 0, 0, 1]));
  const host = tagged(0x82, Buffer.from('localhost'));
  const extensions = sequence(
    sequence(basicConstraints, truth, octets(sequence(truth))),
    sequence(subjectAltName, octets(sequence(address, host))),
  );
  // A serial number is positive (its first bit is 0) and has no needless leading zero.
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const toBeSigned = sequence(
    tagged(0xa0, tagged(0x02, Buffer.from([2]))),
    tagged(0x02, serial),
    ecdsaWithSha256,
    name,
    sequence(utcTime(new Date(now.getTime() - day / 24)), utcTime(new Date(now.getTime() + day))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0xa3, extensions),
  );
  const der = sequence(toBeSigned, ecdsaWithSha256, bitString(sign('sha256', toBeSigned, privateKey)));
  const lines = der.toString('base64').match(/.{1,64}/g)!;
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificate: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
  };
}
