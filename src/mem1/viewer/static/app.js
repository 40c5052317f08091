"use strict";
// Address -> page; keys -> the page's own.
(() => {
  const { h } = mem1;
  const main = document.getElementById("main"), trail = document.getElementById("path");
  let page = null, asked = 0;

  const pageOf = ({ path }) => {
    if (path.length < 2) return mem1.runsPage;
    return path.length === 2 ? mem1.listPage : mem1.trajectoryPage;
  };

  const wrong = (error) =>
    ({ title: "Not shown", path: [["Not shown"]], element: h("div", { role: "alert" },
    h("h1", { tabindex: "-1" }, "This can't be shown"), h("p", null, error.message)) });

  const crumbs = (path) => h("ol", null, [["Runs", "#/"], ...path].map(([name, href], place, all) =>
    h("li", null,
      place < all.length - 1 ? h("a", { href }, name)
        : h("span", { "aria-current": "page" }, name))));

  const go = async ({ again = false } = {}) => {
    const route = mem1.here(), number = ++asked;
    if (!again && page?.takes?.(route)) return;
    const next = await pageOf(route)(route).catch(wrong);
    if (number !== asked) return next.stop?.();
    page?.stop?.();
    page = next;
    document.title = `${page.title} · mem1`;
    trail.replaceChildren(crumbs(page.path));
    main.replaceChildren(page.element);
    main.setAttribute("data-ready", number);
    if (again) return;
    scrollTo({ top: 0, behavior: "instant" });
    if (number > 1) main.querySelector("h1")?.focus({ preventScroll: true });
  };

  /** Draws the page of this address anew, in place. */
  mem1.refresh = () => go({ again: true });

  addEventListener("hashchange", () => go());
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, textarea");
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    const act = page?.keys?.[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  go();
})();
