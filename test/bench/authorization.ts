/** The authorization server (oidc-provider) of the cold sessions, in a process of its own. */
import {
  type AuthorizationServerOptions,
  startAuthorizationServer,
} from '../../examples/support/authorization-server.ts';
import { answerParent } from './child.ts';

export type AuthorizationQuestion = AuthorizationServerOptions;

answerParent<AuthorizationQuestion>(async (options) => ({ origin: (await startAuthorizationServer(options)).issuer }));
