/** Everything in one file: the main entry, and `approov-web-sdk/checks` as `checks`. */
export * from './approov.js'
export * as checks from './checks.js'
