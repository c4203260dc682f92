// What is measured beside the SDK, joined into one script for the page.
export * as dpop from 'dpop'
export * as jose from 'jose'
export { p256 } from '@noble/curves/nist.js'
