/** What the page asks of the proxy and, through it, of the cluster. The credentials live in this module only. */

let authorization = null;

/** Uses a user's name and password for all further searches; an empty name stands for none. */
export function signIn(user, password) {
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  authorization = user ? `Basic ${btoa(String.fromCharCode(...bytes))}` : null;
}

/** An answer other than the one hoped for; `message` is for the viewer. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What profiles leave out: the proxy's own defaults. */
let defaults = {};

/** What the names of companions begin with. */
let prefix = "";

/** Version, mode and stages of this proxy. */
export async function about() {
  const described = await (await request("about", {})).json();
  defaults = described.profile_defaults;
  prefix = described.companion_prefix;
  return described;
}

/**
 * Index name → profile, of all enriched indices whose mapping the viewer may read, or of one by name. `beside` in it
 * is the profile of the generation that is being made beside the serving one, if there is one. `stamped_in` is the
 * index that holds the stamps: the index itself, or its companion, which is hidden.
 */
export async function profiles(name = "") {
  // A second generation is a second companion; only the serving one has a profile of that name.
  const both = (name ? [name, `${name}~2`] : ["*"]).map((each) => encodeURIComponent(prefix + each)).join(",");
  const [application, companions] = await Promise.all([
    mappings(name ? `/${encodeURIComponent(name)}` : "", ""),
    // Companions are hidden, and searches use them although a viewer may not read them.
    mappings(`/${both}`, "expand_wildcards=all&ignore_unavailable=true&").catch(() => ({})),
  ]);
  const found = Object.entries({ ...application, ...companions }).map(([index, { mappings: { _meta } }]) => [index, _meta]);
  return Object.fromEntries(found.filter(([, meta]) => meta.neural_bridge).map(([index, meta]) => {
    const { neural_bridge: serving, neural_bridge_beside: beside } = meta;
    const second = beside && { ...read(beside), stamped_in: index };
    return [serving.beside ?? index, { ...read(serving), beside: second, stamped_in: index }];
  }));
}

async function mappings(path, more) {
  const shown = "filter_path=*.mappings._meta.neural_bridge*";
  return (await request(`cluster${path}/_mapping?${more}${shown}`, {})).json();
}

/** A profile with all its parts; first versions wrote each text field as an object with its name. */
const read = (profile) =>
  ({ ...completed(defaults, profile), text_fields: profile.text_fields.map((field) => field.name ?? field) });

/** `partial`, and from `whole` what it leaves out, at any depth; but weights are given all together. */
function completed(whole, partial) {
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isObject(whole) || !isObject(partial)) return partial === undefined ? whole : partial;
  const keys = new Set([...Object.keys(whole), ...Object.keys(partial)]);
  return Object.fromEntries([...keys].map((key) =>
    [key, key === "weights" ? partial[key] ?? whole[key] : completed(whole[key], partial[key])]));
}

/**
 * Runs one search as an application would. `body` is JSON text; `control` the x-bridge header.
 * Gives `{answer, mark, timings, elapsedMs}`: the JSON, X-Bridge and Server-Timing as text, and the time here.
 */
export async function search(index, body, control) {
  const headers = { "content-type": "application/json", ...(control && { "x-bridge": control }) };
  const started = performance.now();
  const response = await request(`cluster/${encodeURIComponent(index)}/_search`, { method: "POST", headers, body });
  const answer = await response.json();
  return {
    answer,
    mark: response.headers.get("x-bridge") ?? "",
    timings: response.headers.get("server-timing") ?? "",
    elapsedMs: performance.now() - started,
  };
}

async function request(path, options) {
  const headers = { ...options.headers, ...(authorization && { authorization }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch {
    throw new Refusal(0, "The proxy does not answer: is it running?");
  }
  if (!response.ok) throw new Refusal(response.status, await reason(response));
  return response;
}

async function reason(response) {
  const text = await response.text();
  if (response.status === 401) return "The cluster wants to know who you are: sign in.";
  try {
    const { error } = JSON.parse(text);
    return `${response.status}: ${error.root_cause?.[0]?.reason ?? error.reason ?? error}`;
  } catch {
    return `${response.status}: ${text.slice(0, 300)}`;
  }
}
