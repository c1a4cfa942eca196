// Keeps <main> new: fetches the same page every two seconds and swaps what changed. Without JavaScript the page's
// <noscript> refresh does it. While somebody is in a form nothing is swapped; what was typed stays typed.
"use strict";
const everyMs = 2000;
async function renew() {
  const main = document.querySelector("main");
  const busy = document.activeElement && document.activeElement.closest("main form");
  if (document.hidden || busy) return;
  try {
    const answer = await fetch(location.pathname, { credentials: "same-origin", cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (fresh.innerHTML !== main.innerHTML) {
      for (const field of fresh.querySelectorAll("input[type=text]")) {
        field.value = main.querySelector(`input[name="${field.name}"]`)?.value ?? "";
      }
      main.replaceWith(document.adoptNode(fresh));
    }
    document.title = page.title;
    document.body.classList.remove("is-stale");
  } catch {
    document.body.classList.add("is-stale");
  }
}
setInterval(renew, everyMs);
document.addEventListener("visibilitychange", renew);
