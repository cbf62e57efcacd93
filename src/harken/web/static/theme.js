// Light, dark, or as the system says. Loaded before the first paint; the choice stays in this browser.
(() => {
  const root = document.documentElement;
  const chosen = () => localStorage.getItem("harken:theme") ?? "auto";
  const apply = () => {
    root.dataset.theme = chosen();
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    if (!select) return;
    select.value = chosen();
    select.addEventListener("change", () => {
      localStorage.setItem("harken:theme", select.value);
      apply();
    });
  });
})();
