// What the service puts before every simulated script: shared.js.
declare const simulated: {
  now(): number
  random(length: number): string
  isBlocked(): boolean
  ending(siteKey?: string, published?: Record<string, string>): { kind: string; outcome?: string; code?: string }
  isInteractive(): boolean
  token(outcome: string, parts: string[]): string
  options(element: HTMLElement, options?: object): Record<string, any>
  call(callback: unknown, ...values: unknown[]): any
  field(element: HTMLElement, name: string): HTMLTextAreaElement
  checkbox(element: HTMLElement, text: string, onClick: () => void): HTMLButtonElement
  whenExpired(milliseconds: number, callback: () => void): ReturnType<typeof setTimeout>
  whenParsed(callback: () => void): void
}
