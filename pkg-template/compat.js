// The WebAssembly as JavaScript (`asm.js` and its glue are made by `xtask/src/package/compat.rs`), as the facade sees it.
import makeAsm from './asm.js'
import makeGlueMaker from './glue.js'

/** The build for a facade with these built-ins: those of the moment when the facade was evaluated. @param {any} shared */
export function engine(shared) {
  return Object.freeze({
    __proto__: null,
    makeGlue: makeGlueMaker(shared),
    makeInstance: (_module, imports, refresh) => makeInstance(shared, imports, refresh),
  })
}

/**
 * The exports of a new instance, and `wipe`, which clears its memory. A memory that grows is another buffer: `refresh` makes the glue
 * forget its views of the one before, which is not detached as a WebAssembly's is.
 */
function makeInstance(shared, imports, refresh) {
  const { ArrayBuffer, Uint8Array, queueMicrotask } = shared
  const wipe = (buffer) => buffer && new Uint8Array(buffer).fill(0)
  let memory
  const MemoryBuffer = function (length) {
    const before = memory?.buffer
    if (before) {
      refresh()
      // Not before it was copied.
      queueMicrotask(() => wipe(before))
    }
    return new ArrayBuffer(length)
  }
  const object = {
    __proto__: null,
    /** The memory, whose buffer the code reads by a getter. */
    create(_prototype, { buffer }) {
      memory = {
        __proto__: null,
        get buffer() {
          return buffer.get()
        },
      }
      return memory
    },
  }
  const exports = makeAsm({ ...shared, __proto__: null, ArrayBuffer: MemoryBuffer, Object: object })(imports)
  return { __proto__: null, exports: { __proto__: null, ...exports }, wipe: () => wipe(memory.buffer) }
}
