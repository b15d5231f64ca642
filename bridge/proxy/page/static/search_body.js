/** From what the viewer typed to the body of a search. */

const PLACEHOLDER = /%SearchText%/g;

/**
 * The body as JSON text: `template` with the query in the placeholder's stead, or a multi_match over `fields`
 * where it is empty. `size` is added where the body has none of its own.
 *
 * Throws a SyntaxError where the template is no JSON object.
 */
export function bodyFor(query, template, fields, size) {
  if (!template.trim()) return JSON.stringify({ query: { multi_match: { query, fields } }, size });
  const quoted = JSON.stringify(query).slice(1, -1);
  const text = template.replace(PLACEHOLDER, () => quoted);
  const body = JSON.parse(text);
  if (body === null || typeof body !== "object" || Array.isArray(body)) throw new SyntaxError("expected an object {…}");
  if ("size" in body) return text;
  // Added at the end and in text: numbers that JavaScript cannot hold stay as the application wrote them.
  const end = text.lastIndexOf("}");
  return `${text.slice(0, end)}${Object.keys(body).length ? "," : ""}"size":${size}}`;
}

/** The same search as a command line, for the address of applications. */
export function asCurl(index, body, control) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const header = control ? ` -H ${quoted(`x-bridge: ${control}`)}` : "";
  return (
    `curl -s "$PROXY_URL/${encodeURIComponent(index)}/_search" -H 'content-type: application/json'${header} ` +
    `-d ${quoted(body)}`
  );
}
