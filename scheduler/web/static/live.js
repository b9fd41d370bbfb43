"use strict";
// Keeps a page up to date: what bears data-live is fetched again every few seconds, by its id, from the page's own
// address. Without this script a page is complete, only not refreshed.
(() => {
  const parts = () => document.querySelectorAll("[data-live][id]");
  const seconds = () => Math.min(...[...parts()].map((part) => Number(part.dataset.live) || 5));

  function busy(part) {
    const selection = document.getSelection();
    const marked = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    const typed = part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
    return marked || typed;
  }

  function replace(part, fresh) {
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...part.querySelectorAll("details[open][id]")].map((item) => item.id);
    const followed = part.querySelector("pre[data-follow]");
    const atEnd = followed && followed.scrollTop + followed.clientHeight >= followed.scrollHeight - 8;
    const top = followed ? followed.scrollTop : 0;
    part.replaceWith(fresh);
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    if (focused) document.getElementById(focused)?.focus();
    const log = fresh.querySelector("pre[data-follow]");
    if (log) log.scrollTop = atEnd ? log.scrollHeight : top;
  }

  async function refresh() {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (reply.redirected) return location.reload();
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const part of parts()) {
      const fresh = page.getElementById(part.id);
      if (fresh && !busy(part) && fresh.outerHTML !== part.outerHTML) replace(part, document.adoptNode(fresh));
    }
    document.body.toggleAttribute("data-stale", !reply.ok);
  }

  async function loop() {
    if (!parts().length) return;
    if (!document.hidden) {
      try {
        await refresh();
      } catch {
        document.body.toggleAttribute("data-stale", true);  // the server is away: asked again
      }
    }
    setTimeout(loop, seconds() * 1000);
  }

  if (navigator.clipboard) document.documentElement.classList.add("copies");
  document.querySelectorAll("pre[data-follow]").forEach((log) => { log.scrollTop = log.scrollHeight; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) navigator.clipboard?.writeText(button.dataset.copy).then(() => { button.textContent = button.dataset.done; });
  });
  document.addEventListener("submit", (event) => {  // pressed once
    setTimeout(() => event.target.querySelectorAll("button").forEach((button) => { button.disabled = true; }));
  });
  document.addEventListener("change", (event) => {  // of what is chosen the details, of the others not
    const list = event.target.closest("select[data-opens]");
    if (list) document.querySelectorAll(`details.${list.dataset.opens}`).forEach((item) => { item.open = item.dataset.of === list.value; });
  });
  window.addEventListener("pageshow", () => document.querySelectorAll("button:disabled").forEach((b) => { b.disabled = false; }));
  if (parts().length) setTimeout(loop, seconds() * 1000);
})();
