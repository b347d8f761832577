// The certified oidc-provider as a process of its own: oidc_provider.mjs FOLDER, which has config.json, the certificate,
// and people.json with the claims of everybody, read at each login. Any password is right.
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const read = (name) => readFileSync(join(folder, name), 'utf8');
const config = JSON.parse(read('config.json'));
const { default: Provider } = await import(pathToFileURL(config.library).href);

const provider = new Provider(config.issuer, {
  clients: config.clients,
  jwks: config.jwks,
  cookies: { keys: ['only for tests'] },
  claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: config.lean,
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  pkce: { required: () => true },
  ttl: { DeviceCode: config.device_seconds, AccessToken: 600, IdToken: 600, Session: 600, Grant: 600, Interaction: 600 },
  async findAccount(ctx, id) {
    const claims = JSON.parse(read('people.json'))[id];
    return claims && { accountId: id, claims: async () => ({ ...claims, sub: id }) };
  },
});
createServer({ cert: read('provider.pem'), key: read('provider.key') }, provider.callback()).listen(
  config.port, '127.0.0.1', () => console.log('ready'),
);
