// `approov.js`: everything that the package has, for pages that copy one file.
export * from './approov.js'
export * as checks from './checks.js'
