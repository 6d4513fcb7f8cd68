// The server's HTTP interface: what it is asked, and its errors in its own words.

const KEY = "convmix.key";
const TRIES = 6; // of a request that a busy server puts off
let key = readKey();

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** Remember the key as long as this tab is open. */
export function useKey(value) {
  key = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // storage is forbidden: the key lasts as long as the page
  }
}

/** What the server says of its model; see GET /v1/model. */
export const fetchModel = () => request("v1/model");

/** The row of one image. threshold: null leaves it to the server. */
export async function predict(file, { name, top, threshold, nearest, signal, waiting }) {
  const form = new FormData();
  form.append("images", file, name);
  form.append("top", String(top));
  if (threshold !== null) form.append("threshold", String(threshold));
  if (nearest) form.append("nearest", String(nearest));
  const answer = await patiently(() => request("v1/predict", { method: "POST", body: form, signal }), { signal, waiting });
  return answer.predictions[0];
}

/** Where the evidence for the label lies: { label, method, probability, overlay }. */
export async function explain(file, { name, method, label, signal }) {
  const form = new FormData();
  form.append("image", file, name);
  form.append("method", method);
  if (label) form.append("label", label); // else the most probable one
  return patiently(() => request("v1/explain", { method: "POST", body: form, signal }), { signal });
}

async function patiently(ask, { signal, waiting }) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      const isBusy = error.status === 429 || (error.status === 503 && error.retryAfter !== null);
      if (!isBusy || attempt === TRIES) throw error;
      const delay = Math.min(error.retryAfter ?? 1, 30);
      waiting?.(delay);
      await pause(1000 * delay, signal);
    }
  }
}

async function request(path, options = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  const body = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && body !== null) return body;
  const said = body?.error ?? {};
  throw new ApiError(String(said.message ?? `The server answered ${response.status} ${response.statusText}`.trim()), {
    status: response.status,
    code: String(said.code ?? ""),
    retryAfter: seconds(response.headers.get("Retry-After")),
  });
}

function seconds(header) {
  const value = Number.parseFloat(header);
  return Number.isFinite(value) ? Math.max(value, 0.1) : null;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

function readKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}
