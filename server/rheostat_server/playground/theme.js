/* Light or dark: as the system has it, until the button says otherwise. Runs before the page is drawn. */
(() => {
  "use strict";
  const KEPT = "rheostat-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  /** A browser may close its storage to pages; the choice then holds as long as the page does. */
  const stored = (act) => {
    try {
      return act(localStorage);
    } catch (problem) {
      if (problem instanceof DOMException) return null;
      throw problem;
    }
  };
  const shown = () => root.dataset.theme ?? (system.matches ? "dark" : "light");

  const chosen = stored((storage) => storage.getItem(KEPT));
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme-button");
    const tell = () => {
      button.textContent = shown() === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${button.textContent.toLowerCase()} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = shown() === "dark" ? "light" : "dark";
      stored((storage) => storage.setItem(KEPT, root.dataset.theme));
      tell();
    });
    system.addEventListener("change", tell);
    tell();
  });
})();
