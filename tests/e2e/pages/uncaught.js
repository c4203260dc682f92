// What a page left uncaught: errors, and rejections that nobody handled.
const reasons = []
addEventListener('unhandledrejection', ({ reason }) => reasons.push(reason))
addEventListener('error', ({ error, message }) => reasons.push(error ?? message))

/** Everything so far. Rejections are reported in the order in which they happened: after one of ours, all before it are there. */
export async function uncaught() {
  const last = new Error('the last one')
  const reported = new Promise((resolve) =>
    addEventListener('unhandledrejection', (event) => event.reason === last && resolve(event.preventDefault())),
  )
  Promise.reject(last)
  await reported
  return reasons.filter((reason) => reason !== last).map(String)
}
