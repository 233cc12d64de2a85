// Starts the studio: signs in, draws the header, and shows the page of the address.
import { make } from "/components/charts.js";
import { addTranslation, clearTranslation } from "/components/elements.js";
import { connection, get, post } from "./api.js";
import { errorBox, icon } from "./parts.js";
import { leave, render, startRouter } from "./router.js";
import { addWords, language, languages, setLanguage, word } from "./words.js";
import reportKorean from "./words/report.js";
import shellWords from "./words/shell.js";

const LINKS = [
  ["/", "home"], ["/new", "new"], ["/try", "try"], ["/models", "models"], ["/data", "data"],
];
const TOKEN = "#token=";
let isSignedIn = false, shown = null, server = null;

function choose(name) {
  setLanguage(name);
  clearTranslation();
  if (name === "ko") addTranslation(reportKorean);
}

function drawHeader() {
  const links = LINKS.map(([href, page]) => {
    const isHere = page === shown ? "page" : null;
    const label = make("span", {}, word(`nav.${page}`));
    return make("a", { href, "aria-current": isHere }, icon(page), label);
  });
  const options = Object.entries(languages).map(([name, label]) => {
    return make("option", { value: name, selected: name === language(), lang: name }, label);
  });
  const select = make("select", { "aria-label": word("language"), change: () => {
    choose(select.value);
    draw();
    document.querySelector(".topbar select").focus(); // it is drawn again too
  } }, options);
  const name = make("span", {}, "visionloop");
  const brand = make("a", { class: "brand", href: "/" }, icon("brand"), name);
  const nav = make("nav", { "aria-label": word("nav") }, isSignedIn ? links : []);
  document.querySelector(".topbar").replaceChildren(brand, nav, select);
  document.querySelector(".skip").textContent = word("skip");
  const version = server ? `visionloop ${server.visionloop}` : "";
  const docs = make("a", { href: "/api/docs" }, word("nav.docs"));
  document.querySelector(".foot").replaceChildren(version, isSignedIn ? docs : "");
}

// Shows what to do without a valid cookie.
function drawSignIn(error = null) {
  isSignedIn = false;
  leave();
  document.title = `${word("signin.title")} - visionloop`;
  drawHeader();
  document.querySelector("main").replaceChildren(make("div", { class: "view narrow" },
    make("h1", {}, word("signin.title")),
    error && error.status !== 401 ? errorBox(error) : null,
    make("p", {}, word("signin.text")),
    make("pre", { class: "plain" }, `Open ${location.origin}/#token=...`),
    make("p", { class: "hint" }, word("signin.again"))));
}

function draw() {
  drawHeader();
  if (isSignedIn) render({ focus: false });
  else drawSignIn();
}

// Exchanges the token of the link for the cookie and takes it out of the address and the history.
async function signIn() {
  if (location.hash.startsWith(TOKEN)) {
    const token = decodeURIComponent(location.hash.slice(TOKEN.length));
    history.replaceState(null, "", location.pathname + location.search);
    await post("/session", { token });
  }
  server = await get("/session");
}

async function start() {
  addWords(shellWords);
  choose(language());
  const banner = document.querySelector(".banner");
  connection.addEventListener("lost", () => {
    banner.replaceChildren(make("span", { class: "spinner" }), word("connection.lost"));
    banner.hidden = false;
  });
  connection.addEventListener("back", () => (banner.hidden = true));
  connection.addEventListener("signed-out", () => isSignedIn && drawSignIn());
  document.addEventListener("page", ({ detail }) => {
    shown = detail;
    drawHeader();
  });
  drawHeader();
  try {
    await signIn();
  } catch (error) {
    drawSignIn(error);
    if (error.status === 0) connection.addEventListener("back", () => location.reload());
    return;
  }
  isSignedIn = true;
  startRouter();
  drawHeader();
  await render({ focus: false });
}

// a link with a token that is pasted into a window that is open
addEventListener("hashchange", () => location.hash.startsWith(TOKEN) && location.reload());
start();
