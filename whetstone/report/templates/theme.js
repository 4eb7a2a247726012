// Light or dark: the system's choice until the reader makes one, which the browser then remembers.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const apply = (theme) => { document.documentElement.dataset.theme = theme; };
  const wanted = () => stored() || (dark.matches ? "dark" : "light");
  apply(wanted());
  dark.addEventListener("change", () => apply(wanted()));
  addEventListener("beforeprint", () => apply("light"));
  addEventListener("afterprint", () => apply(wanted()));
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", theme); } catch { /* a page without storage forgets */ }
      apply(theme);
    });
  });
})();
