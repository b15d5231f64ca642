/** Builds elements without markup strings, so that no text can become markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. `attributes`: strings are set as they are, true as an empty attribute, functions as
 * listeners of their name ("click"); false, null and undefined are left out. `children`: nodes or text.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of an SVG element. */
export function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

/** Gives the browser a file to save. */
export function download(name, content, mediaType = "text/plain") {
  const address = URL.createObjectURL(new Blob([content], { type: mediaType }));
  element("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}
