// Light or dark as the system says, until the reader chooses; no module, so that it runs before the first paint.
"use strict";
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("convmix.theme");
    } catch {
      return null; // storage is forbidden: the choice lasts as long as the page
    }
  };
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const kept = chosen();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      button.textContent = isDark() ? "Light" : "Dark"; // what a press gives
      button.setAttribute("aria-label", `${button.textContent} colours`);
    };
    show();
    system.addEventListener("change", show);
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("convmix.theme", root.dataset.theme);
      } catch {
        // as above
      }
      show();
    });
  });
}
