// Waiting for what happens, never for time to pass: a test must come out the same on a machine that is twenty times slower.
import { setTimeout as pause } from 'node:timers/promises'

/** Milliseconds after which what has not happened counts as a hang, however busy the machine is. */
export const HANG = 120_000

/**
 * Waits until something holds that no event announces, by asking again and again.
 *
 * @template T
 * @param {string} what for the message when it never holds
 * @param {() => T | Promise<T>} holds
 * @returns {Promise<T>} the first truthy value of `holds`
 */
export async function until(what, holds) {
  for (const end = performance.now() + HANG; ;) {
    const value = await holds()
    if (value) return value
    if (performance.now() > end) throw new Error(`waited ${HANG / 1000} s in vain: ${what}`)
    await pause(20)
  }
}
