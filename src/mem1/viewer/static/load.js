"use strict";
// The one seam to the data: answers embedded in a report, or those of the server.
(() => {
  const element = document.getElementById("mem1-data");
  const embedded = element && JSON.parse(element.textContent);

  /** Whether the data stand in the page itself: nothing more will come. */
  mem1.embedded = embedded !== null;

  /** The answer to a path of the contract; throws an Error with text for people. */
  mem1.load = async (path) => {
    if (embedded) {
      if (Object.hasOwn(embedded, path)) return embedded[path];
      throw new Error("This report doesn't hold that; open the run itself with mem1 view.");
    }
    const response = await fetch(`api/${path}`);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error ?? `The server says ${response.status}.`);
    return answer;
  };

  /** A link inside the page: route(["runs", 0], {q: "x"}) is "#/runs/0?q=x". */
  mem1.route = (path, parameters = {}) => {
    const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
    const query = new URLSearchParams(given).toString();
    return `#/${path.map(encodeURIComponent).join("/")}${query && `?${query}`}`;
  };

  /** The inverse, of the address bar. */
  mem1.here = () => {
    const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const parameters = Object.fromEntries(new URLSearchParams(query ?? ""));
    return { path: path.split("/").filter(Boolean).map(decodeURIComponent), parameters };
  };

  /** Writes parameters into the address without a step in the history. */
  mem1.remember = (path, parameters) =>
    history.replaceState(null, "", mem1.route(path, parameters));
})();
