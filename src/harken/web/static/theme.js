// Light, dark, or as the system says. Loaded before the first paint; the choice stays in this browser.
(() => {
  const root = document.documentElement;
  const chosen = () => localStorage.getItem("harken:theme") ?? "auto";
  const apply = () => {
    root.dataset.theme = chosen();
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const language = document.getElementById("language"); // the server renders the page in it
    language?.addEventListener("change", () => {
      const path = document.querySelector('meta[name="base"]')?.content || "/";
      document.cookie = `harken_language=${language.value}; path=${path}; max-age=31536000; samesite=lax`;
      location.reload();
    });
    const select = document.getElementById("theme");
    if (!select) return;
    select.value = chosen();
    select.addEventListener("change", () => {
      localStorage.setItem("harken:theme", select.value);
      apply();
    });
  });
})();
