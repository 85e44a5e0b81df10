"use strict";
(() => { // colours, and the name of a mark when it is pointed at
const said = document.getElementById("told");
for (const mark of document.querySelectorAll("[data-mark]"))
  for (const event of ["mouseenter", "focus", "click"]) mark.addEventListener(event, () => { said.textContent = mark.getAttribute("aria-label"); });
const theme = document.getElementById("theme"), root = document.documentElement;
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const label = () => { theme.textContent = dark() ? "Light colours" : "Dark colours"; theme.setAttribute("aria-pressed", String(dark())); };
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
label();
})();
