// Other people's DPoP clients, for a page; bundled by the test that uses it.
import { WebcryptoKey } from '@atproto/jwk-webcrypto'
import { generateProof } from 'dpop'
// The package does not export this file by its name.
import { dpopFetchWrapper } from '../node_modules/@atproto/oauth-client/dist/fetch-dpop.js'

export { WebcryptoKey, dpopFetchWrapper, generateProof }
