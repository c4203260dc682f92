// The browser engines that the tests run in: how each one's driver is started, and with which capabilities.
import { createServer } from 'node:net'

/** Each engine: its driver's program, the arguments that make the driver listen, the line that says it does, capabilities. */
export const ENGINES = {
  chromium: {
    title: 'Chromium',
    driver: 'chromedriver',
    driverArguments: (port) => [`--port=${port}`],
    listens: /started successfully/,
    capabilities: ({ profile, flags = [] }) => ({
      browserName: 'chrome',
      'goog:chromeOptions': {
        args: [
          '--headless=new',
          '--no-sandbox',
          '--disable-background-networking',
          '--disable-component-update',
          '--disable-sync',
          '--no-first-run',
          '--disable-gpu',
          '--disable-quic',
          '--disable-dev-shm-usage',
          `--user-data-dir=${profile}`,
          ...flags,
        ],
      },
      'goog:loggingPrefs': { browser: 'ALL' },
    }),
  },
  firefox: {
    title: 'Firefox',
    driver: 'geckodriver',
    driverArguments: (port) => ['--port', String(port), '--websocket-port', '0'],
    listens: /Listening on/,
    capabilities: ({ flags = [] }) => ({
      browserName: 'firefox',
      'moz:firefoxOptions': {
        args: ['-headless', ...flags],
        prefs: {
          'app.normandy.enabled': false,
          'app.update.disabledForTesting': true,
          'browser.safebrowsing.update.enabled': false,
          'datareporting.policy.dataSubmissionEnabled': false,
          'network.captive-portal-service.enabled': false,
          'network.connectivity-service.enabled': false,
          'services.settings.server': 'data:,#remote-settings-dummy/v1',
        },
      },
    }),
  },
  webkit: {
    title: 'WebKitGTK',
    driver: 'WebKitWebDriver',
    driverArguments: (port) => [`--port=${port}`],
    /** Prints nothing when it listens: its status is requested instead. */
    listens: undefined,
    /** Has no headless mode. */
    needsDisplay: true,
    capabilities: ({ browserBinary }) => ({
      browserName: 'MiniBrowser',
      'webkitgtk:browserOptions': { binary: browserBinary, args: ['--automation'] },
    }),
  },
}

/**
 * The engines that this run tests: `APPROOV_ENGINES`, separated by commas; Chromium alone by default.
 *
 * @returns {(keyof typeof ENGINES)[]}
 */
export function chosenEngines() {
  const names = (process.env.APPROOV_ENGINES ?? 'chromium').split(',').map((name) => name.trim())
  for (const name of names) {
    if (!Object.hasOwn(ENGINES, name))
      throw new Error(`APPROOV_ENGINES names ${name}; known are ${Object.keys(ENGINES).join(', ')}`)
  }
  return /** @type {(keyof typeof ENGINES)[]} */ (names)
}

/** A port that was free a moment ago, for drivers that cannot choose one and say which. */
export async function freePort() {
  const server = createServer()
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
  })
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  await new Promise((resolve) => server.close(resolve))
  return port
}
