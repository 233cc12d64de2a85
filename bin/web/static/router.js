// Pages by path, with the browser's history.
import { make } from "/components/charts.js";
import { connection, get } from "./api.js";
import { errorBox } from "./parts.js";
import { addWords, word } from "./words.js";

const ROUTES = [
  [/^\/$/, "home"],
  [/^\/new$/, "new"],
  [/^\/runs\/(?<id>[^/]+)$/, "run"],
  [/^\/compare$/, "compare"],
  [/^\/try$/, "try"],
  [/^\/models$/, "models"],
  [/^\/data$/, "data"],
  [/^\/api\/docs$/, "docs"],
];
const SHOW_LOADING_MS = 150;
let current = null; // AbortController of the page that is shown
let shown = null; // its address

// Returns {page, params} for a path; page is null for one that we do not have.
export function routeOf(path) {
  for (const [pattern, page] of ROUTES) {
    const match = path.match(pattern);
    if (match) {
      const parts = Object.entries(match.groups || {});
      const params = parts.map(([name, text]) => [name, decodeURIComponent(text)]);
      return { page, params: Object.fromEntries(params) };
    }
  }
  return { page: null, params: {} };
}

// Goes to an address of ours. replace: without a new entry in the history.
export function navigate(address, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  return render();
}

// Gives the page that is shown another address.
export function rename(address) {
  history.replaceState(null, "", address);
  shown = location.pathname + location.search;
}

// Returns the scripts of a page: what it shows, and its texts.
async function modulesOf(page) {
  try {
    return await Promise.all([import(`./pages/${page}.js`), import(`./words/${page}.js`)]);
  } catch (error) {
    await get("/session"); // says so where the server does not answer
    throw error;
  }
}

// Draws the page of the address. Timers and streams of the page before end.
export async function render({ focus = true } = {}) {
  current?.abort();
  const own = new AbortController();
  current = own;
  const main = document.querySelector("main"), view = make("div", { class: "view" });
  const loading = document.querySelector(".loading");
  const timer = setTimeout(() => (loading.hidden = false), SHOW_LOADING_MS);
  const { page, params } = routeOf(location.pathname);
  shown = location.pathname + location.search;
  document.dispatchEvent(new CustomEvent("page", { detail: page }));
  main.setAttribute("aria-busy", "true");
  try {
    if (page === null) throw new Error(word("no.page", { path: location.pathname }));
    const [module, words] = await modulesOf(page);
    if (own.signal.aborted) return;
    addWords(words.default);
    document.title = `${word(module.title)} - visionloop`;
    main.replaceChildren(view);
    if (focus) focusHeading(main);
    const query = new URLSearchParams(location.search);
    await module.show(view, { params, query, signal: own.signal });
  } catch (error) {
    if (own.signal.aborted || error.name === "AbortError") return;
    for (const waiting of view.querySelectorAll(".skeleton")) waiting.remove();
    if (!view.querySelector("h1")) view.prepend(make("h1", {}, word("error.title")));
    const again = { once: true, signal: own.signal };
    if (error.status === 0) connection.addEventListener("back", () => render(), again);
    view.append(errorBox(error, { retry: () => render() }));
    main.replaceChildren(view);
  } finally {
    clearTimeout(timer);
    if (current === own) {
      loading.hidden = true;
      main.removeAttribute("aria-busy");
    }
  }
}

// A screen reader goes on with the new page, the keyboard too.
function focusHeading(main) {
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

// Ends the page that is shown.
export const leave = () => current?.abort();

function follow(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const address = new URL(link.href, location.href);
  if (link.target || link.hasAttribute("download") || address.origin !== location.origin) return;
  if (!routeOf(address.pathname).page) return;
  const isSamePage = address.pathname + address.search === location.pathname + location.search;
  if (isSamePage && address.hash) return; // a section of this page
  event.preventDefault();
  navigate(address.pathname + address.search + address.hash);
}

export function startRouter() {
  document.addEventListener("click", follow);
  // the browser also tells of a change of the hash alone
  addEventListener("popstate", () => shown !== location.pathname + location.search && render());
}
