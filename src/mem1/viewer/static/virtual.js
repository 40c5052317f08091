"use strict";
// The rows of a table of which only those in view exist.
(() => {
  const SPARE = 12;

  const spacer = () => mem1.h("tr", { class: "spacer", "aria-hidden": "true" }, mem1.h("td", null));

  /**
   * Fills a tbody whose rows are all `rowHeight` pixels high.
   * @param make row -> tr, its aria-rowindex is set here
   * @param scroller the element that scrolls; null: the window
   * @returns {{show(rows), reveal(index) -> tr, stop()}}
   */
  mem1.virtual = ({ body, rowHeight, make, scroller = null }) => {
    const before = spacer(), after = spacer();
    let rows = [], first = -1, last = -1, waiting = 0, awaited = null;

    const view = () => {
      const frame = scroller?.getBoundingClientRect();
      const top = (frame?.top ?? 0) - body.getBoundingClientRect().top;
      const height = frame?.height ?? innerHeight;
      return [
        Math.max(0, Math.min(rows.length, Math.floor(top / rowHeight) - SPARE)),
        Math.max(0, Math.min(rows.length, Math.ceil((top + height) / rowHeight) + SPARE)),
      ];
    };

    const draw = () => {
      const [from, to] = view();
      if (from === first && to === last) return;
      const focused = body.contains(document.activeElement)
        && document.activeElement.closest("tr").getAttribute("aria-rowindex");
      [first, last] = [from, to];
      before.style.setProperty("height", `${from * rowHeight}px`);
      after.style.setProperty("height", `${(rows.length - to) * rowHeight}px`);
      body.replaceChildren(before, ...rows.slice(from, to).map((row, place) => {
        const tr = make(row);
        tr.setAttribute("aria-rowindex", from + place + 2);
        return tr;
      }), after);
      if (focused) at(focused - 2)?.querySelector("a")?.focus({ preventScroll: true });
    };

    const at = (index) => body.querySelector(`tr[aria-rowindex="${index + 2}"]`);

    const later = () => {
      waiting ||= requestAnimationFrame(() => {
        waiting = 0;
        if (awaited !== null && body.isConnected) reveal(awaited);
        draw();
      });
    };

    /** Scrolls a row into view, now or as soon as the table is on the page; gives its element. */
    const reveal = (index) => {
      awaited = body.isConnected ? null : index;
      if (awaited !== null) return null;
      const frame = scroller?.getBoundingClientRect() ?? { top: 0, height: innerHeight };
      const top = body.getBoundingClientRect().top + index * rowHeight - frame.top;
      const head = body.parentElement.tHead?.offsetHeight ?? 0;
      const over = Math.min(0, top - head) + Math.max(0, top + rowHeight - frame.height);
      if (over) target.scrollBy({ top: over, behavior: "instant" });
      draw();
      return at(index);
    };

    const target = scroller ?? window;
    target.addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    const laid = new ResizeObserver(later);
    laid.observe(scroller ?? body);

    return {
      show(given) {
        rows = given;
        first = last = -1;
        draw();
      },
      reveal,
      stop() {
        target.removeEventListener("scroll", later);
        removeEventListener("resize", later);
        laid.disconnect();
        cancelAnimationFrame(waiting);
      },
    };
  };
})();
