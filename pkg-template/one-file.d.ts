export * from './approov.js'
export * as checks from './checks.js'
