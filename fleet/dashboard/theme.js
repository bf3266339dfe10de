// Before the first paint, so that a dark room stays dark. A classic script, because modules run after it.
try {
  const theme = localStorage.getItem("prestage.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Nothing is kept here: the system's preference holds.
}
