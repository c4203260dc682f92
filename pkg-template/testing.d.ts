/**
 * For tests of apps. In unit tests this module stands in for the SDK, with the same exports and one more:
 *
 * ```js
 * vi.mock('approov-web-sdk', () => import('approov-web-sdk/testing'))
 * ```
 *
 * Its sessions, tokens and proofs are made up, without a service, WebAssembly or network, and mean nothing to a backend.
 */
import type { ApproovEvents } from './approov.js'
import type { Approov as Sdk } from './approov.js'

export {
  ApproovCheckError,
  ApproovError,
  ApproovFetchError,
  ApproovServiceError,
  ApproovSessionError,
} from './approov.js'

export const Approov: typeof Sdk

/** What a test does with the fake SDK. */
export const fake: Readonly<{
  /** The calls since the last reset, in order; those of a function of `createFetch` are `fetch`. */
  readonly calls: { name: keyof typeof Sdk | 'fetch'; args: unknown[] }[]
  /** Lets the next call of a function fail with this error. */
  fail(name: keyof typeof Sdk | 'fetch', error: unknown): void
  /** Ends the session as time does. */
  expire(): void
  /** Calls the listeners of an event. */
  emit<T extends keyof ApproovEvents>(type: T, members?: Omit<ApproovEvents[T], 'type'>): void
  /** As at the start: no session, no calls, no listeners. */
  reset(): void
}>

export interface InstallOptions {
  /**
   * How the checks end: `pass` (default), `fail`, or another outcome of the service's simulators; `blocked`: their scripts do not load.
   */
  outcome?: string
}

/** What of Playwright's `Page` is used. */
export interface TestPage {
  addInitScript(script: (argument: any) => void, argument: any): Promise<unknown>
  route(url: RegExp, handler: (route: { abort(code?: string): Promise<unknown> }) => unknown): Promise<unknown>
}

/**
 * For tests in browsers against `approov-web-service serve --dev`: sets how the simulated checks of a page end. To be called before the
 * page is opened; with `fail`, the page's tokens are those of a failed check, which backends refuse.
 */
export function installApproov(page: TestPage, options?: InstallOptions): Promise<void>
