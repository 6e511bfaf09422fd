/** The little of oidc-provider (which ships no types) that the authorization server of the examples uses. */
declare module 'oidc-provider' {
  import type { RequestListener } from 'node:http';

  export class Provider {
    constructor(issuer: string, configuration: object);
    callback(): RequestListener;
    on(event: 'grant.success' | 'grant.error' | 'server_error', listener: (...values: never[]) => void): this;
  }
  export const errors: { readonly InvalidTarget: new () => Error };
}
