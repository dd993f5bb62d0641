// Elements made of names, attributes and text; text never becomes HTML, whoever wrote it.

export const byId = (id) => document.getElementById(id);

/** An element. `on…` properties are listeners, `true` is a bare attribute, `false`, null and undefined are left out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Sets CSS variables, which is how anything here is placed; attributes of style are closed by the page's policy. */
export function place(element, variables) {
  for (const [name, value] of Object.entries(variables)) element.style.setProperty(`--${name}`, String(value));
  return element;
}

export const show = (element, shown) => {
  element.hidden = !shown;
};

export const two = (value) => value.toFixed(2);

/** Milliseconds, read at a glance. */
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`);
