/** Tries again what may pass: 429, 503, and a connection that broke before an answer began. */

import { ApiError, ConnectionFailed } from "./errors.js";

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 8;
/** A server that asks for more is not asked again; the error tells how long it wants. */
const MOST_ASKED_S = 60;

export async function withRetries<T>(
  attempt: () => Promise<T>,
  { retries, signal }: { retries: number; signal: AbortSignal | undefined },
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      const wait = failures < retries ? waitAfter(error, failures) : null;
      if (wait === null) throw error;
      await pause(wait * 1000, signal);
    }
  }
}

/** Seconds, or null for what another try would not help. */
function waitAfter(error: unknown, failures: number): number | null {
  if (error instanceof ConnectionFailed) return error.status === null ? backOff(failures) : null;
  if (!(error instanceof ApiError) || (error.status !== 429 && error.status !== 503)) return null;
  if (error.retryAfter === null) return backOff(failures);
  return error.retryAfter <= MOST_ASKED_S ? error.retryAfter : null;
}

/** Doubles each time, less up to a quarter, so that clients that failed together do not come back together. */
function backOff(failures: number): number {
  return Math.min(FIRST_WAIT_S * 2 ** failures, LONGEST_WAIT_S) * (1 - Math.random() / 4);
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}
