"use strict";
// Shows a job and what changes of it. Texts go into the page by textContent alone, so that they stay texts.

const $ = (id) => document.getElementById(id);
const FAILURES_SHOWN = 5;
let shown = null; // the id of the job that is shown
let events = null;

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

async function ask(path, said) {
  const options = said === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said),
  };
  const answer = await fetch(path, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

// What a button does: whatever goes wrong is told, and the button waits for the answer.
function doing(button, act) {
  return async (event) => {
    event.preventDefault();
    button.disabled = true;
    say("");
    try {
      await act();
    } catch (error) {
      say(error.message);
    } finally {
      button.disabled = false;
    }
  };
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

async function list() {
  const { jobs, trouble } = await ask("/api/jobs");
  $("trouble").checked = trouble;
  $("jobs").replaceChildren(...jobs.map((job) => {
    const link = element("a", job.id === shown ? "shown" : "", "");
    link.href = "#" + job.id;
    link.append(element("span", "", job.title), element("span", "badge " + job.state, job.state));
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
  return jobs;
}

function follow(id) {
  if (events) events.close();
  shown = id;
  $("picture").removeAttribute("src");
  const source = events = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
  let last = null;
  source.onmessage = (event) => {
    say("");
    const job = JSON.parse(event.data);
    show(job);
    if (job.state !== last) list().catch((error) => say(error.message));
    last = job.state;
    if (job.ended) source.close();
  };
  source.onerror = () => {
    say("The server does not answer; trying again.");
    if (source.readyState === EventSource.CLOSED) findOut(id);
  };
}

// The browser has given up, as it does if an answer is an error: which one?
async function findOut(id) {
  try {
    await ask(`/api/jobs/${encodeURIComponent(id)}`);
    setTimeout(() => shown === id && follow(id), 1000);
  } catch (error) {
    say(error.message);
  }
}

function show(job) {
  $("nothing").hidden = true;
  $("job").hidden = false;
  $("job").dataset.id = job.id;
  $("name").textContent = job.title;
  $("about").textContent = `${job.place}, ${job.width} × ${job.height}, detail ${job.detail}`;
  $("bar").value = job.progress;
  $("percent").textContent = Math.floor(job.progress * 100) + " %";
  $("state").textContent = job.state;
  $("state").className = "badge " + job.state;
  $("cancel").hidden = job.ended;
  $("retry").hidden = !["failed", "failing", "cancelled"].includes(job.state);
  $("retry").textContent = job.state === "cancelled" ? "Go on" : "Retry what failed";
  showTiles(job);
  const picture = $("picture");
  picture.hidden = job.state !== "done";
  const path = `/api/jobs/${job.id}/picture.png`;
  if (job.state === "done" && picture.getAttribute("src") !== path) picture.src = path;
  picture.alt = job.title;
}

function showTiles(job) {
  if ($("tiles").dataset.id !== job.id) {
    $("tiles").dataset.id = job.id;
    $("tiles").replaceChildren(...job.tiles.map(() => element("div", "tile", "")));
  }
  const counts = {}, failures = [];
  job.tiles.forEach((tile, number) => {
    counts[tile.state] = (counts[tile.state] || 0) + 1;
    if (tile.failure) failures.push(`Tile ${number + 1} (${tile.state}, attempt ${tile.attempts}): ${tile.failure}`);
    showTile($("tiles").children[number], tile, `/api/jobs/${job.id}/tiles/${number}.png`);
  });
  $("counts").textContent = "Tiles: " + Object.keys(counts).sort().map((state) => `${counts[state]} ${state}`).join(", ");
  const more = failures.length - FAILURES_SHOWN;
  const lines = failures.slice(0, FAILURES_SHOWN).concat(more > 0 ? [`… and ${more} more`] : []);
  if (job.state === "failed" && job.failure && !failures.length) lines.push(job.failure);
  $("failures").replaceChildren(...lines.map((line) => element("li", "", line)));
}

function showTile(cell, tile, path) {
  if (cell.dataset.state === tile.state) {
    const bar = cell.querySelector("progress");
    if (bar) bar.value = tile.progress;
    return;
  }
  cell.dataset.state = tile.state;
  cell.className = "tile " + tile.state;
  if (tile.state === "done") {
    const picture = document.createElement("img");
    picture.alt = "";
    picture.src = path;
    cell.replaceChildren(picture);
  } else {
    cell.textContent = { running: "running", dead: "failed", cancelled: "cancelled", scheduled: "again soon" }[tile.state] || "";
    if (tile.state === "running") {
      const bar = document.createElement("progress");
      bar.value = tile.progress;
      cell.append(bar);
    }
  }
}

$("order").addEventListener("submit", doing($("start"), async () => {
  const { id } = await ask("/api/jobs", {
    title: $("title").value, place: $("place").value, width: +$("width").value, detail: +$("detail").value,
  });
  location.hash = id;
}));
$("cancel").addEventListener("click", doing($("cancel"), () => ask(`/api/jobs/${shown}/cancel`, {})));
$("retry").addEventListener("click", doing($("retry"), async () => {
  await ask(`/api/jobs/${shown}/retry`, {});
  follow(shown); // it may have ended, and nobody listened any more
}));
$("trouble").addEventListener("change", doing($("trouble"), () => ask("/api/trouble", { on: $("trouble").checked })));
addEventListener("hashchange", () => follow(decodeURIComponent(location.hash.slice(1))));

list().then((jobs) => {
  if (location.hash.length > 1) follow(decodeURIComponent(location.hash.slice(1)));
  else if (jobs.length) follow(jobs[0].id);
}).catch((error) => say(error.message));
