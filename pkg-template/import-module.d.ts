/** `import()` that no bundler follows; the packaging puts it before the code. */
declare const importModule: (url: string) => Promise<any>
