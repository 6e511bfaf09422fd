/** The oldest Node that the dependencies run on (undici, OpenTelemetry, commander); the same as `engines`. Imports nothing, so that an older Node can load it. */
export const NODE_VERSION_MIN = '22.19.0';

/** Whether `version` (such as `20.20.2`) is new enough. */
export function isNodeSupported(version: string, min: string = NODE_VERSION_MIN): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [majorMin = 0, minorMin = 0] = min.split('.').map(Number);
  return major > majorMin || (major === majorMin && minor >= minorMin);
}
