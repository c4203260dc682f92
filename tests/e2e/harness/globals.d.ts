// What the functions that tests run in pages find there in addition to the page's own: put there by test pages and by the tests' hooks.
import type * as Sdk from '../../../pkg-template/approov'

declare global {
  var Approov: typeof Sdk.Approov
  var ApproovError: typeof Sdk.ApproovError
  var ApproovFetchError: typeof Sdk.ApproovFetchError
  var ApproovServiceError: typeof Sdk.ApproovServiceError
  var ApproovSessionError: typeof Sdk.ApproovSessionError

  /** `pages/clock.js` has put it there. */
  var clock: {
    advance(milliseconds: number): Promise<void>
    sleep(milliseconds: number, how: { isTicking: boolean }): void
    timers(): number[]
    timer(least: number, most?: number): Promise<number>
  }

  /** `pages/flow.js` has it. */
  var PATIENCE: number

  /** The script of reCAPTCHA, or of its simulator. */
  var grecaptcha: any

  /** What tests leave for their later steps. */
  var calls: any, controller: any, described: any, firstToken: any, isSettled: any, memory: any, old: any, oldProof: any
  var api: any,
    apiFetch: any,
    checks: any,
    hanging: any,
    make: any,
    more: any,
    one: any,
    own: any,
    renewing: any,
    solve: any
  var isRunning: any
  var told: any
  var keysOf: any
  var context: any
  var codeOf: any
  var answered: any
  var logged: any
  var scriptOf: any
  var call: any,
    describeOutcome: any,
    reason: any,
    statusOf: any,
    two: any,
    abort: any,
    heard: any,
    token: any,
    lost: any
  var options: any,
    outcome: any,
    passCheck: any,
    prepared: any,
    rejection: any,
    sent: any,
    sessionOptions: any,
    third: any

  /** What errors of the SDK, of Node and of the tests carry. */
  interface Error {
    code?: string
    retryable?: boolean
    errors?: any
    original?: any
  }

  /** In a service worker. */
  function skipWaiting(): Promise<void>
  interface MessageEvent {
    waitUntil(work: Promise<unknown>): void
  }

  /** There is nothing but HTML on the pages of this project. */
  interface ParentNode {
    querySelector(selectors: string): HTMLElement
    querySelectorAll(selectors: string): NodeListOf<HTMLElement>
  }

  interface JSON {
    /** Takes bytes, too, as text. */
    parse(text: Buffer): any
  }
}
