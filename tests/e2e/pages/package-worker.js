// A module worker that gets a token and responds with it.
onmessage = async ({ data: { visit, entry } }) => {
  try {
    const { Approov } = await import(`/package/${entry}`)
    await Approov.initializeSession(visit.session)
    postMessage({ token: await Approov.fetchToken(visit.api, visit.result) })
  } catch (error) {
    postMessage({ error: `${error.name}: ${error.message}` })
  }
}
